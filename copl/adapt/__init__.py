"""Users never seen in training; strategies are in `copl.adapt.strategies`, a module each."""
