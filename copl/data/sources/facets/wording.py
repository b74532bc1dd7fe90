"""Prompts in words of their own: so many ways to ask the same that no two comparisons need to share one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod

import attrs
import numpy as np

from copl.data.sources.facets.corpus import RESPONSES_PER_PROMPT
from copl.records import Comparisons, IntArray, ResponseTable

GREETINGS = (
    "", "Hi.", "Hello!", "Hey,", "Good morning.", "Good evening.", "Hi there!", "Hello everyone.", "Dear all,",
    "Right then.", "Well,", "OK,", "So,", "Listen,", "Excuse me.", "Sorry to bother you.", "Me again.",
    "First time here.", "Back once more.", "Hello from the north.",
)  # fmt: skip
"""What comes first, or nothing."""

SITUATIONS = (
    "", "My sister asked me this.", "My father and I disagree here.", "This came up at dinner.",
    "A colleague swears I am wrong.", "I have wondered for years.", "I read two opposite things today.",
    "My neighbour laughed at me.", "It is my turn this week.", "I have tried once already.", "I gave up last spring.",
    "We moved house in March.", "My friend talks of nothing else.", "I am new to this.", "I used to know that.",
    "The forum was no help.", "My teacher skipped that part.", "I am asking for my mother.", "We argued in the car.",
    "It rains and I am bored.", "Guests arrive on Friday.", "My flatmate does it differently.", "I lost my notes.",
    "I promised my son.", "My partner wants to know.", "I woke up thinking of it.", "A stranger on the train asked me.",
    "My club meets on Tuesday.", "It went badly last time.", "I am back after ten years.", "I have the week off.",
    "My old book is silent on it.", "A video got me curious.", "I made a bet.", "My aunt never told me.",
    "Summer is nearly over.", "Winter is on its way.", "I start on Monday.", "It bothers me every time.",
    "My boss mentioned it.", "I heard it on the radio.", "Everyone seems to know but me.", "We are two beginners.",
    "I am in my sixties.", "I have just turned twenty.", "I live on my own now.", "There are five of us here.",
    "My daughter asked.", "It is late and I cannot sleep.", "I am on my lunch break.", "My cousin gave me the idea.",
    "I was never taught.", "I saw it done abroad.", "My grandfather had a trick.", "I keep forgetting.",
    "The shop assistant shrugged.", "We talked about it at work.", "I am getting nowhere.", "I am writing from a cafe.",
    "This may be an odd one.", "I have been told off already.", "I would like to settle this.", "My class is stuck.",
    "I had no luck searching.", "I owe somebody an answer.", "It is for the weekend.", "I am helping a friend.",
    "I inherited the problem.", "I thought it was obvious.", "I am between two jobs.", "The kids are asleep at last.",
    "I am a bit embarrassed.", "My flatmate bet against me.", "I asked around without luck.", "So it is since May.",
    "The label does not say.", "It is my first year.", "I saw a poster about it.", "I am planning ahead.",
    "My brother sent me here.", "I am on the bus.", "Nobody at home knows.", "I finally have some time.",
    "It has been on my list.", "I was away for a month.", "Somebody changed my mind.", "I want to do it right.",
    "The last owner left no word.", "My wife says ask.", "My husband says ask.", "I read half a chapter.",
    "I got a gift voucher.", "We live by the sea.", "We live in the hills.", "I work nights.", "I am left to it alone.",
    "A leaflet came today.", "I have a free afternoon.", "It is a family matter.", "I am having another go.",
)  # fmt: skip
"""Why somebody asks, or nothing; none says how the answer should be."""

CLOSINGS = (
    "", "Thanks!", "Thank you.", "Many thanks.", "Cheers.", "Much obliged.", "Ta.", "Thanks in advance.", "Greetings.",
    "Best wishes.", "I am all ears.", "I look forward to it.", "Over to you.", "Anyone?", "Any thoughts?", "Any ideas?",
    "What do you say?", "What would you do?", "I wonder.", "I am curious.", "That is all.", "That is my question.",
    "Nothing else.", "Hope you can help.", "I count on you.", "I will report back.", "I will try it tonight.",
    "I will try it tomorrow.", "No luck so far.", "I am stuck.", "Help!", "It matters to me.", "It is not urgent.",
    "It is rather urgent.", "Take your time.", "Sorry for asking.", "Sorry if asked before.", "You know such things.",
    "You helped me before.", "My friends have no clue.", "My family will thank you.", "See you.", "Bye for now.",
    "Have a good day.", "Have a nice evening.", "Good night.", "Yours, Sam", "Yours, Robin", "Yours, Kim", "Love, Jo",
    "Greetings, Alex", "Max", "Billie", "Chris from Leeds", "Pat from Cork", "Lee, 34", "Toni, 52", "Sasha, 19",
    "A beginner", "A neighbour", "An old friend", "A reader", "From my phone", "From the kitchen table",
    "From the office", "Written in a hurry", "Written in good hope", "I read everything.", "I keep an open mind.",
    "I have no view.", "I may be wrong.", "Correct me there.", "You decide.", "I trust you.", "I am listening.",
    "My pen is ready.", "Tea is on me.", "Coffee is on me.", "Fingers crossed.", "Here goes.", "Let me know.",
    "Do tell.", "Well?", "Please.", "Pretty please.", "If I may ask.", "If you have a minute.", "When you can.",
    "Whenever it suits you.", "Before the weekend.", "Before I forget.", "At last I asked.", "There, I asked.",
    "I feel better already.", "It has to be done.", "I cannot be the only one.", "You are my last hope.",
    "You are the first I ask.", "The dog says hello.", "The cat says hello.",
)  # fmt: skip
"""What comes last, or nothing."""

REGISTERS: tuple[Callable[[str], str], ...] = (
    lambda ask: ask,
    lambda ask: f"Question: {ask}",
    lambda ask: f"A question: {_small(ask)}",
    lambda ask: f"Quick one: {_small(ask)}",
    lambda ask: f"Tell me, {_small(ask)}",
    lambda ask: f"May I ask: {_small(ask)}",
    lambda ask: f"I would like to know: {_small(ask)}",
    lambda ask: f"What I want to know is this: {_small(ask)}",
    lambda ask: f"Does anybody know: {_small(ask)}",
    lambda ask: f"I was wondering, {_small(ask)}",
    lambda ask: f"Pray tell, {_small(ask)}",
    lambda ask: f"Would you be so kind as to tell me: {_small(ask)}",
    lambda ask: f"{_small(ask)} That is what I keep asking myself.",
    lambda ask: f"“{ask}” That is what I was asked.",
    lambda ask: ask.lower().rstrip("?"),
    lambda ask: f"{ask.lower().rstrip('?')}??",
    lambda ask: f"{ask.rstrip('?')}, please?",
    lambda ask: f"{ask.rstrip('?')}, in your view?",
)
"""How the question itself is put: formal, plain, chatty."""


def _small(ask: str) -> str:
    return ask[:1].lower() + ask[1:]


_SIZES = (len(GREETINGS), len(SITUATIONS), len(REGISTERS), len(CLOSINGS))

NUM_WORDINGS = prod(_SIZES)
"""How many ways there are to put a question; wording 0 is the question as it is."""


def reword(ask: str, wording: int) -> str:
    """Return the question `ask` in the words of `wording`, a number below `NUM_WORDINGS`."""
    greeting, situation, register, closing = (int(place) for place in np.unravel_index(wording, _SIZES))
    parts = (GREETINGS[greeting], SITUATIONS[situation], REGISTERS[register](ask), CLOSINGS[closing])
    return " ".join(part for part in parts if part)


def in_own_words(
    responses: ResponseTable, splits: Mapping[str, Comparisons], share: float, rng: np.random.Generator
) -> tuple[ResponseTable, IntArray, dict[str, Comparisons]]:
    """Put the prompts of a share of the comparisons into words that no other comparison has.

    Both responses of such a comparison become responses to its own prompt, their texts as they were. A larger share
    rewords what a smaller one does, in the same words, and more.

    Args:
        responses: the responses of the corpus; those to prompt p are the rows 4p to 4p + 3.
        splits: comparisons by split.
        share: share of all comparisons, 0 to 1; 0 changes nothing.
        rng: draws which comparisons, and the words.

    Returns:
        The responses that occur [R'], the row in `responses` of what each was made from [R'], and the splits, the
        same comparisons with rows of the new table.
    """
    if share == 0:
        return responses, np.arange(len(responses)), dict(splits)
    rows = Comparisons.concat(list(splits.values()))
    own = rng.permutation(len(rows)) < round(share * len(rows))
    wordings = _wordings(rows.chosen // RESPONSES_PER_PROMPT, rng)[own]
    # The rows of the corpus first, then two for each comparison with words of its own, in either order: where a
    # response stands in the table must not tell whether it was chosen.
    sides = np.stack([rows.chosen, rows.rejected])
    order = rng.integers(2, size=int(own.sum()))
    order = np.stack([order, 1 - order])  # the place of the chosen and of the rejected one, 0 or 1 [2, N']
    made_from = np.concatenate([np.arange(len(responses)), np.take_along_axis(sides[:, own], order, axis=0).T.ravel()])
    sides[:, own] = len(responses) + 2 * np.arange(order.shape[1]) + order
    used, renumbered = np.unique(sides, return_inverse=True)
    chosen, rejected = renumbered.reshape(sides.shape)
    asked = [responses.prompts[row] for row in made_from[len(responses) :]]
    prompts = [*responses.prompts, *map(reword, asked, wordings.repeat(2).tolist())]
    made_from = made_from[used]
    table = ResponseTable([prompts[row] for row in used], [responses.texts[row] for row in made_from])
    ends = np.cumsum([len(part) for part in splits.values()])[:-1]
    places = np.split(np.arange(len(rows)), ends)
    renumbered_splits = {
        name: attrs.evolve(part, chosen=chosen[at], rejected=rejected[at])
        for (name, part), at in zip(splits.items(), places, strict=True)
    }
    return table, made_from, renumbered_splits


def _wordings(prompts: IntArray, rng: np.random.Generator) -> IntArray:
    """Draw a wording for each comparison, another for each of the same prompt, and never the question as it is."""
    wordings = np.empty(len(prompts), dtype=np.int64)
    for prompt in np.unique(prompts):
        asked = np.flatnonzero(prompts == prompt)
        wordings[asked] = 1 + rng.choice(NUM_WORDINGS - 1, size=len(asked), replace=False)
    return wordings
