"""What the methods do with frozen features: standardise them, and read prompts alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from attrs import frozen

from copl.data.chat import decode_prompt
from copl.records import ResponseTable

if TYPE_CHECKING:
    from torch import Tensor

PROMPT_STAGE = "prompt-features"


@final
@frozen(eq=False)
class Scaling:
    """x -> (x - centre) / scale: mean 0 and variance 1 of every coordinate over the training responses.

    Attributes:
        centre: what is subtracted [H].
        scale: what is divided by [H], positive.
    """

    centre: Tensor
    scale: Tensor

    @classmethod
    def of(cls, values: Tensor) -> Scaling:
        """Return the scaling that standardises `values` [R, H]."""
        scale = values.std(0, correction=0)
        return cls(values.mean(0), scale.clamp_min(1e-3 * float(scale.mean()) + 1e-12))

    def apply(self, values: Tensor) -> Tensor:
        """Return the scaled values [R, H]."""
        return (values - self.centre) / self.scale


def prompt_table(responses: ResponseTable) -> ResponseTable:
    """Return the prompts of `responses` as texts of their own, row for row, to be read without any response."""
    return ResponseTable([""] * len(responses), map(_plain, responses.prompts))


def _plain(prompt: str) -> str:
    content = decode_prompt(prompt)
    return content if isinstance(content, str) else "\n\n".join(message["content"] for message in content)
