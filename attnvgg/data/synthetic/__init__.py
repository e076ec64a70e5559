"""The generator behind the built-in sample: who, what shape, which paint, what the camera adds."""
