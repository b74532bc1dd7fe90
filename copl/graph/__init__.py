"""The preference graph and what learns from it; encoders are in `copl.graph.encoders`, a module each."""
