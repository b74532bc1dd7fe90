r"""What an encoder leaves for users and for responses that were not there in training.

A response is embedded by its text with a `TextMap`. An encoder that can embed a later user puts one of the passes
below into `NodeEmbeddings.newcomer_pass`; the strategy `encode` carries it out, and what it gives is meant to be what
training made of the seen users. Comparisons have the weights w that they came with, and the embeddings and biases e_r,
b_r of responses are the trained ones, or by text, unless a record brings its own.

Shapes: R responses, D embedding dimension, G groups, K dimensions of a prior.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias, final

import attrs

if TYPE_CHECKING:
    from torch import Tensor

_TEXTS_AT_ONCE = 8192


@final
@attrs.frozen(eq=False)
class GroupPass:
    r"""Each user is of one group, and which one is told by how well each group explains the comparisons.

    .. math::
        e_u = \mathrm{softmax}_g\Bigl(\log \pi_g
              + \frac{p}{1 + (n_u - 1) \rho} \sum_{(c, r)} w_{cr} \log\sigma(s\, m_{gcr})\Bigr) \cdot P, \quad
        m_{gcr} = P_g \cdot (e_c - e_r) + b_c - b_r

    with the weight n = p sum w of the user's comparisons, at least 1.

    Attributes:
        points: P, the embedding of a user who belongs to one of the groups for certain [G, D].
        log_share: log pi, log of the share of each group [G].
        sharpness: s, factor on the margins.
        power: p, exponent of a user's evidence.
        correlation: rho, correlation of a user's comparisons: n of them tell as much as n / (1 + (n - 1) rho) that do
            not depend on each other (Kish, Survey Sampling, 1965, on clusters).
    """

    points: Tensor
    log_share: Tensor
    sharpness: float = 1.0
    power: float = 1.0
    correlation: float = 0.0

    @property
    def dim(self) -> int:
        return int(self.points.shape[1])


@final
@attrs.frozen(eq=False)
class GaussianPass:
    r"""The most likely embedding under a normal prior, by a few steps of Newton's method.

    .. math::
        e_u = \arg\max_e p \sum_{(c, r)} w_{cr} \log\sigma\bigl(s\,(e \cdot (e_c - e_r) + b_c - b_r)\bigr)
              + \log \mathcal{N}(e; \mu, L L^\top)

    Attributes:
        mean: mu, mean of the prior [D].
        factor: L, of whose columns the covariance of the prior is made [D, K].
        sharpness: s, factor on the margins.
        power: p, exponent of a user's evidence.
    """

    mean: Tensor
    factor: Tensor
    sharpness: float = 1.0
    power: float = 1.0

    @property
    def dim(self) -> int:
        return len(self.mean)


def _by_group(mean: Tensor) -> Tensor:
    return mean if mean.dim() > 1 else mean[None]


def _even_shares(taste: TastePass) -> Tensor:
    return taste.mean.new_zeros(len(taste.mean)).log_softmax(0)


@final
@attrs.frozen(eq=False)
class TastePass:
    r"""The mean taste where the prior is a few groups of users, normal distributions that differ in their means.

    .. math::
        p(e) = \sum_g \pi_g \prod_d \mathcal{N}(e_d; \mu_{gd}, \sigma_d^2), \qquad
        e_u = \sum_g p(g \mid C_u) \, \arg\max_e \Bigl[ p \sum_{(c, r)} w_{cr}
              \log\sigma\bigl(e \cdot (e_c - e_r) + b_c - b_r\bigr)
              + \sum_d \log \mathcal{N}(e_d; \mu_{gd}, \sigma_d^2) \Bigr]

    Not what the seen users have become but what a taste may be is the prior: directions they have in common, along
    which they may gather in groups, and any direction of the texts.

    Attributes:
        mean: mu [G, D]; [D] stands for one group.
        scale: sigma [D]; 0 for a coordinate that all users share.
        power: p, exponent of a user's evidence: 1 over the mean weight of a comparison, whose unit says nothing.
        log_share: log pi [G].
    """

    mean: Tensor = attrs.field(converter=_by_group)
    scale: Tensor
    power: float = 1.0
    log_share: Tensor = attrs.field(default=attrs.Factory(_even_shares, takes_self=True))

    @property
    def dim(self) -> int:
        return len(self.scale)


@final
@attrs.frozen(eq=False)
class LayerPass:
    r"""What one layer of message passing makes of a user; matrices that are None are zeros.

    .. math::
        e' = A_0 e + A_1 z^+ + A_2 (z^+ \odot e) + A_3 z^- + A_4 (z^- \odot e) + a, \quad
        z^\pm = \sum_{r \in N^\pm} \frac{w_{ur}}{\sqrt{d_u d_r}}\, e_r

    Attributes:
        responses: e_r, the responses before this layer [R, D].
        own: A0 [D, D].
        chosen: A1, on the normalised sum over chosen edges.
        chosen_product: A2, on its elementwise product with the user.
        rejected: A3, on the normalised sum over rejected edges.
        rejected_product: A4.
        bias: a [D].
    """

    responses: Tensor
    own: Tensor | None = None
    chosen: Tensor | None = None
    chosen_product: Tensor | None = None
    rejected: Tensor | None = None
    rejected_product: Tensor | None = None
    bias: Tensor | None = None


@final
@attrs.frozen(eq=False)
class SignedPass:
    r"""Signed message passing over the newcomer's edges: a start, then layer by layer LeakyReLU(e').

    The start is the mode of a posterior as in `GaussianPass`, with the responses r before the first layer and the
    margins s e . (r_c - r_r) + b_c - b_r; a factor without columns starts everybody at the mean.

    Attributes:
        start: mean of the embeddings before the first layer [D].
        start_factor: factor of their covariance [D, K].
        degrees: degree of each response in the chosen and in the rejected edges of training [2, R], to which a newcomer
            adds nothing; where it is 0, it counts as 1.
        layers: the layers.
        start_sharpness: s.
        power: exponent of a user's evidence, for the start.
        slope: slope of the LeakyReLU below 0; 1 makes the layers linear.
        scale: factor on the result.
        length: length that the result is scaled to before, None to leave it.
    """

    start: Tensor
    start_factor: Tensor
    degrees: Tensor
    layers: tuple[LayerPass, ...]
    start_sharpness: float = 1.0
    power: float = 1.0
    slope: float = 0.2
    scale: float = 1.0
    length: float | None = None

    @property
    def dim(self) -> int:
        return len(self.start)


@final
@attrs.frozen(eq=False)
class MemberPass:
    """One of several passes side by side; its responses are its columns of the trained ones.

    Attributes:
        own: the pass.
        weight: factor on its embedding.
        response_bias: the biases in its margins [R].
    """

    own: NewcomerPass
    weight: float
    response_bias: Tensor


@final
@attrs.frozen(eq=False)
class SideBySidePass:
    """Several passes over the same comparisons, their embeddings side by side in this order."""

    members: tuple[MemberPass, ...]

    @property
    def dim(self) -> int:
        return sum(member.own.dim for member in self.members)


@final
@attrs.frozen(eq=False)
class TextMap:
    r"""How a response is embedded by its text alone.

    .. math::
        [e_r, b_r] = \phi(x) W + w, \quad x = (f_r - c) / s, \qquad
        \phi(x) = x \;\text{ or }\; \phi_j(x) = e^{-\lVert x - l_j \rVert^2 / 2}

    with f the frozen features of the text; with landmarks l the map is that of a Gaussian process (Nystrom's method,
    Williams and Seeger, NIPS 2000), without it is linear.

    Attributes:
        centre: c [F].
        scale: s, positive [F].
        landmarks: l [m, F]; m = 0 for a linear map.
        weight: W [m or F, D + 1].
        offset: w [D + 1].
    """

    centre: Tensor
    scale: Tensor
    landmarks: Tensor
    weight: Tensor
    offset: Tensor

    @property
    def num_features(self) -> int:
        return len(self.centre)

    def __call__(self, features: Tensor) -> Tensor:
        """Return embeddings and biases [n, D + 1] of texts with features [n, F]; float32."""
        embedded = self.offset.float().repeat(len(features), 1)
        for start in range(0, len(features), _TEXTS_AT_ONCE):
            part = slice(start, start + _TEXTS_AT_ONCE)
            embedded[part] += (self.codes(features[part]) @ self._exact_weight).float()
        return embedded

    def codes(self, features: Tensor) -> Tensor:
        """Return phi [n, m or F] of texts with features [n, F], float64."""
        scaled, (landmarks, lengths) = (features.double() - self.centre) / self.scale, self._exact_landmarks
        if not len(landmarks):
            return scaled
        squares = scaled.square().sum(1)[:, None] + lengths
        return (-0.5 * (squares - 2 * scaled @ landmarks.T).clamp_min(0)).exp()

    @cached_property
    def _exact_landmarks(self) -> tuple[Tensor, Tensor]:
        """Landmarks [m, F] and their squared lengths [m] in float64, worked out once for all calls."""
        landmarks = self.landmarks.double()
        return landmarks, landmarks.square().sum(1)

    @cached_property
    def _exact_weight(self) -> Tensor:
        return self.weight.double()


NewcomerPass: TypeAlias = GroupPass | GaussianPass | TastePass | SignedPass | SideBySidePass


def tensors_of(record: object, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a pass by their place in it, such as ``layers.0.own``."""
    for field in attrs.fields(type(record)):  # type: ignore[arg-type]  # all records here are attrs classes
        value = getattr(record, field.name)
        name = prefix + field.name
        if isinstance(value, tuple):
            for number, part in enumerate(value):
                yield from tensors_of(part, f"{name}.{number}.")
        elif attrs.has(type(value)):
            yield from tensors_of(value, f"{name}.")
        elif value is not None and not isinstance(value, float):
            yield name, value
