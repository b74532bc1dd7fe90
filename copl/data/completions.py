"""What trainers of policies hand over: completions with their prompts, and whose reward each wants.

A policy in training writes everything there is, and no training may end of it: an empty completion is one, and what no
file could hold is taken out. What it thought before its answer is put aside (`copl.data.thinking`), as where candidates
are written: nobody is shown it. Here and over HTTP the same is read, so that it gets the same reward.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import final

from copl.data.canonical import ValueFaultError, canonical_id, canonical_text
from copl.data.chat import encode_prompt, messages_of
from copl.data.reading.faults import Faults
from copl.data.reading.texts import kind_without_text, text_of_part
from copl.data.thinking import OPENING, answer_in
from copl.errors import DataError, UnknownUserWarning, quoted
from copl.records import NOBODY

_ENDS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "<end_of_turn>", "<eos>", "</s>")
"""How texts end that were decoded with their special tokens; no part of what a user reads."""

_CUT = 32
"""Characters that are left of a prompt at least that was cut; trainers cut to hundreds of tokens.

A shorter end of a prompt, such as its question mark, may be what another query happens to begin with.
"""


def read_completions(prompts: Sequence[object], completions: Sequence[object], faults: Faults) -> list[tuple[str, str]]:
    """Return the prompt, in the form of `copl.data.chat`, and the text of each completion [N].

    Args:
        prompts: text, or chat messages, of each completion [N].
        completions: text, or chat messages of which the last is the response; those before it, such as calls of tools,
            count as part of the prompt [N].
        faults: what is wrong with one is added here; it is then read as nothing.

    Raises:
        DataError: there are not equally many.
    """
    if len(prompts) != len(completions):
        raise DataError(f"{faults.where}: {len(prompts)} prompts but {len(completions)} completions")
    pairs = []
    for place, (prompt, completion) in enumerate(zip(prompts, completions, strict=True), start=1):
        try:
            pairs.append(_read(prompt, completion))
        except (ValueFaultError, ValueError) as fault:
            faults.add(f"completion {place}: {fault}")
            pairs.append(("", ""))
    return pairs


def read_users(given: object, count: int, column: str, faults: Faults) -> list[str]:
    """Return the id of the user of each completion [N], `NOBODY` where none is named.

    Args:
        given: an id for each, or one for all; None names nobody.
        count: the number of completions.
        column: what the ids stand under, for messages.
        faults: what is wrong with one is added here.
    """
    values = [given] * count if isinstance(given, str) or not isinstance(given, Iterable) else list(given)
    if len(values) != count:
        faults.add(f"{column}: {len(values)} values for {count} completions")
    return [_id(place, value, column, faults) for place, value in enumerate(values, start=1)]


@final
class UnknownUsers:
    """Warns of users nobody knows, once, whichever thread comes first: a column may be the wrong one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_told = False

    def tell(self, users: Sequence[str]) -> None:
        """Warn of some users, where nobody was warned of any yet."""
        with self._lock:
            is_new, self._is_told = bool(users) and not self._is_told, self._is_told or bool(users)
        if is_new:
            names = ", ".join(map(quoted, users[:3]))
            message = f"user {names} is neither trained nor adapted: rewards are those of the average user"
            warnings.warn(message, UnknownUserWarning, stacklevel=3)


def response_in(query: str, prompt: str) -> str:
    """Return the response in a query of OpenRLHF, which is prompt and response in one, decoded with special tokens.

    A prompt that was too long stands there without its beginning, but with 32 characters at least. Spaces around a
    prompt are no part of it, and the token that ended the response is none of that.

    >>> response_in("Tea?Coffee then.</s>", "Tea?")
    'Coffee then.'
    >>> response_in("what would you offer her to drink?Coffee", "Ann is here; what would you offer her to drink?")
    'Coffee'

    Raises:
        ValueFaultError: the query does not begin with its prompt.
    """
    query, prompt = query.lstrip(), prompt.lstrip()
    if not query.startswith(prompt):
        prompt = prompt.rstrip()
    shared = len(prompt) if query.startswith(prompt) else _overlap(prompt, query)
    if shared < min(len(prompt), _CUT):
        raise ValueFaultError("the query does not begin with its prompt")
    text = query[shared:].strip()
    while ended := next((end for end in _ENDS if text.endswith(end)), None):
        text = text.removesuffix(ended).rstrip()
    return text


def _overlap(before: str, after: str) -> int:
    """Return how many characters `after` begins with that `before` ends with, at most (Knuth, Morris and Pratt 1977).

    In a time linear in both: they are as long as whoever asks a service likes.
    """
    wanted = after[: len(before)]
    borders: list[int] = []  # of each beginning of `wanted`, how long the longest shorter one is that it also ends with
    matched = 0
    for place, letter in enumerate(wanted):
        while matched and letter != wanted[matched]:
            matched = borders[matched - 1]
        matched += place > 0 and letter == wanted[matched]
        borders.append(matched)
    matched = 0
    for letter in before if wanted else "":
        while matched and (matched == len(wanted) or letter != wanted[matched]):
            matched = borders[matched - 1]
        matched += letter == wanted[matched]
    return matched


def _id(place: int, value: object, column: str, faults: Faults) -> str:
    if value is None:
        return NOBODY
    try:
        return canonical_id(value)
    except ValueFaultError as fault:
        faults.add(f"{column} of completion {place}: {fault}")
        return NOBODY


def _read(prompt: object, completion: object) -> tuple[str, str]:
    asked = _writable(prompt) if isinstance(prompt, str) else _messages(prompt)
    if isinstance(completion, str):
        text = _writable(completion)
        if isinstance(asked, str) and asked.rstrip().endswith(OPENING):  # a template has begun the thinking
            asked, text = asked.rstrip().removesuffix(OPENING), OPENING + text
        text = answer_in(text)
    else:
        *before, last = _messages(completion)
        text = last["content"]
        if before:
            asked = [*(messages_of(asked) if isinstance(asked, str) else asked), *before]
    filled = asked if isinstance(asked, str) else [message for message in asked if canonical_text(message["content"])]
    read = encode_prompt(filled) if filled else "", canonical_text(text)
    if not any(part.strip() for part in read):
        raise ValueFaultError("neither its prompt nor the completion has text")
    return read


def _writable(text: str) -> str:
    """A text without what a policy may write and nobody can keep: NUL, and halves of surrogate pairs."""
    return text.replace("\x00", "").encode("utf-8", "replace").decode("utf-8")


def _messages(value: object) -> list[dict[str, str]]:
    """Chat messages with role and content alone; of content in parts, the text."""
    if not isinstance(value, Sequence) or not value or not all(isinstance(message, Mapping) for message in value):
        raise ValueFaultError(f"expected text or chat messages, got {quoted(value)}")
    read = [(str(message.get("role", "user")), _content(message.get("content"))) for message in value]
    return [{"role": role, "content": answer_in(text) if role == "assistant" else text} for role, text in read]


def _content(content: object) -> str:
    if content is None:  # a call of a tool says nothing else
        return ""
    if isinstance(content, str):
        return _writable(content)
    if isinstance(content, Sequence):
        if kinds := [kind for part in content if (kind := kind_without_text(part))]:
            raise ValueFaultError(f"a part of type {quoted(kinds[0])}, but rewards are of text; leave such parts out")
        return _writable("\n".join(text for part in content if (text := text_of_part(part))))
    raise ValueFaultError(f"expected the content of a message, got {quoted(content)}")
