"""The reward model: backbone, mixture, head; training and scoring."""
