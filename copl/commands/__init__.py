"""The commands of the `copl` program, a module for each group; `copl.cli` puts them together."""
