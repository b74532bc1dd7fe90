"""Policies: rewards for those who train language models, personal preference rows, and policies trained on them."""
