"""Whole methods, a module each, named as its component is; what they are made of is in `copl.methods.parts`."""
