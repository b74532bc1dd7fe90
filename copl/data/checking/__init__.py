"""What makes a data set wrong or weak, and what it holds."""
