"""The dialects that the service speaks, a module each."""
