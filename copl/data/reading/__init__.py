"""Files and tables in."""
