"""Data sets; sources are in `copl.data.sources`, a module each."""
