"""Names of language models that come with packages; free of torch and transformers."""

PACKAGED_WRITER = "smollm2-135m"
"""The language model that needs no download."""
