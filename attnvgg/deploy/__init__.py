"""Models at work: features of whole slides, spread over processes and clusters."""
