"""Sources of data sets, a module or package each, named as its component is."""
