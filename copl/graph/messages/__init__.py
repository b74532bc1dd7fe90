"""Message passing over the preference graph: one stack for all networks."""
