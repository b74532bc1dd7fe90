"""Who decides what a user sees: one module an aligner."""
