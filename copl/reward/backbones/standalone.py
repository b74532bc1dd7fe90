"""Scores responses for one user with a reward model exported by `copl`; needs torch, transformers and peft, no `copl`.

    from score import PersonalReward

    reward = PersonalReward(".")  # the directory with export.json
    reward("How do I fry an egg?", "Hot pan, three minutes.")

`copl export` puts this file beside each exported model, and `copl` itself joins, tokenises and cuts texts by the same
functions. A prompt is text or a list of chat messages ``{"role": ..., "content": ...}``. It is joined with the
response as the backbone was taught: by the tokenizer's chat template, as a sentence pair, as ``Human: ...
Assistant: ...``, or the response is read alone. Every text is four runs of tokens,

    opening | prompt | response | closing

so that one that is too long loses the beginning of its prompt, and of its response only what alone exceeds the limit.
The tokens are those of the whole text, not of its runs: a tokenizer may put a space before what it reads first, and
join letters across the border of two runs.
"""

from __future__ import annotations

import json
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import chain, takewhile
from pathlib import Path
from typing import Any, NamedTuple

from copl.data.canonical import canonical_text  # whose source stands here in the exported file

_DATE = "26 Jul 2024"
# Some templates write today's date; a score must not depend on the day. The prefix ends its line, so that what the
# template begins with keeps its place at the beginning of a line.
_DAY = {"d": "26", "-d": "26", "B": "July", "b": "Jul", "Y": "2024", "m": "07", "y": "24", "A": "Friday", "a": "Fri"}
_DAY |= {"j": "208", "H": "00", "I": "12", "M": "00", "S": "00", "p": "AM", "F": "2024-07-26", "T": "00:00:00"}
_FIXED_DAY = (
    "{%- macro strftime_now(format) -%}{{ format"
    + "".join(f" | replace('%{letter}', '{value}')" for letter, value in _DAY.items())
    + " }}{%- endmacro %}\n"
)
_CHANCE = re.compile(r"\|\s*random\b|\blipsum\b")


class TextError(ValueError):
    """A text cannot be turned into tokens; the message says why, and what to do."""


class Tokens(NamedTuple):
    """A text as tokens.

    Attributes:
        ids: the token ids.
        prompt_length: how many of them stand before the response.
        is_cut: whether the text was too long.
        response_is_cut: whether its response alone was too long.
    """

    ids: list[int]
    prompt_length: int
    is_cut: bool
    response_is_cut: bool


class _Frame(NamedTuple):
    """What stands around the responses to one prompt.

    Attributes:
        body: the text to tokenise for a response.
        before: what each such text begins with, or, where `apart`, the prompt, which is tokenised by itself.
        after: what each such text ends with; never cut.
        added: tokens that the tokenizer puts before, between and after; never cut.
        apart: whether prompt and response are two texts to the tokenizer.
    """

    body: Callable[[str], str]
    before: str
    after: str = ""
    added: tuple[list[int], list[int], list[int]] = ([], [], [])
    apart: bool = False


def encode(tokenizer: Any, template: str, texts: Sequence[tuple[Any, str]], limit: int) -> list[Tokens]:
    """Join prompts and responses and turn them into tokens.

    Args:
        tokenizer: a tokenizer of transformers.
        template: ``chat``, ``pair``, ``plain`` or ``response``.
        texts: prompt, as text or as chat messages, and response of each text.
        limit: the most tokens a text may have.

    Raises:
        TextError: the chat template refuses a prompt, or the limit leaves no room for a response.
    """
    keys = [prompt if isinstance(prompt, str) else _as_text(prompt) for prompt, _ in texts]
    added = cache(lambda second: added_tokens(tokenizer, second=second))
    frames = {key: _frame(tokenizer, template, key, added) for key in dict.fromkeys(keys)}
    ids = _tokenise(tokenizer, [text for frame in frames.values() for text in (frame.before, frame.after)])
    framing = {key: (frame, ids[2 * n], ids[2 * n + 1]) for n, (key, frame) in enumerate(frames.items())}
    bodies = _tokenise(tokenizer, [frames[key].body(text) for key, (_, text) in zip(keys, texts, strict=True)])
    bos = tokenizer.bos_token_id if template == "chat" else None
    return [_cut(*framing[key], body, bos, limit) for key, body in zip(keys, bodies, strict=True)]


def _cut(frame: _Frame, before: list[int], after: list[int], body: list[int], bos: int | None, limit: int) -> Tokens:
    opening, divider, closing = frame.added
    if frame.apart:
        prompt, response = before, body
    else:
        first = _common(before, body)
        last = _common(reversed(after), reversed(body[first:]))
        prompt, response, closing = body[:first], body[first : len(body) - last], [*body[len(body) - last :], *closing]
        if bos is not None and prompt[:1] == [bos]:  # written by the template itself
            opening, prompt = [bos], prompt[1:]
    room = limit - len(opening) - len(divider) - len(closing)
    if room < 1:
        raise TextError(f"max_length {limit} leaves no room for a response beside the template's own tokens")
    kept = response[:room]
    front = [*opening, *prompt[max(0, len(prompt) - room + len(kept)) :], *divider]
    long = len(prompt) + len(response) > room
    return Tokens([*front, *kept, *closing], len(front), long, len(response) > room)


def _common(first: Any, second: Any) -> int:
    """Return the number of tokens two lists begin with in common."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))


def _tokenise(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    distinct = list(dict.fromkeys(texts))
    if not distinct:
        return []
    ids = tokenizer(distinct, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]
    by_text = dict(zip(distinct, ids, strict=True))
    return [by_text[text] for text in texts]


def _frame(tokenizer: Any, template: str, prompt: str, added: Callable[[bool], Any]) -> _Frame:
    content = "" if template == "response" else messages_of(prompt)
    if template == "chat":
        return _chat_frame(tokenizer, content)
    if template == "pair" and not isinstance(content, str) and len(content) == 1:
        content = content[0]["content"]
    elif template != "pair" or not isinstance(content, str):
        content = _spoken(content)
    if content == "":
        return _Frame(str, "", added=added(False))
    if template == "pair":
        return _Frame(str, content, added=added(True), apart=True)
    before = f"{content}\n\nAssistant:"
    return _Frame(lambda response: f"{before} {response}", before, added=added(False))


def _spoken(content: str | list[dict[str, str]]) -> str:
    """A conversation as plain text: Human: ... Assistant: ..."""
    if isinstance(content, str):
        return f"Human: {content}" if content else ""
    names = {"user": "Human", "assistant": "Assistant"}
    return "\n\n".join(f"{names.get(m['role'], m['role'].capitalize())}: {m['content']}" for m in content)


def _chat_frame(tokenizer: object, content: str | list[dict[str, str]]) -> _Frame:
    messages = [{"role": "user", "content": content}] if isinstance(content, str) else content

    def body(response: str) -> str:
        return render(tokenizer, [*messages, {"role": "assistant", "content": response}])

    # What does not change with the response is the template's own.
    one, other = body("\tone response"), body("another\t")
    if one == other:
        raise TextError("the chat template drops the response; use the backbone's template=plain")
    first = _common(one, other)
    last = _common(reversed(one[first:]), reversed(other[first:]))
    return _Frame(body, one[:first], one[len(one) - last :])


def render(tokenizer: Any, messages: list[dict[str, str]], *, asks: bool = False) -> str:
    """Return a conversation as the tokenizer's chat template writes it, on a fixed day.

    Args:
        tokenizer: a tokenizer of transformers with a chat template.
        messages: the conversation.
        asks: let it end where the response begins; else it is finished.

    Raises:
        TextError: the template refuses it, or leaves something to chance.
    """
    template = chat_template(tokenizer) or ""
    if _CHANCE.search(template):
        raise TextError("the chat template leaves something to chance; use the backbone's template=plain")
    if "strftime_now" in template:
        template = _FIXED_DAY + template
    try:
        text = tokenizer.apply_chat_template(
            messages, chat_template=template, tokenize=False, add_generation_prompt=asks, date_string=_DATE
        )
    except Exception as error:  # whatever a template comes upon
        before = messages if asks else messages[:-1]
        asked = str(before if len(before) != 1 else before[0]["content"])[:80]
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise TextError(
            f"the chat template refuses the prompt {asked!r}: {reason}; use the backbone's template=plain"
        ) from error
    return str(text)


def chat_template(tokenizer: Any) -> str | None:
    """Return the chat template of a tokenizer: its only one, or the one named default; None where there is none.

    Raises:
        TextError: there are several and none is the default.
    """
    templates = tokenizer.chat_template
    if isinstance(templates, Mapping):
        if len(templates) > 1 and "default" not in templates:
            names = ", ".join(sorted(templates))
            raise TextError(f"of the chat templates {names} none is the default; use the backbone's template=plain")
        templates = templates.get("default", next(iter(templates.values()), None))
    if templates is not None and not isinstance(templates, str):
        raise TextError(f"the chat template is {type(templates).__name__}, not text; use the backbone's template=plain")
    return templates or None


def messages_of(prompt: str) -> str | list[dict[str, str]]:
    """Return the messages of a prompt that is chat messages in canonical JSON, or the prompt itself."""
    if not prompt.startswith('[{"role":"'):
        return prompt
    try:
        messages = json.loads(prompt)
        filled = all(canonical_text(message[key]) for message in messages for key in ("role", "content"))
        return messages if filled and _as_text(messages) == prompt else prompt
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return prompt


def _as_text(messages: Sequence[Mapping[str, str]]) -> str:
    plain = [{"role": message["role"], "content": message["content"]} for message in messages]
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":"))


def added_tokens(tokenizer: Any, *, second: bool) -> tuple[list[int], list[int], list[int]]:
    """Return the tokens that the tokenizer itself puts before, between and after one text, or two."""
    words = chain.from_iterable(offered() for offered in (lambda: ("a", "1", "."), tokenizer.get_vocab))
    samples = ((word, list(tokenizer(word, add_special_tokens=False)["input_ids"])) for word in words)
    sample, inside = next((word, ids) for word, ids in samples if ids)
    ids = list(tokenizer(sample, sample if second else None)["input_ids"])
    size = len(inside)
    places = [n for n in range(len(ids) - size + 1) if ids[n : n + size] == inside]
    if len(places) < 1 + second:
        raise TextError("the tokenizer reads a text otherwise where it stands beside another; use template=plain")
    start, last = places[0], places[1] if second else places[0]
    return ids[:start], ids[start + size : last] if second else [], ids[last + size :]


class PersonalReward:
    """One user's reward; only differences between responses have a meaning.

    Args:
        directory: what `copl export` wrote; that of this file unless given.
        base: path or id of the backbone, where it lies elsewhere than when this was exported.
        device: where to run.
    """

    def __init__(self, directory: str | Path | None = None, *, base: str | None = None, device: str = "cpu") -> None:
        from transformers import AutoTokenizer

        here = Path(__file__).resolve().parent if directory is None else Path(directory)
        self.card = json.loads((here / "export.json").read_text(encoding="utf-8"))
        self.tokenizer = AutoTokenizer.from_pretrained(here, trust_remote_code=False)
        self.model = _open(here, self.card, base).to(device).eval()

    def __call__(self, prompt: str | list[dict[str, str]], response: str) -> float:
        """Return the reward of a response to a prompt, which is text or chat messages."""
        import torch

        asked = messages_of(prompt) if isinstance(prompt, str) else prompt
        if isinstance(asked, str):
            asked = canonical_text(asked)
        else:
            asked = [{"role": message["role"], "content": canonical_text(message["content"])} for message in asked]
        text = (asked, canonical_text(response))
        [tokens] = encode(self.tokenizer, self.card["template"], [text], self.card["max_length"])
        ids = torch.tensor([tokens.ids], device=self.model.device)
        with torch.no_grad():
            logits = self.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0].float()
        if self.card["task"] == "TOKEN_CLS":  # a logit for each token
            logits = logits.mean(dim=0) if self.card["pooling"] == "mean" else logits[-1]
        return float(logits[0])


def _open(here: Path, card: Mapping[str, Any], base: str | None) -> Any:
    import torch
    import transformers

    merged = card["base"] == "."
    source = str(here) if merged else base or (str(here / "base") if card["base"] == "base" else card["base"])
    if Path(source).is_absolute() and not Path(source).is_dir():
        raise FileNotFoundError(f"the backbone is not in {source}; say where it is: PersonalReward(..., base=...)")
    options = {"dtype": getattr(torch, card["dtype"]), "num_labels": 1, "trust_remote_code": False}
    if not merged and base is None and card.get("revision"):
        options["revision"] = card["revision"]
    with _quiet():
        model = getattr(transformers, card["classifier"]["auto_class"]).from_pretrained(source, **options)
        if not merged:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, here)
    # Texts come one by one, so the last token is the last: a text may end with what elsewhere is padding.
    model.config.get_text_config().pad_token_id = None
    head = getattr(model, card["classifier"]["head"]).float()
    head.register_forward_pre_hook(lambda module, args: (args[0].float(), *args[1:]))
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Pass over that the backbone has no head: it comes with the adapter."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers for a property by its former name
            yield
    finally:
        logging.set_verbosity(level)


if __name__ == "__main__":
    print(PersonalReward()(*sys.argv[1:3]))
