"""Personal preference rows: candidates ranked by a user's own reward, as DPO is trained on them.

A row is a prompt, the response this user would choose and the one the user would reject, as TRL's `DPOTrainer` reads
them, with the user's id, the margin of the reward and where it came from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import attrs
import numpy as np
from attrs.validators import ge

from copl.data.canonical import alike
from copl.data.chat import messages_of
from copl.errors import DataError
from copl.options import option
from copl.system.files import write_text

if TYPE_CHECKING:
    from copl.records import FloatArray
    from copl.records.answers import AnswerRequests, CandidateRewards


@attrs.frozen
class RowOptions:
    """Which pairs of candidates become rows; policies have these options and others."""

    num_candidates: int = option(
        8,
        help="candidates to each training prompt, of which rows are made; with --rows it is --num that counts",
        validator=ge(2),
    )
    pairs: int = option(
        2,
        help="rows made of one prompt and user at most: best and worst, second best and second worst, ...",
        validator=ge(1),
    )
    near: float = option(
        0.5,
        help="pairs whose margin is below so many standard deviations of the user's rewards are near-ties, left out",
        validator=ge(0.0),
    )
    balance: bool = option(
        False,
        help="leave out the rows of lowest margin until the chosen text is as often the longer as the shorter one",
    )


@final
@attrs.frozen
class PreferenceRow:
    """One comparison that a user's reward speaks for.

    Attributes:
        user_id: id of the user.
        prompt: the prompt, in the form of `copl.data.chat`.
        chosen: the text with the higher reward.
        rejected: the other one.
        margin: by how much the reward of the chosen text is higher; for a row the user has said, 0 where nobody asked.
        provenance: where it came from, as plain JSON values.
    """

    user_id: str
    prompt: str
    chosen: str
    rejected: str
    margin: float
    provenance: Mapping[str, Any]

    @property
    def longer(self) -> int:
        """1 where the chosen text is the longer one, -1 where it is the shorter, else 0."""
        return int(np.sign(len(self.chosen) - len(self.rejected)))


@final
@attrs.frozen
class MadeRows:
    """Rows, and what became none.

    Attributes:
        rows: the rows, by user in the order of the requests, then by prompt.
        num_near: pairs whose candidates are near-ties.
        num_repeated: pairs with a text that another row of the same user has already.
        num_unbalanced: rows left out to balance lengths.
        num_unknown: users nobody knows; they have no rows of their own.
    """

    rows: tuple[PreferenceRow, ...]
    num_near: int
    num_repeated: int
    num_unbalanced: int
    num_unknown: int


def preference_rows(
    requests: AnswerRequests,
    rewards: CandidateRewards,
    known: Sequence[bool],
    options: RowOptions,
    provenance: Mapping[str, object],
) -> MadeRows:
    """Make rows of ranked candidates.

    Args:
        requests: users, prompts and candidates.
        rewards: what the candidates are worth to each.
        known: whether anything is known of each user [U]; a row of the average user is nobody's.
        options: which pairs become rows.
        provenance: what to say of all rows beside the rewards and places of their texts.
    """
    rows: list[PreferenceRow] = []
    num_near = num_repeated = num_unbalanced = 0
    for place, user in enumerate(requests.user_ids):
        if not known[place]:
            continue
        worth = [table[place] for table in rewards.personal]
        limit = options.near * _spread(worth)
        used: set[str] = set()
        own: list[PreferenceRow] = []
        for prompt, texts, values in zip(requests.prompts, requests.candidates, worth, strict=True):
            for best, worst in _pairs(texts, values, options.pairs):
                margin = float(values[best] - values[worst])
                names = {alike(texts[best]), alike(texts[worst])}
                if margin <= limit or len(names) < 2:
                    num_near += 1
                elif names & used:
                    num_repeated += 1
                else:
                    used |= names
                    about = {**provenance, "rewards": [float(values[best]), float(values[worst])]}
                    about |= {"places": [best, worst], "num_candidates": len(texts)}
                    own.append(PreferenceRow(user, prompt, texts[best], texts[worst], margin, about))
        kept = _balanced(own) if options.balance else own
        num_unbalanced += len(own) - len(kept)
        rows += kept
    return MadeRows(tuple(rows), num_near, num_repeated, num_unbalanced, len(known) - sum(known))


def _spread(worth: Sequence[FloatArray]) -> float:
    values = np.concatenate(worth) if worth else np.zeros(0)
    return float(values.std()) if len(values) else 0.0


def _pairs(texts: Sequence[str], values: FloatArray, count: int) -> list[tuple[int, int]]:
    """The best and the worst of distinct candidates, the second best and the second worst, and so on."""
    first = list({alike(text): place for place, text in reversed(list(enumerate(texts)))}.values())
    order = sorted(first, key=lambda place: (-values[place], place))
    return [(order[rank], order[-1 - rank]) for rank in range(min(count, len(order) // 2))]


def _balanced(rows: Sequence[PreferenceRow]) -> list[PreferenceRow]:
    """The rows without those of lowest margin among the more frequent of longer and shorter chosen texts."""
    signs = [row.longer for row in rows]
    surplus = sum(signs)
    most = 1 if surplus > 0 else -1
    out = sorted((row.margin, place) for place, row in enumerate(rows) if signs[place] == most)[: abs(surplus)]
    dropped = {place for _, place in out}
    return [row for place, row in enumerate(rows) if place not in dropped]


def as_trl(row: PreferenceRow, *, chat: bool) -> dict[str, object]:
    """Return a row with an explicit prompt as TRL reads it.

    Args:
        row: the row.
        chat: as messages, which TRL renders by the chat template of the policy; else as text.
    """
    if not chat:
        return {
            "prompt": plain_prompt(messages_of(row.prompt)),
            "chosen": f" {row.chosen}",
            "rejected": f" {row.rejected}",
        }
    return {
        "prompt": messages_of(row.prompt),
        "chosen": [{"role": "assistant", "content": row.chosen}],
        "rejected": [{"role": "assistant", "content": row.rejected}],
    }


def plain_prompt(messages: Sequence[Mapping[str, str]]) -> str:
    """Return a conversation as a language model without a chat template is asked: Human: ..., Assistant:

    The space before the response is the response's: tokenizers join it with the word that follows.
    """
    names = {"user": "Human", "assistant": "Assistant", "system": "System"}
    said = [f"{names.get(turn['role'], turn['role'].capitalize())}: {turn['content']}" for turn in messages]
    return "\n\n".join([*said, "Assistant:"])


def write_rows(path: Path, rows: Sequence[PreferenceRow], *, chat: bool = True) -> None:
    """Write rows as JSON lines, whole or not at all: ``prompt, chosen, rejected, user_id, margin, provenance``.

    Raises:
        DataError: the file is no ``.jsonl``, or there are no rows.
    """
    check_rows_target(path)
    if not rows:
        raise DataError(
            f"{path}: there are no rows to write: all pairs are near-ties, repeat a text, or nobody is known"
        )
    lines = [
        as_trl(row, chat=chat)
        | {"user_id": row.user_id, "margin": round(row.margin, 6), "provenance": dict(row.provenance)}
        for row in rows
    ]
    write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def check_rows_target(path: Path) -> None:
    """Refuse a file that rows cannot be written to, before anything is computed.

    Raises:
        DataError: the ending is not ``.jsonl``.
    """
    if path.suffix.lower() != ".jsonl":
        raise DataError(f"{path}: rows are written as JSON lines; name a file that ends in .jsonl")
