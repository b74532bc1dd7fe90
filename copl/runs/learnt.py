"""What a run has learnt from, kept with it as hashes, so that a later data set can be held against it.

A hash tells whether something is the same, and nothing else: neither ids nor texts can be read out of the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, final

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from copl.data.dataset import dataset_fingerprint, load_dataset
from copl.data.hashing import hashes, mix
from copl.data.making.everyone import for_everyone
from copl.errors import CoplError, RunError
from copl.records import SPLITS, BoolArray, Comparisons, ComparisonSet, PreferenceData
from copl.records.judgements import Judgements
from copl.system.converters import among
from copl.system.tensors import content_checksum, integers, load_arrays, save_tensors

if TYPE_CHECKING:
    from copl.runs.directory import Run

LEARNT_FILE = "learnt.safetensors"
LEARNT = ("train", "validation")
"""Splits that a method learns from, or chooses by."""

_SALT = "learnt"
_AGAIN = "train the run again"

Hashes: TypeAlias = NDArray[np.uint64]


@final
@frozen(eq=False)
class LearntRows:
    """What a data set holds, as hashes.

    Attributes:
        digest: of what is learnt from, with all users and texts in their order.
        places: of user and responses of each comparison and judgement, by split.
        said: of all that each says, by split.
        texts: of all responses.
    """

    digest: str
    places: Mapping[str, Hashes]
    said: Mapping[str, Hashes]
    texts: Hashes

    @classmethod
    def of(cls, data: PreferenceData) -> LearntRows:
        """Return what a data set holds."""
        users, responses = hashes(data.users.ids, _SALT), hashes(data.responses.keys, _SALT)
        places, said = {}, {}
        for split in SPLITS:
            parts = [
                _of_comparisons(data.splits.get(split, Comparisons.empty()), users, responses),
                _of_judgements(data.judgements.get(split, Judgements.empty()), users, responses),
            ]
            places[split], said[split] = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        return cls(data.digest(*LEARNT), places, said, responses)

    def lacks(self, said: ComparisonSet) -> BoolArray:
        """Return which comparisons of the split ``train`` are not among these [N].

        Of those that judgements imply, it is those of users whose judgements are not all here.
        """
        users, responses = hashes(said.users.ids, _SALT), hashes(said.responses.keys, _SALT)
        count = len(said) if said.num_given is None else said.num_given
        rows, known = said.comparisons, self.said["train"]
        lacking = np.zeros(len(rows), dtype=np.bool_)
        lacking[:count] = ~np.isin(_of_comparisons(rows.take(np.arange(count)), users, responses)[1], known)
        judged = ~np.isin(_of_judgements(said.judgements, users, responses)[1], known)
        lacking[count:] = np.isin(rows.user[count:], said.judgements.user[judged])
        return lacking

    def answered(self, asked: ComparisonSet) -> BoolArray:
        """Return which pairs of responses their users have compared, either way round, or called a tie [N]."""
        users, responses = hashes(asked.users.ids, _SALT), hashes(asked.responses.keys, _SALT)
        rows = asked.comparisons
        places = _place(users[rows.user], responses[rows.chosen], responses[rows.rejected])
        return np.isin(places, np.concatenate([self.places[split] for split in LEARNT]))

    def save(self, root: Path) -> None:
        """Write what was learnt from into a run directory."""
        tensors: dict[str, Any] = {"texts": self.texts}
        for split in LEARNT:
            tensors |= {f"{split}.places": self.places[split], f"{split}.said": self.said[split]}
        signed = {name: values.view(np.int64) for name, values in tensors.items()}
        header = {"digest": self.digest, "content": content_checksum(self.digest, tensors)}
        save_tensors(root / LEARNT_FILE, signed, header=header)

    @classmethod
    def load(cls, path: Path) -> LearntRows:
        """Read what `save` wrote.

        Raises:
            RunError: it is missing or damaged.
        """
        names = ["texts", *(f"{split}.{kind}" for split in LEARNT for kind in ("places", "said"))]
        read = load_arrays(path, advice=_AGAIN, others={name: integers(name) for name in names})
        if set(read.tensors) != set(names):
            raise RunError(f"{path}: damaged; {_AGAIN}")
        values = {name: read.array(name).view(np.uint64) for name in names}
        header = read.read_header(_Header, advice=_AGAIN)
        digest = header.digest
        if header.content is not None and header.content != content_checksum(digest, values):
            raise RunError(f"{path}: damaged (its checksum differs); {_AGAIN}")
        places, said = ({split: values[f"{split}.{kind}"] for split in LEARNT} for kind in ("places", "said"))
        return cls(digest, places, said, values["texts"])


@final
@frozen
class _Header:
    """What stands before the hashes; files of earlier versions have no checksum of their content."""

    digest: str
    content: str | None = None


@final
@frozen
class Changes:
    """What has become of what was learnt from.

    Attributes:
        new: comparisons and judgements to learn from that were not there.
        changed: those about which the user says something else now.
        gone: those of which nothing is there any more.
        moved: those that are in another split now.
        texts_gone: responses that are not there any more.
        total: comparisons and judgements of the split ``train`` now.
    """

    new: int
    changed: int
    gone: int
    moved: int
    texts_gone: int
    total: int

    @classmethod
    def between(cls, then: LearntRows, now: LearntRows) -> Changes:
        """Compare what a run has learnt from with a data set."""
        new = changed = gone = moved = 0
        for split in LEARNT:
            here = among(then.places[split], now.places[split])
            others = np.concatenate([now.places[other] for other in SPLITS if other != split])
            elsewhere = ~here
            elsewhere[elsewhere] = among(then.places[split][elsewhere], others)
            same = among(then.said[split], now.said[split])
            new += int((~among(now.said[split], then.said[split])).sum())
            changed += int((here & ~same).sum())
            moved += int(elsewhere.sum())
            gone += int((~here & ~elsewhere).sum())
        texts_gone = int((~among(then.texts, now.texts)).sum())
        return cls(new - changed, changed, gone, moved, texts_gone, len(now.said["train"]))


def learnt_of(run: Run) -> LearntRows:
    """Return what a run has learnt from: as it was kept, or, of an earlier version, from its data.

    Raises:
        RunError: the file is damaged, or neither it nor the data are there.
    """
    if (run.root / LEARNT_FILE).is_file():
        return LearntRows.load(run.root / LEARNT_FILE)
    try:
        if dataset_fingerprint(run.data_directory) == run.facts.data.fingerprint:
            data = load_dataset(run.data_directory)
            return LearntRows.of(for_everyone(data) if run.facts.data.everyone else data)
    except CoplError:
        pass
    raise RunError(
        f"{run.root}: does not say what it has learnt from ({LEARNT_FILE}), and its data are not where they were; "
        f"`copl train {run.facts.data.path} --out {run.root}` adds that"
    )


@final
class Answered:
    """Tells which pairs of responses a run has learnt its users' answers to; what it has learnt is read if asked."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def __call__(self, asked: ComparisonSet) -> list[bool]:
        """Return it for each pair; none where the run does not say [N]."""
        answers: list[bool] = [False] * len(asked) if self._rows is None else self._rows.answered(asked).tolist()
        return answers

    @cached_property
    def _rows(self) -> LearntRows | None:
        try:
            return learnt_of(self._run)
        except RunError:  # a published run does not hold it, and its data are elsewhere
            return None


def _of_comparisons(rows: Comparisons, users: Hashes, responses: Hashes) -> tuple[Hashes, Hashes]:
    place = _place(users[rows.user], responses[rows.chosen], responses[rows.rejected])
    return place, _chain(place, responses[rows.chosen], _bits(rows.weight), _bits(rows.time))


def _of_judgements(rows: Judgements, users: Hashes, responses: Hashes) -> tuple[Hashes, Hashes]:
    other = np.where(rows.is_of_two, responses[rows.other], np.uint64(0)) if len(rows) else np.zeros(0, np.uint64)
    place = _place(users[rows.user], responses[rows.response], other)
    columns = (rows.kind.astype(np.uint64), _bits(rows.value), _bits(rows.weight), _bits(rows.time))
    return place, _chain(place, responses[rows.response], *columns)


def _place(user: Hashes, one: Hashes, other: Hashes) -> Hashes:
    """Return a hash of a user and of two responses in any order."""
    return _chain(user, mix(one) + mix(other))


def _chain(first: Hashes, *others: Hashes) -> Hashes:
    code = mix(first)
    for other in others:
        code = mix(code * np.uint64(3) + other)
    result: Hashes = code
    return result


def _bits(values: NDArray[np.float64]) -> Hashes:
    plain = np.where(np.isnan(values), 0.0, values) + 0.0  # one zero, and one way not to be a number
    return np.ascontiguousarray(plain, dtype=np.float64).view(np.uint64)
