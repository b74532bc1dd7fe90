"""Expert gates: from the user embedding to the weight of each routed expert."""
