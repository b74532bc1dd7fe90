"""What generators and aligners hand over: candidates to prompts, their rewards, and the answers that users see.

A generator (`copl.interfaces.Generator`) writes candidates to prompts, an aligner (`copl.interfaces.Aligner`) makes of
them what each user sees. Prompts are in the one form of `copl.data.chat`; users are known by their ids.

Shapes: U users, P prompts, n candidates to a prompt.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, final

from attrs import field, frozen

from copl.system.converters import strings

if TYPE_CHECKING:
    from copl.records.tables import FloatArray


def _lists_of_strings(values: Iterable[Iterable[str]]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(texts) for texts in values)


def _numbers(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(map(float, values))


@final
@frozen(eq=False)
class AnswerRequests:
    """Which users ask what, and what might be answered: every user asks every prompt.

    Attributes:
        user_ids: ids of the users [U].
        prompts: the prompts [P].
        candidates: for each prompt the texts to choose from, at least one [P][n]; the same for all users.
    """

    user_ids: tuple[str, ...] = field(converter=strings)
    prompts: tuple[str, ...] = field(converter=strings)
    candidates: tuple[tuple[str, ...], ...] = field(converter=_lists_of_strings)

    def __attrs_post_init__(self) -> None:
        if len(self.prompts) != len(self.candidates):
            raise ValueError(f"{len(self.prompts)} prompts but candidates to {len(self.candidates)}")
        if not all(self.candidates):
            raise ValueError(f"no candidate to prompt {[len(texts) for texts in self.candidates].index(0) + 1}")

    def __len__(self) -> int:
        """Return the number of answers asked for, U times P."""
        return len(self.user_ids) * len(self.prompts)


@final
@frozen(eq=False)
class CandidateRewards:
    """How much the candidates of some requests are worth, by prompt.

    Attributes:
        personal: to each user [P][U, n]; to a user nobody knows, what they are worth to the average user.
        unpersonalised: to the average user [P][n].
    """

    personal: tuple[FloatArray, ...]
    unpersonalised: tuple[FloatArray, ...]


@final
@frozen
class Answer:
    """What one user sees in answer to one prompt.

    Attributes:
        user_id: id of the user.
        prompt: the prompt.
        candidates: the texts that the answer was chosen from; those of the request, or what an aligner wrote for this
            user [n].
        choice: which of them is shown.
        unpersonalised: the text that a user nobody knows would be shown.
        rewards: what the candidates are worth to this user [n]; empty where nobody asked.
        confidence: how likely the shown text is the user's favourite among the candidates, 0 to 1.
        user_known: whether the model knows anything of this user; if not, the answer is the unpersonalised one.
        note: what there is to say of the answer.
    """

    user_id: str
    prompt: str
    candidates: tuple[str, ...] = field(converter=strings)
    choice: int
    unpersonalised: str
    rewards: tuple[float, ...] = field(default=(), converter=_numbers)
    confidence: float = 0.0
    user_known: bool = True
    note: str = ""

    def __attrs_post_init__(self) -> None:
        if not 0 <= self.choice < len(self.candidates):
            raise ValueError(f"choice {self.choice} of {len(self.candidates)} candidates")
        if self.rewards and len(self.rewards) != len(self.candidates):
            raise ValueError(f"{len(self.rewards)} rewards of {len(self.candidates)} candidates")

    @property
    def shown(self) -> str:
        """The text that the user sees."""
        return self.candidates[self.choice]
