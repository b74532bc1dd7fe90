"""Dropout that is quick on a processor, where torch draws a random number for every element one after the other."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

_LEVELS = 2**16
_LANES = 4  # random numbers of 16 bits in one of 64


@final
class SixteenBitDropout(nn.Dropout):
    """Inverted dropout whose mask comes from 16 random bits an element; on an accelerator it is torch's own.

    An element is dropped with probability q = floor(2^16 p) / 2^16, which is exact to 2^-16, and the others are
    multiplied by 1 / (1 - q). One byte an element is kept for the backward pass, where torch keeps a float.
    A p below 2^-16, which this many bits do not have, is torch's too: dropped with probability p, scaled for it.
    """

    def forward(self, input: Tensor) -> Tensor:  # torch names it so
        """Return the input with elements dropped, in training; the generator is torch's global one."""
        dropped = int(_LEVELS * self.p)
        if not self.training or dropped in (0, _LEVELS) or input.device.type != "cpu":
            return super().forward(input)
        words = torch.empty(-(-input.numel() // _LANES), dtype=torch.int64, device=input.device)
        lanes = words.random_(torch.iinfo(torch.int64).min, None).view(torch.int16)[: input.numel()]
        mask = lanes.view(input.shape) < dropped - _LEVELS // 2
        return input.masked_fill(mask, 0.0).mul_(_LEVELS / (_LEVELS - dropped))
