"""Source ``polis``: votes of a Polis conversation, from its published export, as comparisons of statements.

A participant who agreed with one statement and disagreed with another prefers the first. Two such comparisons of one
participant that share a statement share a vote, so splits are made on votes before pairs are drawn: no two splits of a
participant share a statement, and the cold statements are never trained on.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import attrs
import numpy as np

from copl.data.pairs import compact
from copl.data.polis_export import ABSENT, Conversation, read_export
from copl.data.splits import (
    SUPPORT,
    TEST,
    TRAIN,
    VALIDATION,
    SplitOptions,
    choose,
    deal,
    drop_stranded,
    generator,
    shares,
)
from copl.options import option, options_to_dict
from copl.plugins import Component
from copl.records import Comparisons, PreferenceData, ResponseTable, UserTable

if TYPE_CHECKING:
    from numpy.random import Generator

    from copl.interfaces import DatasetSource
    from copl.records import BoolArray, IntArray

ATTRIBUTION = (
    "Data was gathered using the Polis software (compdemocracy.org/polis) and is sub-licensed under CC BY 4.0 with "
    "Attribution to The Computational Democracy Project."
)

_MINORITY = 1 / 3
_FEW_VOTERS = 5

_NAMES = {TRAIN: "train", VALIDATION: "validation", TEST: "test"}


@final
@attrs.frozen(kw_only=True)
class PolisOptions(SplitOptions):
    """Options of the source for Polis exports; fractions are shares of a participant's votes or of statements."""

    path: Path = option(help="export directory with comments.csv, participants-votes.csv and summary.csv")
    cold_fraction: float = option(
        0.2,
        help="share of the statements never trained on, for the cold split",
        validator=attrs.validators.and_(attrs.validators.ge(0.0), attrs.validators.lt(1.0)),
    )
    unseen_fraction: float = option(
        0.2,
        help="share of participants kept out of training as unseen",
        validator=attrs.validators.and_(attrs.validators.ge(0.0), attrs.validators.lt(1.0)),
    )
    # Measured on bowling-green: matrix factorisation with 40 pairs a participant reaches .777 on held-out statements,
    # with 120 .804, with 300 .814; a hundred thousand comparisons are still a matter of seconds for an encoder.
    pairs_per_user: int = option(
        120, help="training comparisons drawn from a participant's votes at most", validator=attrs.validators.ge(1)
    )
    eval_pairs_per_user: int = option(
        10,
        help="comparisons drawn from a participant's votes at most for each split that measures",
        validator=attrs.validators.ge(1),
    )
    use_passes: bool = option(
        False, help="take a pass as standing between agreeing and disagreeing, instead of leaving passes out"
    )
    keep_moderated: bool = option(False, help="keep statements that the moderators took out of the conversation")
    prompt: str | None = option(None, help="the prompt of all statements, instead of topic and description")
    licence: str = option("CC BY 4.0", help="licence of the export, kept with the data set")
    attribution: str = option(ATTRIBUTION, help="whom to name as the origin of the data, kept with the data set")


@final
class PolisSource:
    """Reads an export and draws comparisons from its votes."""

    def __init__(self, options: PolisOptions) -> None:
        self._options = options

    def load(self, *, seed: int) -> PreferenceData:
        """Read the export, split the votes and draw the comparisons.

        Raises:
            DataError: a file is missing or damaged, or the signs of the votes disagree with the counts beside them.
        """
        options = self._options
        conversation = read_export(options.path, keep_moderated=options.keep_moderated)
        votes = _Votes.of(conversation, options.use_passes)
        cold = np.zeros(votes.num_statements, dtype=np.bool_)
        cold[choose(np.unique(votes.statement), options.cold_fraction, generator(seed, "cold"))] = True
        unseen = _choose_unseen(votes.take(~cold[votes.statement]), options.unseen_fraction, seed)
        splits = _draw(votes, cold, unseen, options, seed)
        controversial = _controversial(conversation.votes[~unseen], options.use_passes)
        made = drop_stranded({name: _with_controversial(part, controversial) for name, part in splits.items()}, {})
        prompt = options.prompt or _prompt(conversation.summary)
        users, responses, kept = compact(
            UserTable(conversation.participants, conversation.groups),
            ResponseTable([prompt] * votes.num_statements, conversation.statements),
            made.splits,
        )
        return PreferenceData(
            options.path.resolve().name,
            users,
            responses,
            kept,
            self._provenance(conversation, votes, cold, unseen, made.dropped, seed),
        )

    def _provenance(
        self,
        conversation: Conversation,
        votes: _Votes,
        cold: BoolArray,
        unseen: BoolArray,
        dropped: Mapping[str, int],
        seed: int,
    ) -> dict[str, Any]:
        can = np.intersect1d(votes.user[votes.level > 0], votes.user[votes.level < 0])
        notes = [
            f"{len(conversation.participants) - len(can):,} of {len(conversation.participants):,} participants never "
            "agreed with one statement and disagreed with another and give no comparison.",
            *conversation.notes,
            *(f"{count:,} comparisons were dropped: {reason}." for reason, count in dropped.items()),
        ]
        url = conversation.summary.get("url", "")
        return {
            "source": "polis",
            "options": options_to_dict(self._options),
            "seed": seed,
            "licence": self._options.licence,
            "attribution": self._options.attribution + (f" Conversation: {url}." if url else ""),
            "counts": {
                "participants": len(conversation.participants),
                "statements": len(conversation.statements),
                "moderated_out": conversation.num_moderated,
                "agrees": int((conversation.votes == 1).sum()),
                "disagrees": int((conversation.votes == -1).sum()),
                "passes": int((conversation.votes == 0).sum()),
                "cold_statements": int(cold.sum()),
                "unseen_participants": int(unseen.sum()),
            },
            "notes": notes,
            "split": "response",
        }


@final
@attrs.frozen(eq=False)
class _Votes:
    """Votes in long form: row of the participant and of the statement, and 1, 0 or -1 [N]."""

    user: IntArray
    statement: IntArray
    level: IntArray
    num_users: int
    num_statements: int

    @classmethod
    def of(cls, conversation: Conversation, use_passes: bool) -> _Votes:
        matrix = conversation.votes
        user, statement = np.nonzero((matrix != ABSENT) & ((matrix != 0) | use_passes))
        level = matrix[user, statement].astype(np.int64)
        return cls(user.astype(np.int64), statement.astype(np.int64), level, *matrix.shape)

    def take(self, rows: BoolArray) -> _Votes:
        return attrs.evolve(self, user=self.user[rows], statement=self.statement[rows], level=self.level[rows])

    @property
    def stratum(self) -> IntArray:
        """A number for each participant and level, so that every split gets votes of all levels."""
        return self.user * 3 + self.level + 1


def _choose_unseen(votes: _Votes, fraction: float, seed: int) -> BoolArray:
    """Return which participants [U] are unseen: such as can give a pair and be judged by another, without overlap."""
    agrees = np.bincount(votes.user[votes.level > 0], minlength=votes.num_users)
    disagrees = np.bincount(votes.user[votes.level < 0], minlength=votes.num_users)
    unseen = np.zeros(votes.num_users, dtype=np.bool_)
    able = np.flatnonzero((agrees >= 2) & (disagrees >= 2))
    unseen[choose(able, fraction, generator(seed, "unseen users"))] = True
    return unseen


def _draw(
    votes: _Votes, cold: BoolArray, unseen: BoolArray, options: PolisOptions, seed: int
) -> dict[str, Comparisons]:
    is_cold, is_unseen = cold[votes.statement], unseen[votes.user]
    limits = {"train": options.pairs_per_user, "support": options.support}
    parts = {"cold": votes.take(is_cold & ~is_unseen)}

    seen = votes.take(~is_cold & ~is_unseen)
    rng = generator(seed, "seen")
    counts = np.bincount(seen.stratum, minlength=3 * votes.num_users)
    part = deal(seen.stratum, shares(counts, (options.validation_fraction, options.test_fraction), rng), rng)
    parts |= {name: seen.take(part == number) for number, name in _NAMES.items()}

    asked = votes.take(~is_cold & is_unseen)
    rng = generator(seed, "unseen")
    counts = np.bincount(asked.stratum, minlength=3 * votes.num_users)
    # Each comparison of the support needs a vote of each kind at most; half of the votes are left to judge by.
    given = np.minimum(counts // 2, options.support)
    part = deal(asked.stratum, (counts - given)[:, None], rng)
    parts |= {"support": asked.take(part == SUPPORT), "heldout": asked.take(part != SUPPORT)}
    return {
        name: _pairs(part, limits.get(name, options.eval_pairs_per_user), generator(seed, name))
        for name, part in parts.items()
    }


def _pairs(votes: _Votes, limit: int, rng: Generator) -> Comparisons:
    """Draw up to `limit` distinct comparisons of each participant: a statement voted higher against one voted lower."""
    order = np.lexsort((votes.level, votes.user))
    starts = np.searchsorted(votes.user[order], np.arange(votes.num_users + 1))
    users, chosen, rejected = [], [], []
    for user in np.flatnonzero(np.diff(starts)).tolist():
        rows = order[starts[user] : starts[user + 1]]
        levels = votes.level[rows]
        below = np.searchsorted(levels, levels, side="left")  # how many votes are lower than each
        total = int(below.sum())
        if total == 0:
            continue
        # Pairs are numbered higher vote by higher vote, so that no list of all pairs is needed.
        picks = rng.choice(total, size=min(limit, total), replace=False)
        high = np.searchsorted(np.cumsum(below), picks, side="right")
        low = picks - (np.cumsum(below) - below)[high]
        users.append(np.full(len(picks), user))
        chosen.append(votes.statement[rows[high]])
        rejected.append(votes.statement[rows[low]])
    if not users:
        return Comparisons.empty()
    return Comparisons(np.concatenate(users), np.concatenate(chosen), np.concatenate(rejected))


def _controversial(votes: Any, use_passes: bool) -> Any:
    """Return for each pair of statements [S, S] whether participants disagree on it: 1, 0, or -1 where few can tell.

    Those count who voted differently on the two; a pair is controversial when at least a third of them stand against
    the others.
    """
    agree, disagree = (votes == 1).astype(np.float32), (votes == -1).astype(np.float32)
    first = agree.T @ disagree  # participants who put the row's statement above the column's
    if use_passes:
        passed = (votes == 0).astype(np.float32)
        first += agree.T @ passed + passed.T @ disagree
    together = first + first.T
    minority = np.minimum(first, first.T)
    verdict = (minority >= _MINORITY * together).astype(np.int8)
    verdict[together < _FEW_VOTERS] = -1
    return verdict


def _with_controversial(part: Comparisons, controversial: Any) -> Comparisons:
    return Comparisons(part.user, part.chosen, part.rejected, part.weight, controversial[part.chosen, part.rejected])


def _prompt(summary: Mapping[str, str], limit: int = 300) -> str:
    """Return the prompt: the topic, and as much of the description as a text encoder of short input can take."""
    topic = " ".join(summary.get("topic", "").split()).rstrip(".")
    opening = f'In a public conversation about "{topic}"' if topic else "In a public conversation"
    paragraph = summary.get("conversation-description", "").strip().partition("\n")[0]
    text = " ".join(paragraph.replace("*", "").split())
    if len(text) > limit:
        cut = max(text.rfind(end, 0, limit) for end in (". ", "? ", "! "))
        text = text[: cut + 1] if cut > 0 else text[:limit].rsplit(" ", 1)[0] + " …"
    return f"{opening}, people were told: {text} A participant stated:" if text else f"{opening}, a participant stated:"


def _build(options: PolisOptions) -> DatasetSource:
    return PolisSource(options)


COMPONENTS = [
    Component(
        "polis",
        PolisOptions,
        _build,
        "votes of a Polis conversation, agreed against disagreed statements",
        reference="Small et al., Polis: Scaling deliberation by mapping high dimensional opinion spaces, 2021",
    )
]
