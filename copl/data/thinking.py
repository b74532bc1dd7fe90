"""Answers of language models that think aloud before they answer: the thinking is put aside.

Such a model writes ``<think> … </think>`` and then its answer; the templates of many put the opening mark into the
prompt, so that what they write has the closing one alone. Servers that know the model hand the thinking over apart (as
vLLM does in ``reasoning_content``), chat templates leave it out of the turns of before, and programs fold it away: what
a person judges is the answer.
"""

from __future__ import annotations

import re

OPENING = "<think>"
"""What begins the thinking, of the model or at the end of a prompt that a template has rendered."""

_CLOSING = "</think>"
_THOUGHT = re.compile(rf"\s*{OPENING}.*?(?:(?:{_CLOSING}\s*)+|\Z)", re.DOTALL)
_CLOSED = re.compile(rf"^[ \t]*{_CLOSING}[ \t]*$", re.MULTILINE)
"""A closing mark on a line of its own, as models write it; in the middle of one, a text may be about it."""


def answer_in(written: str) -> str:
    """Return what a model answers in what it has written; nothing where it did not come to its answer.

    A text that begins with the opening mark is an answer from the closing one on; one without an opening mark, from a
    closing one on that has a line of its own. All others stay as they are. In a time linear in the text.

    >>> answer_in("<think>Tea? Hm.</think>Coffee."), answer_in("Tea? Hm.\\n</think>\\n\\nCoffee.")
    ('Coffee.', 'Coffee.')
    >>> answer_in("<think>Tea? Hm"), answer_in("End it by </think>, and answer.")
    ('', 'End it by </think>, and answer.')
    """
    start, opening = 0, -1
    while True:
        thought = _THOUGHT.match(written, start)
        if thought is None and opening < start:
            place = written.find(OPENING, start)
            opening = place if place >= 0 else len(written)
        thought = thought or _CLOSED.search(written, start, opening)
        if thought is None:
            return written[start:].strip() if start else written
        start = thought.end()
