"""Text embeddings of responses for encoders that take them as node features."""

from __future__ import annotations

from copl.errors import OptionsError
from copl.interfaces import GraphEncoder
from copl.runs.recipe import Stages


def wants_response_features(stages: Stages) -> bool:
    """Return whether the encoder takes text embeddings of the responses (`GraphEncoder.reads_texts`).

    Raises:
        OptionsError: it does, and the method has no backbone to make them with.
    """
    encoder: GraphEncoder = stages.build("encoder")
    if encoder.reads_texts and "backbone" not in stages.parts:
        raise OptionsError(
            f"encoder.{stages.parts['encoder'].name}: as it is set, it takes text embeddings of the responses "
            "(response_features), but this method has no backbone that could read them; choose a method with one, such "
            "as copl"
        )
    return encoder.reads_texts
