"""What an encoder has learnt before, found again in a graph that has grown."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import attrs
import numpy as np

from copl.errors import RunError
from copl.records import Comparisons
from copl.records.memory import Memory

if TYPE_CHECKING:
    from copl.records import BoolArray, IntArray, NodeEmbeddings, PreferenceGraph


@final
@attrs.frozen(eq=False)
class Recall:
    """What is known of the nodes of a graph.

    Of a user some of whose comparisons are gone nothing is known: the user is learnt anew.

    Attributes:
        memory: what the encoder left, in rows of the graph; zeros where nothing is known.
        known_users: of which users something is known [U].
        known_responses: the same of responses [R].
        is_new: which comparisons of the graph were not learnt from before [N].
    """

    memory: Memory
    known_users: BoolArray
    known_responses: BoolArray
    is_new: BoolArray

    @classmethod
    def of(cls, former: NodeEmbeddings, graph: PreferenceGraph) -> Recall:
        """Find what was learnt before in a graph.

        Raises:
            RunError: the encoder left nothing to go on from.
        """
        if former.memory is None:
            raise RunError("the encoder of the former run left nothing to go on from; train it again")
        users = np.array([former.user_rows.get(user, -1) for user in graph.user_ids], dtype=np.int64)
        responses = np.array([former.response_rows.get(key, -1) for key in graph.response_keys], dtype=np.int64)
        now = graph.comparisons
        renumbered = Comparisons(users[now.user] + 1, responses[now.chosen] + 1, responses[now.rejected] + 1)
        then = former.comparisons
        before = Comparisons(then.user + 1, then.chosen + 1, then.rejected + 1)
        now_said, then_said = _numbered(renumbered, before, len(former.response_keys) + 1)
        gone = np.unique(then.user[~np.isin(then_said, now_said)])
        users[np.isin(users, gone)] = -1
        memory = former.memory.renumbered(users, responses)
        return cls(memory, users >= 0, responses >= 0, ~np.isin(now_said, then_said))

    @property
    def is_changed(self) -> bool:
        """Whether the graph says anything else than before."""
        return bool(self.is_new.any() or not self.known_users.all())

    def of_responses(self, kept: IntArray) -> Recall:
        """Return the same for the graph of some responses (`copl.graph.parts.restricted`)."""
        return attrs.evolve(self, memory=self.memory.renumbered(None, kept), known_responses=self.known_responses[kept])

    def part(self, name: str) -> Recall:
        """Return what one of several encoders has left (`Memory.joined`)."""
        return attrs.evolve(self, memory=self.memory.part(name))


def _numbered(now: Comparisons, then: Comparisons, num_responses: int) -> tuple[IntArray, IntArray]:
    """Return numbers that are equal where two comparisons say the same for the same time."""
    both = Comparisons.concat([now, then])
    _, pair = np.unique(both.chosen * num_responses + both.rejected, return_inverse=True)
    _, said = np.unique(both.user * (int(pair.max(initial=0)) + 1) + pair, return_inverse=True)
    again = np.concatenate([_occurrence(said[: len(now)]), _occurrence(said[len(now) :])])
    number = said * (int(again.max(initial=0)) + 1) + again
    return number[: len(now)], number[len(now) :]


def _occurrence(said: IntArray) -> IntArray:
    """Return how often each number has occurred before [N]."""
    order = np.argsort(said, kind="stable")
    _, first, counts = np.unique(said[order], return_index=True, return_counts=True)
    before = np.empty(len(said), dtype=np.int64)
    before[order] = np.arange(len(said)) - np.repeat(first, counts)
    return before
