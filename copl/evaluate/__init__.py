"""What an evaluation says: metrics, intervals, tables, plots and the report."""
