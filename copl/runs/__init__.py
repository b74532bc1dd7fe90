"""Recipes, run directories and the pipeline that composes them."""
