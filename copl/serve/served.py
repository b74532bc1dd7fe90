"""A fitted model with the states of its users; used by the engine's thread alone."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
from attrs import evolve, frozen

from copl.data.events.evidence import Claim, Word, claim
from copl.data.events.log import Version
from copl.errors import CoplError
from copl.records import NOBODY, ResponseTable, ScoreRequests, UserTable
from copl.records.judgements import KINDS
from copl.serve.tastes import TasteMap, pairs_to_ask

if TYPE_CHECKING:
    from copl.data.requests import Pair
    from copl.model import Model, ModelUser, Question
    from copl.records import AdaptedUsers, PreferenceData

_MAX_STATES = 4096


@final
@frozen(eq=False)
class History:
    """What a user said, as far as it is in force.

    Attributes:
        user: the user's id.
        version: that of the log.
        words: what follows.
        is_forgotten: whether the user asked to be forgotten, so that what training knows of them is not used.
    """

    user: str
    version: Version
    words: tuple[Word, ...]
    is_forgotten: bool = False

    @property
    def name(self) -> str:
        """The id the model knows the user by: one that it cannot know, for a user who was forgotten."""
        if not self.is_forgotten:
            return self.user
        return "forgotten " + hashlib.sha256(self.user.encode("utf-8", "surrogatepass")).hexdigest()


@final
@frozen(eq=False)
class Asked:
    """Responses to be scored for one user, by one model.

    Attributes:
        history: the user and what they said.
        prompts: the prompt of each response [n], in the form of `copl.data.chat`.
        texts: the responses [n].
        average: whether to score them for the average user as well.
    """

    history: History
    prompts: tuple[str, ...]
    texts: tuple[str, ...]
    average: bool = False


@final
@frozen(eq=False)
class Rewarded:
    """What a model says of responses.

    Attributes:
        rewards: those of the user [n].
        average: those of the average user [n], where asked for.
        known: whether the user is trained or has said something.
        run: fingerprint of the model.
    """

    rewards: tuple[float, ...]
    average: tuple[float, ...]
    known: bool
    run: str


@final
@frozen(eq=False)
class UserState:
    """What a model knows of a user.

    Attributes:
        adapted: the user as `Model.scores` takes it; None where training says all.
        followed: the user to ask questions of; None where the method takes no notice of users.
        known: whether the user is trained or has said something.
        how: how the embedding was found.
        confidence: from 0 to 1.
    """

    adapted: AdaptedUsers | None
    followed: ModelUser | None
    known: bool
    how: str
    confidence: float


@final
class Served:
    """A model that scores for users as of what they said.

    Args:
        model: the model.
        said_in_training: what training has heard of each user already, by user. It is not counted again where the run
            was trained on the log.
        data: the data set it was trained on, where that is still there.

    Attributes:
        run: fingerprint of the model.
        summary: the same, with the run's accuracy by split as far as it was evaluated.
        map: where the trained users lie, where there is such a map.
        pool: pairs to ask users about.
    """

    def __init__(
        self,
        model: Model,
        said_in_training: Mapping[str, frozenset[Claim]] | None = None,
        data: PreferenceData | None = None,
    ) -> None:
        self.model = model
        self.run = model.fingerprint
        self.summary: dict[str, Any] = {"run": self.run, "accuracy": _accuracy(model)}
        self.map = TasteMap.of(model, data)
        self.pool = pairs_to_ask(data)
        self._trained = said_in_training or {}
        self._states: OrderedDict[str, tuple[Version, bool, UserState]] = OrderedDict()
        self._seen = frozenset(model.method.seen_users())
        self.takes_notice = True
        try:
            model.online("nobody")
        except CoplError:
            self.takes_notice = False

    def state(self, history: History) -> UserState:
        """Return what is known of a user; a function of the model and of what the user said alone."""
        if self._is_current(history):
            self._states.move_to_end(history.user)
            return self._states[history.user][2]
        state = self._state(history)
        self._states[history.user] = (history.version, history.is_forgotten, state)
        self._states.move_to_end(history.user)
        if len(self._states) > _MAX_STATES:
            self._states.popitem(last=False)
        return state

    def _is_current(self, history: History) -> bool:
        kept = self._states.get(history.user)
        return kept is not None and kept[:2] == (history.version, history.is_forgotten)

    def _new_words(self, history: History) -> list[Word]:
        """Return what a user said that training has not heard."""
        already = self._trained.get(history.name, frozenset())
        return [word for word in history.words if word.claim not in already]

    def _read_together(self, asked: Sequence[Asked]) -> None:
        """Have the texts that users' states need read along with those asked for: a few by themselves take longer."""
        waiting = [one.history for one in asked if self.takes_notice and not self._is_current(one.history)]
        said = [(word.prompt, text) for one in waiting for word in self._new_words(one) for text in word.texts]
        if said:
            wanted = [pair for one in asked for pair in zip(one.prompts, one.texts, strict=True)]
            prompts, texts = zip(*dict.fromkeys(said + wanted), strict=True)
            self.model.read_ahead(ResponseTable(prompts, texts))

    def _state(self, history: History) -> UserState:
        name = history.name
        trained = name in self._seen
        if not self.takes_notice:
            return UserState(None, None, True, "unpersonalised", 0.0)
        rows = [word.row(name) for word in self._new_words(history)]
        followed = self.model.online(name)
        adapted = followed.add_rows(rows) if rows else followed.adapted
        used = adapted if rows else None
        return UserState(used, followed, trained or bool(rows), adapted.how[0], float(adapted.confidence[0]))

    def forget(self, user: str) -> None:
        """Drop the state of a user."""
        self._states.pop(user, None)

    def rewards(self, asked: Sequence[Asked]) -> list[Rewarded]:
        """Score for several users at once.

        Raises:
            CoplError: a text cannot be read.
        """
        self._read_together(asked)
        states = [self.state(one.history) for one in asked]
        table: dict[tuple[str, str], int] = {}
        users: dict[str, int] = {}
        user_row, response_row = [], []
        for one in asked:
            for name in (one.history.name, NOBODY)[: 1 + one.average]:
                row = users.setdefault(name, len(users))
                for pair in zip(one.prompts, one.texts, strict=True):
                    user_row.append(row)
                    response_row.append(table.setdefault(pair, len(table)))
        responses = ResponseTable([prompt for prompt, _ in table], [text for _, text in table])
        requests = ScoreRequests(UserTable.ungrouped(list(users)), responses, user_row, response_row)
        distinct = {state.adapted.user_ids[0]: state.adapted for state in states if state.adapted is not None}
        adapted = _together(list(distinct.values()))
        values = [float(value) for value in self.model.scores(requests, adapted)]
        answers = []
        for one, state in zip(asked, states, strict=True):
            own, values = values[: len(one.texts)], values[len(one.texts) :]
            average, values = (values[: len(one.texts)], values[len(one.texts) :]) if one.average else ([], values)
            answers.append(Rewarded(tuple(own), tuple(average), state.known, self.run))
        return answers

    def questions(self, history: History, candidates: Sequence[Pair]) -> list[Question]:
        """Return what to ask a user, the most telling first, without what training has learnt the user's answer to.

        Raises:
            CoplError: a candidate is wrong, or the method takes no notice of users.
        """
        followed = self.state(history).followed
        if followed is None:
            raise CoplError("the run's method takes no notice of users: there is nothing to ask")
        answered = self.model.answered(history.name, candidates)
        return [question for question in followed.questions(candidates) if not answered[question.index]]


def _together(users: Sequence[AdaptedUsers]) -> AdaptedUsers | None:
    if len(users) < 2:
        return users[0] if users else None
    import torch

    return evolve(
        users[0],
        user_ids=tuple(one.user_ids[0] for one in users),
        embeddings=torch.cat([one.embeddings for one in users]),
        how=tuple(one.how[0] for one in users),
        num_neighbours=np.concatenate([one.num_neighbours for one in users]),
        confidence=np.concatenate([one.confidence for one in users]),
    )


def _accuracy(model: Model) -> dict[str, float]:
    from copl.runs.results import read_metrics

    with suppress(CoplError, OSError):
        measured = read_metrics(model.run.root)
        return {one.split: round(one.value, 4) for one in measured if (one.metric, one.subset) == ("accuracy", "all")}
    return {}


def open_served(directory: Path) -> Served:
    """Open a run to be served.

    Raises:
        CoplError: the run cannot be opened.
    """
    from copl.model import Model
    from copl.runs.pipeline import load_data

    model = Model.open(directory)
    data: PreferenceData | None = None
    with suppress(CoplError, OSError):  # the run does without
        data, _ = load_data(model.run)
    served = Served(model, {} if data is None else _said_in_training(data), data)
    with suppress(CoplError):  # whoever asks is told; this loads the backbone before anybody waits for it
        served.rewards([Asked(History(NOBODY, (0, 0), ()), ("Are you ready?",), ("Yes.",))])
    return served


def _said_in_training(data: PreferenceData) -> Mapping[str, frozenset[Claim]]:
    said, ids, keys = data.split("train"), data.users.ids, data.responses.keys
    claims: dict[str, set[Claim]] = {}
    given = said.given
    for user, chosen, rejected in zip(given.user.tolist(), given.chosen.tolist(), given.rejected.tolist(), strict=True):
        claims.setdefault(ids[user], set()).add(claim("comparison", (keys[chosen], keys[rejected])))
    judged, kinds = said.judgements, tuple(KINDS)
    for kind, user, first, second, value, *_ in zip(*(column.tolist() for column in judged.columns()), strict=True):
        responses = (keys[first],) if second < 0 else (keys[first], keys[second])
        claims.setdefault(ids[user], set()).add(claim(kinds[kind], responses, value))
    return {user: frozenset(own) for user, own in claims.items()}
