r"""Why a response scores as it does for a user: parts that add up.

A user's deviation from the average is taken for a mixture of two explanations, and the little that is left,

.. math::
    e_u - \mu = (1 - \lambda)(e^* - \mu) + \lambda (\bar e - \mu) + \text{rest}

- e* follows from the user's own answers alone: the mode of the posterior with the seen users' mean and covariance as
  the prior (`copl.adapt.laplace`). There it is a sum over the answers, for the gradient is zero,

.. math:: e^* - \mu = \Sigma \sum_n w_n\, \sigma(-m_n)\, d_n

- e-bar is the mean of the other seen users, each weighed by how well they explain the user's answers (`empirical`).

Lambda leaves least. The margin of a pair is linear in all of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import numpy as np
import torch

from copl.adapt.agreement import log_likelihood
from copl.adapt.estimates import covariance_factor, population_mean
from copl.adapt.laplace import posterior_margins, posterior_modes
from copl.adapt.support import MatchedSupport, matched_rows
from copl.records import NodeEmbeddings
from copl.records.explanation import Explanation, Part, chance

if TYPE_CHECKING:
    from torch import Tensor

_SHOWN = 5
_PRIOR_SCALE = 2.0
_LEAST = 1e-12


def explain(
    user: str, heard: MatchedSupport, trained: NodeEmbeddings, embedding: Tensor, difference: Tensor
) -> Explanation:
    """Explain a margin.

    Args:
        user: the user's id.
        heard: what the user has said, in training and since; one user or none.
        trained: what the encoder has learnt; it has users.
        embedding: the user's embedding [D].
        difference: embedding and bias of the one response less those of the other [D + 1].
    """
    pair, mean = difference[:-1].double(), population_mean(trained)
    own = embedding.double() - mean
    parts = [Part("everybody", float(mean @ pair + difference[-1]))]
    factor = covariance_factor(trained) * _PRIOR_SCALE**0.5
    asked = (pair @ factor)[None]
    if not len(heard.newcomer):
        deviation = float(asked.square().sum().sqrt())
        parts += [Part("rest", float(own @ pair))] if own.abs().max() > _LEAST else []
        return _explained(user, parts, deviation, 0)
    mode = posterior_modes(heard, mean, factor)[0][0] - mean
    surprise = torch.from_numpy(heard.weight) * torch.sigmoid(-(heard.differences @ (mode + mean) + heard.bias))
    by_answer = surprise * ((heard.differences @ factor) @ asked[0])
    alike = _likeness(user, heard, trained)
    others = trained.users.detach().cpu().double() - mean
    consensus = alike @ others
    share = _share(own - mode, consensus - mode, trained)
    parts += _of_answers((1 - share) * by_answer, heard, trained)
    parts += _of_users(share * alike * (others @ pair), pair @ factor @ factor.T, trained)
    parts.append(Part("rest", float(own @ pair - (1 - share) * mode @ pair - share * consensus @ pair)))
    whitened = attrs.evolve(heard, differences=heard.differences @ factor, bias=heard.bias + heard.differences @ mean)
    none, one = torch.zeros(factor.shape[1], dtype=torch.float64), torch.ones(factor.shape[1], dtype=torch.float64)
    variance = posterior_margins(whitened, none, one, asked)[1]
    return _explained(user, parts, float(variance[0].sqrt()), len(heard.newcomer))


def _explained(user: str, parts: list[Part], deviation: float, num_answers: int) -> Explanation:
    score = sum(part.amount for part in parts)
    return Explanation(user, score, tuple(parts), deviation, chance(score, deviation), num_answers)


def _likeness(user: str, heard: MatchedSupport, trained: NodeEmbeddings) -> Tensor:
    """Return how much each other seen user is like this one [U], 1 together; zeros where there is no other."""
    users = trained.users.detach().cpu()
    evidence = log_likelihood(heard, users, weight=heard.weight, bias=heard.bias)[0]
    if user in trained.user_rows:
        evidence[trained.user_rows[user]] = -torch.inf
    return torch.nan_to_num(evidence.softmax(dim=0))


def _share(rest: Tensor, step: Tensor, trained: NodeEmbeddings) -> float:
    """Return lambda, which leaves least of the deviation in margins of compared responses."""
    rows = trained.comparisons
    some = np.arange(0, len(rows), max(1, len(rows) // 5000))
    table = trained.responses.detach().cpu().double()
    differences = table[torch.from_numpy(rows.chosen[some])] - table[torch.from_numpy(rows.rejected[some])]
    moved, wanted = differences @ step, differences @ rest
    return float(((moved @ wanted) / moved.square().sum().clamp_min(_LEAST)).clamp(0, 1))


def _of_answers(amounts: Tensor, heard: MatchedSupport, trained: NodeEmbeddings) -> list[Part]:
    keys = (*trained.response_keys, "")
    order = torch.argsort(amounts.abs(), descending=True).tolist()
    return [
        Part("own answer", float(amounts[row]), "", keys[heard.chosen[row]], keys[heard.rejected[row]]) for row in order
    ]


def _of_users(amounts: Tensor, pull: Tensor, trained: NodeEmbeddings) -> list[Part]:
    """Return the parts of the users who add most, each with the answer that speaks most, and of all others."""
    top = torch.argsort(amounts.abs(), descending=True)[:_SHOWN].tolist()
    parts = []
    for row in top:
        if abs(float(amounts[row])) < _LEAST:
            continue
        own = trained.comparisons.take(trained.comparisons.user == row)
        said = matched_rows((trained.user_ids[row],), np.zeros(len(own), dtype=np.int64), own, trained)
        speaks = int(torch.argmax((said.differences @ pull) * torch.sign(amounts[row]))) if len(said.newcomer) else 0
        keys = [trained.response_keys[ends[speaks]] for ends in (said.chosen, said.rejected)] if len(own) else ["", ""]
        parts.append(Part("like-minded user", float(amounts[row]), trained.user_ids[row], *keys))
    rest = float(amounts.sum()) - sum(part.amount for part in parts)
    return [*parts, Part("other users", rest)]
