"""Adaptation strategies, a module each, named as its component is."""
