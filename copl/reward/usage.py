"""The page beside an exported classifier: how to score with it without `copl`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_STOCK = {
    ("SEQ_CLS", "last"): "the logit is the reward",
    ("TOKEN_CLS", "mean"): "the mean of the tokens' logits is the reward",
    ("TOKEN_CLS", "last"): "the logit of the last token is the reward",
}
_TEMPLATES = {
    "chat": "as a conversation by the tokenizer's chat template, with no other special tokens than it writes, and"
    " on the 26th of July 2024 where it writes the date",
    "pair": "as a pair of texts, without `token_type_ids`",
    "response": "as the response alone",
    "plain": "as `Human: ...`, an empty line and `Assistant: ...`",
}


def usage_page(user: str, card: Mapping[str, Any]) -> str:
    """Return the page.

    Args:
        user: id of the user.
        card: what ``export.json`` says.
    """
    merged = card["base"] == "."
    kind, packages = ("model", "torch and transformers") if merged else ("PEFT adapter", "torch, transformers and peft")
    name = "".join(letter if letter.isprintable() else " " for letter in user)
    more = "" if merged or card["base"] == "base" else f" The backbone, `{card['base']}`, has to be where it was."
    rounded = "" if card["dtype"] == "float32" else f", as far as {card['dtype']} goes"
    padding = ""
    if card["task"] == "SEQ_CLS":
        padding = f" In a batch, `pad_token_id` has to be {card['pad_token_id']}: the last other token gives the logit."
    return f"""# Personal reward model of user {name}

An ordinary {kind} for `{card["classifier"]["auto_class"]}`. It scores a response to a prompt; higher means that the
user likes it more, and only differences between responses have a meaning.

```python
from score import PersonalReward

reward = PersonalReward(".")  # this directory
reward("How do I fry an egg?", "Hot pan, three minutes.")
```

`score.py` needs {packages}; its scores are those of `copl`{rounded}. A prompt is text or a list of messages with `role`
and `content`.{more}

With other tools: {_STOCK[card["task"], card["pooling"]]}. Prompt and response are read
{_TEMPLATES[card["template"]]}; {card["max_length"]} tokens at most, of which the prompt loses the first.{padding}
"""
