"""Side-by-side measurements; each module is run by the command its docstring gives, from the root of the project."""
