"""The commands of the `copl` program, a module for each command or group; `copl.cli` puts them together."""
