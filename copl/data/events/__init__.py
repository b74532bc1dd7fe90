"""What people said to a service, as a log that is only added to, and what follows from it as comparisons."""
