"""A service beside any language model that learns while people use it; needs the extra ``copl[serve]``.

What is where: `settings` (options), `app` (all of it put together), `engine` (the one thread that touches the model),
`served` (a model with the states of its users), `routes` (a module for each dialect), `identity` and `tokens` (who
asks, for whom), `limits` (what no request may exceed), `writers` (who writes candidates), `loading` (a new run without
a pause). The log of events is `copl.data.events`.
"""
