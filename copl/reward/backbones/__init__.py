"""Transformers under the reward model; `catalogue` lists those to choose from."""
