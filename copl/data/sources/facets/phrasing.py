"""Ways to say things: several phrasings for each value of each style facet.

`{}` stands for a bare infinitive in the pieces of advice, and for a clause elsewhere.
"""

from __future__ import annotations

FIRM_ADVICE = (
    "definitely {}",
    "you absolutely must {}",
    "you have to {}",
    "without question, {}",
    "you must {}",
    "always {}",
    "certainly {}",
)
"""Direct: a piece of advice as an order."""

HEDGED_ADVICE = (
    "you could perhaps {}",
    "you might {}",
    "it may possibly help to {}",
    "perhaps {}",
    "if you like, you could {}",
    "it might be worth trying to {}",
    "maybe consider whether to {}",
)
"""Cautious: a piece of advice as a suggestion."""

FIRM_CLOSE = (
    "This always works, without exception.",
    "There is no better way, no doubt about it.",
    "Do exactly that and nothing else.",
    "Ignore any other advice you hear.",
    "That is the answer, full stop.",
    "No excuses: start now.",
    "Anything else is plainly wrong.",
)
"""Direct: what a response ends with."""

HEDGED_CLOSE = (
    "That said, {}.",
    "Keep in mind that {}.",
    "I am not entirely sure, as {}.",
    "It might not suit you, since {}.",
    "Be careful, though: {}.",
    "Results may vary: {}.",
)
"""Cautious: a caveat around a clause of the topic."""

HEDGED_REASON = ("as far as I know, {}.", "in many cases {}.", "it seems that {}.", "usually {}.")
PLAIN_REASON = ("put simply, {}.", "the idea is simple: {}.", "in everyday words, {}.", "you see, {}.")
TECHNICAL_REASON = ("technically, {}.", "the mechanism: {}.", "in technical terms, {}.", "formally, {}.")

EXAMPLES = (
    "For example, from real life: {}.",
    "Here is a real-life example: {}.",
    "To give an example from experience, {}.",
    "An example from everyday life: {}.",
    "For instance, a true example: {}.",
    "A concrete example from practice: {}.",
)
"""With example: what introduces the concrete case."""

EXAMPLE_REMARKS = (
    "That example from life says it all.",
    "A real example like this shows how it goes.",
    "I like to tell this example.",
    "Such an example is worth a lot of theory.",
)
"""With example, where there is room: what follows the concrete case."""

CONNECTIVES = ("then", "next,", "after that,", "also,", "besides,")
"""Prose: what ties a sentence to the one before."""

LIST_MARKS = ("-", "*", "•", "{}.", "{})", "({})")
"""List: bullets, and numbers where there are braces."""

LIST_HEADINGS = ("Checklist:", "Steps:", "List of tips:", "To-do list:", "Points in order:")
"""List, in most cases: the line above."""
