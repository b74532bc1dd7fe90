"""Training of a reward model; begin with `train`."""
