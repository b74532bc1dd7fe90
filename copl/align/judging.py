"""Measures on simulated users whether an aligner helps: what it shows, by what that is truly worth to each user."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, final

import numpy as np
from attrs import evolve, frozen

from copl.align.choosing import favourite
from copl.align.context import FittedRun, RunContext
from copl.align.seeds import seed_of
from copl.align.truth import require_simulated
from copl.data.sources.facets.reading import Facets, find_subject, read_facets
from copl.errors import DataError
from copl.evaluate.policy import ANSWERS, BETTER_OFF, ShownAnswers, measure_answers
from copl.records import AdaptedUsers, ComparisonSet, Measurement, PreferenceData
from copl.records.answers import AnswerRequests
from copl.system.converters import ranks

if TYPE_CHECKING:
    from copl.interfaces import Aligner, Generator, Progress
    from copl.records import FloatArray, IntArray

UNPERSONALISED = "unpersonalised"
"""What is called the best of n by the average user."""

NEWCOMERS = (0, 1, 2, 4, 8)
"""After so many answers newcomers are measured."""

REFERENCES = ("none", "oracle")
"""Aligners that every other one is measured against; to them it is all the same how much a newcomer has said."""

_EXAMPLES = 3


@final
@frozen
class PolicySize:
    """How much is measured.

    Attributes:
        num_candidates: candidates to each prompt.
        num_prompts: at most so many prompts; None for all that were never trained on.
        num_users: at most so many seen and so many unseen users; None for all.
    """

    num_candidates: int = 8
    num_prompts: int | None = None
    num_users: int | None = None


@final
@frozen
class Shown:
    """What one user was shown.

    Attributes:
        user_id: id of the user.
        group: group of the user.
        text: the answer.
        gain: its true utility from a random candidate, 0, to the best one, 1.
    """

    user_id: str
    group: str
    text: str
    gain: float


@final
@frozen
class Example:
    """One prompt answered for two users of different taste.

    Attributes:
        prompt: the prompt.
        shown: what each of the two was shown.
        unpersonalised: what anybody would be shown.
    """

    prompt: str
    shown: tuple[Shown, ...]
    unpersonalised: str


@final
@frozen
class PolicyResult:
    """What was found.

    Attributes:
        measurements: by what chooses: the aligners, and `UNPERSONALISED`.
        examples: prompts with answers to look at, by the first aligner that was asked for.
        num_written: candidates that were written.
        num_unread: those of them whose style cannot be read; nobody was shown them.
    """

    measurements: Mapping[str, tuple[Measurement, ...]]
    examples: tuple[Example, ...]
    num_written: int
    num_unread: int


@final
@frozen(eq=False)
class Written:
    """Candidates to new prompts, before anybody has read them.

    Attributes:
        generator: who wrote them, and may write more for an aligner.
        prompts: the prompts [P].
        texts: the candidates to each [P][n].
    """

    generator: Generator
    prompts: Sequence[str]
    texts: Sequence[Sequence[str]]


@final
@frozen(eq=False)
class _Case:
    """Users who are measured together.

    Attributes:
        split: name of the split they belong to.
        subset: which part of it they are.
        user_ids: the users.
        adapted: what the model knows of newcomers.
        support: what they have said.
    """

    split: str
    subset: str
    user_ids: tuple[str, ...]
    adapted: AdaptedUsers | None = None
    support: ComparisonSet | None = None


@final
class PolicyJudge:
    """Shows simulated users what aligners choose for them, and measures what they got.

    Args:
        run: a run whose data are of the source `facets`.
        aligners: by name, the one that examples are taken of first.
        written: the candidates to `prompts_to_ask`; what cannot be read of them is left out and counted.
        directory: gives the directory that an aligner may keep things in, by its name.
        size: how much is measured.
        seed: the same seed measures the same.
        progress: where to show progress.

    Raises:
        DataError: the truth about the run's users is not known, or hardly any candidate can be read.
    """

    def __init__(
        self,
        run: FittedRun,
        aligners: Mapping[str, Aligner],
        written: Written,
        directory: Callable[[str], Path],
        *,
        size: PolicySize,
        seed: int,
        progress: Progress,
    ) -> None:
        self._run, self._aligners, self._directory = run, aligners, directory
        self._size, self._seed, self._progress = size, seed, progress
        self._truth = run.truth
        self._facets: dict[tuple[str, str], Facets | None] = {}
        self._generator = written.generator
        answered = list(zip(written.prompts, written.texts, strict=True))
        read = [(prompt, tuple(text for text in texts if self._read(prompt, text))) for prompt, texts in answered]
        self._num_written, self._num_read = (sum(len(texts) for _, texts in rows) for rows in (answered, read))
        asked = [(prompt, texts) for prompt, texts in read if len(texts) > 1]
        if not asked:
            raise DataError(
                f"of {self._num_written} candidates, the style of {self._num_read} can be read, never of two to one"
                " prompt: nothing can be measured; take --generator facets, or one that writes as the corpus does"
            )
        self._prompts, self._candidates = zip(*asked, strict=True)

    def result(self) -> PolicyResult:
        """Return all measurements and a few examples."""
        measured: dict[str, list[Measurement]] = {UNPERSONALISED: []}
        examples: tuple[Example, ...] = ()
        cases = self._cases()
        with self._progress.task("show answers", total=len(cases) * len(self._aligners)) as task:
            for case in cases:
                usual = self._worth(case, [[text] * len(case.user_ids) for text in self._usual])
                if not case.subset.startswith(ANSWERS):
                    measured[UNPERSONALISED] += [m for m in self._measured(case, usual) if m.metric != BETTER_OFF]
                for name, aligner in self._aligners.items():
                    task.advance()
                    if case.subset.startswith(ANSWERS) and name in REFERENCES:
                        continue
                    texts = self._texts(name, aligner, case)
                    shown = evolve(self._worth(case, texts), unpersonalised=usual.shown)
                    measured.setdefault(name, []).extend(self._measured(case, shown))
                    examples = examples or self._examples(case, texts, shown)
        unread = self._num_written - self._num_read
        return PolicyResult({name: tuple(ms) for name, ms in measured.items()}, examples, self._num_written, unread)

    @cached_property
    def _usual(self) -> list[str]:
        """What anybody is shown: to each prompt the candidate that the average user likes best."""
        nobody = AnswerRequests((), self._prompts, self._candidates)
        rewards = self._context("", self._cases()[0]).rewards(nobody).unpersonalised
        return [texts[favourite(average)] for texts, average in zip(self._candidates, rewards, strict=True)]

    def _cases(self) -> list[_Case]:
        data = self._run.data()
        seen = self._run.method.seen_users() or {data.users.ids[row] for row in data.split("train").comparisons.user}
        support = data.split("support")
        unseen = [data.users.ids[row] for row in np.unique(support.comparisons.user).tolist()]
        size, seed = self._size.num_users, self._seed
        cases = [_Case("cold", "all", _some([user for user in data.users.ids if user in seen], size, seed))]
        newcomers = _some(unseen, size, seed)
        if newcomers:
            cases.append(self._newcomers("all", newcomers, support))
            given = np.bincount(support.comparisons.user, minlength=len(data.users))
            for count in NEWCOMERS:
                enough = tuple(user for user in newcomers if given[data.users.rows[user]] >= count)
                if enough:
                    cases.append(self._newcomers(f"{ANSWERS}{count}", enough, _first(support, count)))
        return [case for case in cases if case.user_ids]

    def _newcomers(self, subset: str, user_ids: tuple[str, ...], support: ComparisonSet) -> _Case:
        adapted = self._run.method.adapt(support) if len(support) and self._run.method.seen_users() else None
        return _Case("heldout", subset, user_ids, adapted, support)

    def _context(self, name: str, case: _Case) -> RunContext:
        directory = self._directory(name) if name else Path()
        simulated = frozenset(case.user_ids if name in REFERENCES else ())  # also by a method that knows nobody
        return RunContext(
            self._run,
            self._generator,
            directory,
            self._progress,
            self._seed,
            case.adapted,
            case.support,
            simulated=simulated,
        )

    def _texts(self, name: str, aligner: Aligner, case: _Case) -> list[list[str]]:
        """Return what each user is shown to each prompt [P][U]."""
        requests = AnswerRequests(case.user_ids, self._prompts, self._candidates)
        shown = [answer.shown for answer in aligner.answers(requests, self._context(name, case))]
        num_users = len(case.user_ids)
        return [shown[start : start + num_users] for start in range(0, len(shown), num_users)]

    def _worth(self, case: _Case, texts: Sequence[Sequence[str]]) -> ShownAnswers:
        """Return what the texts shown to each prompt and user [P][U] are worth; `unpersonalised` is left the same."""
        data = self._run.data()
        longest = max(map(len, self._candidates))
        lengths = np.full((len(self._prompts), longest), np.nan)
        candidates = np.full((len(case.user_ids), len(self._prompts), longest), np.nan)
        worth = self._truth.utilities(AnswerRequests(case.user_ids, self._prompts, self._candidates))
        for row, (own, written) in enumerate(zip(worth, self._candidates, strict=True)):
            candidates[:, row, : len(written)] = own
            lengths[row, : len(written)] = [len(text) for text in written]
        shown = np.array(
            [
                [self._utility(user, prompt, text) for user, text in zip(case.user_ids, row, strict=True)]
                for prompt, row in zip(self._prompts, texts, strict=True)
            ]
        ).T
        return ShownAnswers(
            shown=shown,
            unpersonalised=shown,
            candidates=candidates,
            length=np.array([[len(text) for text in row] for row in texts], dtype=np.float64).T,
            lengths=lengths,
            groups=tuple(data.users.groups[data.users.rows[user]] for user in case.user_ids),
        )

    def _utility(self, user_id: str, prompt: str, text: str) -> float:
        """Return what a text is worth to a user, NaN where its style cannot be read."""
        facets = self._read(prompt, text)
        return float("nan") if facets is None else float(self._truth.weights[user_id] @ np.array(facets))

    def _read(self, prompt: str, text: str) -> Facets | None:
        if (prompt, text) not in self._facets:
            self._facets[prompt, text] = read_facets(prompt, text)
        return self._facets[prompt, text]

    def _measured(self, case: _Case, shown: ShownAnswers) -> list[Measurement]:
        return measure_answers(shown, case.split, case.subset, seed=self._seed)

    def _examples(self, case: _Case, texts: Sequence[Sequence[str]], shown: ShownAnswers) -> tuple[Example, ...]:
        """Return the first prompts that two users of different taste are shown different answers to."""
        pair = _opposed(np.array([self._truth.weights[user] for user in case.user_ids]))
        mean, best = np.nanmean(shown.candidates, axis=2), np.nanmax(shown.candidates, axis=2)
        gains = (shown.shown - mean) / np.where(best > mean, best - mean, 1.0)
        examples = [
            Example(
                prompt,
                tuple(
                    Shown(case.user_ids[user], shown.groups[user] or "", row[user], round(float(gains[user, place]), 3))
                    for user in pair
                ),
                usual,
            )
            for place, (prompt, row, usual) in enumerate(zip(self._prompts, texts, self._usual, strict=True))
            if len({row[user] for user in pair}) == 2 and np.isfinite(gains[pair, place]).all()
        ]
        return tuple(examples[:_EXAMPLES])


def prompts_to_ask(data: PreferenceData, size: PolicySize, seed: int) -> tuple[str, ...]:
    """Return the prompts that are measured: so many of `new_prompts`.

    Raises:
        DataError: the data are not simulated, or the run was trained on all prompts.
    """
    require_simulated(data)
    return _some(new_prompts(data), size.num_prompts, seed)


def new_prompts(data: PreferenceData) -> list[str]:
    """Return the questions of the corpus that nothing was learnt on, in whatever words, in order of appearance.

    Raises:
        DataError: there is none.
    """
    learnt: set[str] = set()
    for split in ("train", "validation", "support"):
        rows = data.split(split).comparisons
        learnt |= {data.responses.prompts[row] for row in np.unique(np.concatenate([rows.chosen, rows.rejected]))}
    asked = {prompt: find_subject(prompt) for prompt in dict.fromkeys(data.responses.prompts)}
    known = {subject[1].ask for prompt, subject in asked.items() if subject is not None and prompt in learnt}
    new = [subject[1].ask for subject in asked.values() if subject is not None and subject[1].ask not in known]
    if not new:
        raise DataError(
            f"data set {data.name!r}: the run was trained on all prompts, so nothing new can be asked; make it with "
            "--set cold_share=0.18"
        )
    return list(dict.fromkeys(new))


def _some(names: Sequence[str], count: int | None, seed: int) -> tuple[str, ...]:
    """Return so many of the names, drawn by themselves, in their order."""
    if count is None or count >= len(names):
        return tuple(names)
    drawn = set(sorted(names, key=lambda name: seed_of(seed, name, 0))[:count])
    return tuple(name for name in names if name in drawn)


def _first(support: ComparisonSet, count: int) -> ComparisonSet:
    """Return the first so many comparisons of each user."""
    user = support.comparisons.user
    return support.take(ranks(user, np.arange(len(user))) < count)


def _opposed(weights: FloatArray) -> IntArray:
    """Return the row of the first user, and of the one who values most what the first does not; one user alone."""
    centred = weights - weights.mean(axis=0)
    return np.array([0, int(np.argmin(centred @ centred[0]))][: len(weights)], dtype=np.int64)
