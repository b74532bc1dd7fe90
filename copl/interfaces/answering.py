"""The contracts of who answers: generators write candidates, aligners make of them what each user sees.

Shapes: U users, P prompts, n candidates to a prompt, R responses.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, final, runtime_checkable

if TYPE_CHECKING:
    from copl.interfaces.method import PreferenceModel
    from copl.interfaces.work import Progress
    from copl.records import AdaptedUsers, ComparisonSet, FloatArray, ResponseTable
    from copl.records.answers import Answer, AnswerRequests, CandidateRewards


@final
class CutText(str):
    """A candidate that was broken off at the longest that its generator writes; a text like any other besides."""

    __slots__ = ()


class Generator(Protocol):
    """Writes candidate answers to prompts."""

    @property
    def follows_prompts(self) -> bool:
        """Whether it does what a prompt says, whatever that is: examples and instructions may be put into it."""
        ...

    def fingerprint(self) -> str:
        """Return a text that is equal when the same prompts get the same candidates, such as of weights or files."""
        ...

    def candidates(self, prompts: Sequence[str], *, num: int, seed: int, progress: Progress) -> Sequence[Sequence[str]]:
        """Return `num` candidates for each prompt, or fewer where there are no more, but at least one.

        What a language model thought before its answer is no part of one (`copl.data.thinking`), and one that was
        broken off may be a `CutText`, which a service then says.

        What a candidate says depends on its prompt, its place and the seed, on nothing else: neither on the other
        prompts nor on `num`. (A service that others run may not keep to that.)

        Args:
            prompts: text, or chat messages in the form of `copl.data.chat` [P].
            num: how many candidates to write.
            seed: the same seed gives the same candidates.
            progress: where to show progress.

        Raises:
            CoplError: it cannot answer these prompts, one fault each; or the writer is missing.
        """
        ...


@runtime_checkable
class ChecksPrompts(Protocol):
    """A generator that can say beforehand which prompts it cannot answer."""

    def check(self, prompts: Sequence[str]) -> None:
        """Look at all prompts before any is answered.

        Raises:
            CoplError: one fault for each that it cannot answer.
        """
        ...


@runtime_checkable
class CountsTokens(Protocol):
    """A generator that can say how long a text is to it."""

    def num_tokens(self, text: str) -> int:
        """Return how many tokens a text has."""
        ...


class AlignerContext(Protocol):
    """What an aligner may use beside the requests."""

    @property
    def seed(self) -> int:
        """The same seed gives the same answers."""

    @property
    def progress(self) -> Progress:
        """Where to show progress."""

    @property
    def method(self) -> PreferenceModel:
        """The fitted method of the run."""

    @property
    def adapted(self) -> AdaptedUsers | None:
        """Newcomers, where there are any."""

    @property
    def generator(self) -> Generator:
        """Who wrote the candidates, and may write more."""

    @property
    def directory(self) -> Path:
        """Where to keep what is worth keeping between calls and runs of the program, such as a trained policy.

        It belongs to one aligner with its options and one fitted run, and may not exist yet.
        """

    def knows(self, user_id: str) -> bool:
        """Return whether anything is known of a user: seen in training, or adapted by words that tell something."""

    def rewards(self, requests: AnswerRequests) -> CandidateRewards:
        """Return what all candidates are worth to each user and to the average user; each text is read once.

        Raises:
            CoplError: the method cannot score these texts.
        """

    def utilities(self, requests: AnswerRequests) -> tuple[FloatArray, ...]:
        """Return what the candidates are truly worth to each user [P][U, n].

        Raises:
            CoplError: nobody knows: the data are not simulated, or a user is not of them.
        """

    def comparisons(self, user_id: str) -> ComparisonSet:
        """Return what a user has said so far: training comparisons, and those that the user was adapted by."""

    def without_newcomers(self) -> AlignerContext:
        """Return the same before anybody was adapted, for what is learnt once for everybody and kept."""

    def features(self, responses: ResponseTable) -> FloatArray:
        """Return frozen features of texts [R, F].

        Raises:
            CoplError: the run's method has no backbone.
        """


class Aligner(Protocol):
    """Makes of candidates, or of the prompt itself, what each user sees."""

    def answers(self, requests: AnswerRequests, context: AlignerContext) -> Sequence[Answer]:
        """Return an answer for each prompt and user, prompt by prompt, the users of each in order [P * U].

        A user nothing is known of gets the unpersonalised answer, which says so. What a user sees depends neither on
        the other users nor on the other prompts of the requests.

        Raises:
            CoplError: it cannot work with this run, generator or user.
        """
        ...
