"""The dataset source `polis`: options, splits and provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import attrs
import numpy as np

from copl.data.making.opinions import (
    OpinionOptions,
    Opinions,
    choose_cold,
    choose_unseen,
    controversial_pairs,
    draw_splits,
    with_controversial,
)
from copl.data.making.origin import ATTRIBUTION_HELP, Origin
from copl.data.making.splits import drop_stranded
from copl.data.pairs import compact
from copl.data.sources.polis.export import ABSENT, Conversation, read_export
from copl.options import option
from copl.plugins import Component
from copl.records import PreferenceData, ResponseTable, UserTable

if TYPE_CHECKING:
    from copl.data.making.notes import Note
    from copl.records import BoolArray

ATTRIBUTION = (
    "Data was gathered using the Polis software (compdemocracy.org/polis) and is sub-licensed under CC BY 4.0 with "
    "Attribution to The Computational Democracy Project."
)


@final
@attrs.frozen(kw_only=True)
class PolisOptions(OpinionOptions):
    """Options of the source for Polis exports; fractions are shares of a participant's votes or of statements."""

    path: Path = option(
        help="export directory with comments.csv, participants-votes.csv (or participant-votes.csv) and summary.csv"
    )
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
    use_passes: bool = option(
        False, help="take a pass as standing between agreeing and disagreeing, instead of leaving passes out"
    )
    keep_moderated: bool = option(False, help="keep statements that the moderators took out of the conversation")
    prompt: str | None = option(None, help="the prompt of all statements, instead of topic and description")
    licence: str = option("CC BY 4.0", help="licence of the export, kept with the data set")
    attribution: str = option(ATTRIBUTION, help=ATTRIBUTION_HELP)


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
        votes = _opinions(conversation, options.use_passes)
        cold = choose_cold(votes, options.cold_fraction, seed)
        unseen = choose_unseen(_able(votes.take(~cold[votes.response])), options.unseen_fraction, seed)
        splits = draw_splits(votes, cold, unseen, options, seed)
        controversial = _controversial(conversation.votes[~unseen], options.use_passes)
        sound = drop_stranded({name: with_controversial(part, controversial) for name, part in splits.items()}, {})
        prompt = _prompt(conversation.summary) if options.prompt is None else options.prompt
        users, responses, kept = compact(
            UserTable(conversation.participants, conversation.groups),
            ResponseTable([prompt] * votes.num_responses, conversation.statements),
            sound.splits,
        )
        return PreferenceData(
            options.path.resolve().name,
            users,
            responses,
            kept,
            self._provenance(conversation, votes, cold, unseen, sound.notes, seed),
        )

    def _provenance(
        self,
        conversation: Conversation,
        votes: Opinions,
        cold: BoolArray,
        unseen: BoolArray,
        dropped: Sequence[Note],
        seed: int,
    ) -> dict[str, object]:
        can = np.intersect1d(votes.user[votes.level > 0], votes.user[votes.level < 0])
        notes: list[Note] = [
            f"{len(conversation.participants) - len(can):,} of {len(conversation.participants):,} participants never "
            "agreed with one statement and disagreed with another and give no comparison.",
            *conversation.notes,
            *dropped,
        ]
        url = conversation.summary.get("url", "")
        counts = {
            "participants": len(conversation.participants),
            "statements": len(conversation.statements),
            "moderated_out": conversation.num_moderated,
            "agrees": int((conversation.votes == 1).sum()),
            "disagrees": int((conversation.votes == -1).sum()),
            "passes": int((conversation.votes == 0).sum()),
            "cold_statements": int(cold.sum()),
            "unseen_participants": int(unseen.sum()),
        }
        attribution = self._options.attribution + (f" Conversation: {url}." if url else "")
        origin = Origin("polis", self._options.licence, attribution, "")
        return origin.provenance(self._options, seed=seed, split="response", counts=counts, notes=notes)


def _opinions(conversation: Conversation, use_passes: bool) -> Opinions:
    matrix = conversation.votes
    user, statement = (rows.astype(np.int64) for rows in np.nonzero((matrix != ABSENT) & ((matrix != 0) | use_passes)))
    level = matrix[user, statement].astype(np.int64)
    return Opinions(
        user=user,
        response=statement,
        level=level.astype(np.float64),
        block=user,
        stratum=3 * user + level + 1,  # so that every split gets votes of all levels
        unit=np.arange(len(user), dtype=np.int64),
        num_users=matrix.shape[0],
        num_responses=matrix.shape[1],
        num_strata=3 * matrix.shape[0],
        margin=1.0,
    )


def _able(votes: Opinions) -> BoolArray:
    """Return which participants [U] can give a pair and be judged by another, without overlap."""
    agrees = np.bincount(votes.user[votes.level > 0], minlength=votes.num_users)
    disagrees = np.bincount(votes.user[votes.level < 0], minlength=votes.num_users)
    able: BoolArray = (agrees >= 2) & (disagrees >= 2)
    return able


def _controversial(votes: Any, use_passes: bool) -> Any:
    """Return for each pair of statements [S, S] whether participants disagree on it: 1, 0, or -1 where few can tell."""
    agree, disagree, passed = ((votes == level).astype(np.float32) for level in (1, -1, 0))
    return controversial_pairs(agree, disagree, passed if use_passes else None)


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


COMPONENTS = [
    Component(
        "polis",
        PolisOptions,
        PolisSource,
        "votes of a Polis conversation, agreed against disagreed statements",
        reference="Small et al., Polis: Scaling deliberation by mapping high dimensional opinion spaces, 2021",
    )
]
