"""Ids and texts that may be taken for others: in another spelling, alike to the eye, or alike to a tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from copl.data.canonical import alike, canonical_id, canonical_text
from copl.data.chat import encode_prompt
from copl.data.checking.findings import Finding
from copl.errors import quoted
from copl.records import Comparisons, PreferenceData

if TYPE_CHECKING:
    from copl.records import BoolArray

_EXAMPLES = 3


def spelling_findings(data: PreferenceData) -> Iterator[Finding]:
    """Find ids, prompts and responses that rows to be scored could not name, and user ids that look alike."""
    prompts = dict.fromkeys(data.responses.prompts)
    spellings: tuple[tuple[str, Iterable[str], Callable[[str], str]], ...] = (
        ("user ids", data.users.ids, canonical_id),
        ("prompts", prompts, encode_prompt),
        ("responses", data.responses.texts, canonical_text),
    )
    for what, texts, canonical in spellings:
        odd = [text for text in texts if canonical(text) != text]
        if odd:
            advice = "in rows to be scored the same is read otherwise, as another one; make the data set again"
            where = f"such as {quoted(odd[0])}"
            yield Finding("warning", f"{what} in another spelling than rows are read in", where, len(odd), advice)
    for what, texts in (("user ids", data.users.ids), ("prompts", prompts)):
        groups: dict[str, list[str]] = {}
        for text in texts:
            groups.setdefault(alike(text), []).append(text)
        twins = [group for group in groups.values() if len(group) > 1]
        if twins:
            advice = "if they mean the same, write it in one way throughout"
            where = f"such as {' and '.join(map(quoted, twins[0][:_EXAMPLES]))}"
            what = f"{what} that differ by case, width or spaces alone"
            yield Finding("warning" if texts is data.users.ids else "info", what, where, sum(map(len, twins)), advice)


def token_findings(
    data: PreferenceData, split: str, token_ids: Sequence[Sequence[int]], tokenizer: str
) -> Iterator[Finding]:
    """Find comparisons of two responses that are the same tokens to a backbone: it can learn nothing of them.

    Args:
        data: the data set.
        split: the split looked at.
        token_ids: the tokens of each response, as the backbone reads it with its prompt [R].
        tokenizer: name of the backbone or tokenizer, for the message.
    """
    part = data.splits.get(split, Comparisons.empty())
    pairs = zip(part.chosen.tolist(), part.rejected.tolist(), strict=True)
    same: BoolArray = np.fromiter((list(token_ids[a]) == list(token_ids[b]) for a, b in pairs), np.bool_, len(part))
    if same.any():
        row = int(np.flatnonzero(same)[0])
        texts = data.responses.texts
        examples = " and ".join(quoted(texts[end]) for end in (int(part.chosen[row]), int(part.rejected[row])))
        advice = f"to {tokenizer} they are one text; take a backbone that knows their characters, or a longer limit"
        yield Finding("warning", "pairs that the tokenizer cannot tell apart", f"{split}, such as {examples}",
                      int(same.sum()), advice)  # fmt: skip
