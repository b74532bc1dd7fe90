"""How well seen users explain what newcomers say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import logsigmoid

from copl.adapt.support import MatchedSupport

if TYPE_CHECKING:
    from torch import Tensor

    from copl.records import FloatArray

_CELLS = 1 << 24  # margins held at once: 64 MB in float32


def log_likelihood(part: MatchedSupport, users: Tensor, *, weight: FloatArray, bias: Tensor | float = 0.0) -> Tensor:
    r"""Return the weighted log-likelihood of each newcomer's comparisons under each seen user [n, v], in float64.

    .. math:: a_{uv} = \sum_{(c, r) \in C_u} w_{cr} \log\sigma\bigl(e_v \cdot (e_c - e_r) + b_{cr}\bigr)

    Args:
        part: comparisons of n newcomers, K in all.
        users: embeddings of v seen users [v, D]; the sums are taken in their precision, float32 at least.
        weight: weight of each comparison [K].
        bias: added to each margin [K], or 0.
    """
    kind = torch.promote_types(users.dtype, torch.float32)
    gather = torch.zeros(len(part), len(part.newcomer), dtype=kind)
    gather[torch.from_numpy(part.newcomer), torch.arange(len(part.newcomer))] = torch.from_numpy(weight).to(kind)
    offset = torch.as_tensor(bias, dtype=kind).reshape(-1, 1)
    differences = part.differences.to(kind)
    step = max(1, _CELLS // max(1, len(part.newcomer)))
    slabs = [
        gather @ logsigmoid(differences @ users[start : start + step].to(kind).T + offset)
        for start in range(0, len(users), step)
    ]
    return torch.cat(slabs, dim=1).double()
