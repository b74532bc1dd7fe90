"""Texts through the backbone: features, hidden states kept, and passes that read each token once."""
