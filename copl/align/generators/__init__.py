"""Who writes candidates: one module a generator."""
