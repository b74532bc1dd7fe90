"""Graph encoders, a module each, named as its component is."""
