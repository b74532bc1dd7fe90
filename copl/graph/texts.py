r"""Responses by their texts: what is learnt of those that were compared, carried over to any text.

A response that was compared has an embedding e_r and a bias b_r, the surer the more often it was compared. Kernel ridge
regression (the posterior mean of a Gaussian process) carries both over to other texts by their frozen features,

.. math::
    \hat e(f) = \phi(f) \bigl(\Phi^\top N \Phi + \lambda I\bigr)^{-1} \Phi^\top N E, \qquad
    \phi(f) \cdot \phi(f') \approx \exp\bigl(-\tfrac{1}{2 h^2} \lVert x - x' \rVert^2\bigr)

with n_r, the comparisons of a response relative to the mean, on the diagonal of N, features x of mean squared norm 1
over coordinates of equal variance, and Nystrom's method beyond a thousand responses (Williams and Seeger, NIPS 2000).
Every text counts once, by how well it is known, and not once a comparison. What is then believed of a response is

.. math:: \frac{n_r\, e_r + \kappa\, \hat e_{-r}}{n_r + \kappa}

with what the other texts say of it: next to its own embedding where many judged it, and its text where nobody did.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, final

import attrs
import numpy as np
import torch
from attrs import frozen
from torch import Tensor

from copl.errors import OptionsError
from copl.records import NodeEmbeddings, PreferenceGraph
from copl.records.passes import TextMap

if TYPE_CHECKING:
    from copl.records import IntArray
    from copl.records.memory import Memory

_MAX_LANDMARKS = 1024
_MAX_CODES = 512
_MAX_TEXTS = 20_000
_AT_ONCE = 65_536
_LEAST_EIGENVALUE = 1e-8
_LEAST = 1e-12
_CODES = "codes."
WIDTH = 1.4
"""Usual width of the kernel."""
RIDGES = (1.0, 0.3, 0.1)
"""Ridges that texts are tried with."""
_STRENGTHS = (5.0, 20.0, 80.0)


@final
@frozen(eq=False)
class TextCodes:
    """Codes of texts [n, q] in whose inner product a kernel is.

    Attributes:
        map: from features to codes, as embeddings without a bias.
        codes: codes of all texts [R, q], float32.
    """

    map: TextMap
    codes: Tensor

    @classmethod
    def of(cls, graph: PreferenceGraph, compared: IntArray) -> TextCodes:
        """Find the codes of a graph's texts by what those at the rows `compared` are like.

        Raises:
            OptionsError: the graph was built without features.
        """
        if graph.response_features is None:
            raise OptionsError("the encoder reads texts; choose a method with a backbone, such as copl")
        return cls.fit(graph.response_features, torch.from_numpy(compared), WIDTH)

    @classmethod
    def fit(cls, features: Tensor, compared: Tensor, width: float | None) -> TextCodes:
        """Find the codes.

        Args:
            features: features of all texts [R, F].
            compared: rows of those that were compared [t], at least one.
            width: h, the width of the kernel; None for a linear one.
        """
        known = features[compared[:: max(1, len(compared) // _MAX_TEXTS)]].double()
        centre, deviation = known.mean(0), known.std(0, correction=0)
        scale = deviation.clamp_min(1e-3 * float(deviation.mean()) + _LEAST)
        if width is None:  # one scale for all coordinates, so that long axes stay long
            scale = (known - centre).square().sum(1).mean().sqrt().clamp_min(_LEAST).expand_as(centre).clone()
            landmarks, basis = known[:0], torch.eye(len(centre), dtype=torch.float64)
        else:
            scale = scale * ((known - centre) / scale).square().sum(1).mean().sqrt().clamp_min(_LEAST) * width
            landmarks = ((known - centre) / scale)[_evenly(len(known), _MAX_LANDMARKS)]
            basis = _whitening(landmarks)
        text_map = TextMap(centre, scale, landmarks, basis, basis.new_zeros(basis.shape[1]))
        return cls(text_map, text_map(features))

    @classmethod
    def remembered(cls, memory: Memory, graph: PreferenceGraph) -> TextCodes:
        """Return the codes of a graph's texts by the map that was found before."""
        assert graph.response_features is not None
        names = (field.name for field in attrs.fields(TextMap))
        text_map = TextMap(*(memory.shared[_CODES + name] for name in names))
        return cls(text_map, text_map(graph.response_features))

    def to_remember(self) -> dict[str, Tensor]:
        """Return the map as tensors for a `Memory`."""
        return {_CODES + name: tensor for name, tensor in attrs.asdict(self.map, recurse=False).items()}

    def onto(self, weight: Tensor, offset: Tensor) -> TextMap:
        """Return the map from features to codes @ weight [q, D + 1] + offset [D + 1]."""
        return attrs.evolve(self.map, weight=(self.map.weight @ weight).float(), offset=offset.float())


def _whitening(landmarks: Tensor) -> Tensor:
    """Return the map [m, q] from nearness to landmarks [m, F] to codes."""
    none = landmarks.new_zeros(landmarks.shape[1])
    gram = TextMap(none, none + 1, landmarks, landmarks[:, :0], none[:0]).codes(landmarks)
    values, vectors = torch.linalg.eigh(gram)
    kept = torch.argsort(values, descending=True)[:_MAX_CODES]
    kept = kept[values[kept] > _LEAST_EIGENVALUE * values.max()]
    basis: Tensor = vectors[:, kept] / values[kept].sqrt()
    return basis


def with_texts(
    embeddings: NodeEmbeddings,
    texts: TextCodes,
    judge: Callable[[NodeEmbeddings], float] | None,
    *,
    ridges: Sequence[float] = RIDGES,
) -> NodeEmbeddings:
    """Return the embeddings with what the texts add: to responses that were compared and to any other.

    Args:
        embeddings: of the responses that `texts` has codes of.
        texts: codes of the texts.
        judge: returns a loss, which chooses the ridge and the strength of texts; None takes the middle ones.
        ridges: what to choose the ridge from.
    """
    rows = embeddings.comparisons
    counts = torch.from_numpy(np.bincount(np.concatenate([rows.chosen, rows.rejected]), minlength=len(texts.codes)))
    table = torch.cat([embeddings.responses, embeddings.response_bias[:, None]], dim=1).double()
    mean = (counts / counts.sum()).double() @ table
    regression = _Regression(texts.codes, table - mean, counts.double())
    best: tuple[float, NodeEmbeddings] | None = None
    for ridge in ridges if judge is not None else ridges[len(ridges) // 2 :][:1]:
        weight, others = regression.solve(ridge)
        for strength in _STRENGTHS if judge is not None else _STRENGTHS[1:2]:
            share = (counts / (counts + strength))[:, None]
            believed = (mean + share * (table - mean) + (1 - share) * others).float()
            candidate = attrs.evolve(
                embeddings,
                responses=believed[:, :-1].contiguous(),
                response_bias=believed[:, -1].contiguous(),
                text_map=texts.onto(weight, mean),
            )
            loss = judge(candidate) if judge is not None else 0.0
            if best is None or loss < best[0]:
                best = loss, candidate
    assert best is not None  # there are ridges and strengths to try
    return best[1]


def side_by_side_maps(members: Sequence[NodeEmbeddings], weights: Sequence[float]) -> TextMap | None:
    """Return the map of embeddings that lie side by side, biases scaled by the weights; None where one has no map.

    All maps start from the same codes.
    """
    maps = [member.text_map for member in members]
    known = [text_map for text_map in maps if text_map is not None]
    if len(known) < len(members) or not known:
        return None

    def joined(tables: Sequence[Tensor]) -> Tensor:
        biases = [table[..., -1:] * weight for table, weight in zip(tables, weights, strict=True)]
        return torch.cat([*(table[..., :-1] for table in tables), torch.stack(biases).sum(dim=0)], dim=-1)

    return attrs.evolve(
        known[0], weight=joined([one.weight for one in known]), offset=joined([one.offset for one in known])
    )


@final
class _Regression:
    """Kernel ridge regression of a table [R, D + 1] on texts; one decomposition serves all ridges."""

    def __init__(self, codes: Tensor, table: Tensor, counts: Tensor) -> None:
        self._codes, self._table = codes, table
        self._known = torch.nonzero(counts).flatten()
        sample = self._known[:: max(1, len(self._known) // _MAX_TEXTS)]
        known = codes[sample].double()
        self._weight = counts[sample] / counts[sample].mean()
        gram = known.T @ (known * self._weight[:, None])
        self._values, self._axes = torch.linalg.eigh(gram)
        self._pull = self._axes.T @ (known.T @ (table[sample] * self._weight[:, None]))
        self._sample = sample

    def solve(self, ridge: float) -> tuple[Tensor, Tensor]:
        """Return the weights [q, D + 1] and, for each response, what the others say of it [R, D + 1]."""
        shrunk = 1 / (self._values.clamp_min(0) + ridge)
        weight = self._axes @ (shrunk[:, None] * self._pull)
        said = exact_product(self._codes, weight)
        projected = self._codes[self._sample].double() @ self._axes
        leverage = (self._weight * (projected.square() @ shrunk)).clamp_max(1 - 1e-9)[:, None]
        own = self._table[self._sample]
        said[self._sample] = (said[self._sample] - leverage * own) / (1 - leverage)
        return weight, said


def exact_product(texts: Tensor, weight: Tensor) -> Tensor:
    """Return texts [R, q] @ weight [q, D], both as float64 [R, D], without a copy of all texts in that precision."""
    return torch.cat([part.double() @ weight for part in torch.split(texts, _AT_ONCE)])


def _evenly(count: int, at_most: int) -> Tensor:
    """Return up to `at_most` places among `count`, evenly spread."""
    return torch.arange(min(count, at_most)) * count // min(count, at_most)
