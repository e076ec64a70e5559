"""Training: configuration, the loop, the run folder, what can be resumed and reloaded."""
