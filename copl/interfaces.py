"""The contracts of the stages: what a plugin implements.

Abstract base classes on `torch.nn.Module` where there are weights, protocols elsewhere. Shapes: U users, R responses,
D embedding dimension, B batch, L tokens, M experts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from copl.answers import Answer, AnswerRequests, CandidateRewards
from copl.errors import CoplError, OptionsError
from copl.records import (
    AdaptedUsers,
    ComparisonSet,
    Diagnostics,
    Measurement,
    NodeEmbeddings,
    PreferenceData,
    PreferenceGraph,
    ResponseTable,
    ScoreRequests,
)

if TYPE_CHECKING:
    from copl.expert_gate import ExpertGate as ExpertGate
    from copl.records import BoolArray, FloatArray


def __getattr__(name: str) -> Any:
    """Import `ExpertGate`, a torch module, when it is first used: a command that builds no gate needs no torch."""
    if name != "ExpertGate":
        raise AttributeError(f"module 'copl.interfaces' has no attribute {name!r}")
    from copl.expert_gate import ExpertGate

    return ExpertGate


SCRATCH = "scratch"
"""Directory of a stage for what it needs to continue after a kill; no part of its result."""


class Task(Protocol):
    """One piece of long work whose progress is shown."""

    def advance(self, steps: int = 1, **values: float) -> None:
        """Move on by `steps`; `values` (a loss, an accuracy) are shown beside the bar."""
        ...


class Progress(Protocol):
    """Where long work shows how far it is and leaves its curves."""

    def task(self, name: str, total: int | None = None) -> AbstractContextManager[Task]:
        """Open a task of `total` steps (unknown when None)."""
        ...

    def log(self, stage: str, **values: float | int | str) -> None:
        """Leave one record in the run's log: a point of a training curve, a count, a finding."""
        ...


class Workspace(Protocol):
    """Where a method keeps what its stages compute, so that nothing is computed twice."""

    progress: Progress

    def stage(
        self, name: str, *, key: Mapping[str, Any], compute: Callable[[Path], None], together: bool = False
    ) -> Path:
        """Return the directory of a finished stage, computing it only when it is not there yet.

        Args:
            name: directory name of the stage, such as ``graph``.
            key: everything the result depends on, as plain JSON values; equal keys share one result.
            compute: writes the result into the directory it is given. After a kill it is called again with the same
                directory and may continue from what it finds there. What it keeps for that alone goes into the
                directory `SCRATCH` there, which is removed when the stage is finished, never by `compute`.
            together: where a launcher started several processes, all of them compute, in the same directory; only the
                main one may write there. Otherwise the main one computes alone.
        """
        ...

    def shared(self, name: str) -> Path:
        """Return a directory for what is known by its content, and so serves other runs as well; it may not exist yet.

        It may be cleared at any time after `PreferenceModel.fit`; files in it that are open stay readable.
        """
        ...


class GraphEncoder(ABC):
    """Learns user and response embeddings from a preference graph."""

    @property
    def reads_texts(self) -> bool:
        """Whether `fit` makes use of `PreferenceGraph.response_features`, where the method has texts."""
        return False

    @abstractmethod
    def fit(self, graph: PreferenceGraph, *, seed: int, progress: Progress) -> NodeEmbeddings:
        """Learn the embeddings of all users and responses of `graph`.

        Args:
            graph: the preference graph; `graph.validation` may be used for early stopping only.
            seed: the same seed gives the same embeddings.
            progress: where to show progress and log curves.
        """

    @property
    def continues(self) -> bool:
        """Whether `fit_from` goes on from former embeddings; their dimensions keep what they mean then."""
        return False

    def fit_from(
        self, graph: PreferenceGraph, former: NodeEmbeddings, *, seed: int, progress: Progress
    ) -> NodeEmbeddings:
        """Learn the embeddings of a graph that has grown from those of the former one; asked where it `continues`.

        Args:
            graph: the preference graph now; users and responses are found again by their ids and keys.
            former: what `fit` or `fit_from` gave before, on fewer comparisons, with its `NodeEmbeddings.memory`.
            seed: as in `fit`.
            progress: as in `fit`.
        """
        return self.fit(graph, seed=seed, progress=progress)


class AdaptationStrategy(Protocol):
    """Finds embeddings for users who were not there in training; never changes what is trained."""

    def adapt(self, support: ComparisonSet, trained: NodeEmbeddings) -> AdaptedUsers:
        """Return an embedding for every user of `support.users` that has comparisons there.

        Args:
            support: the newcomers' comparisons; responses are matched to the trained ones by key.
            trained: what the encoder has learnt.
        """
        ...


class OnlineUser(ABC):
    """A user who says one thing after another; never changes what is trained."""

    @property
    @abstractmethod
    def adapted(self) -> AdaptedUsers:
        """The user as of now."""

    @abstractmethod
    def add(self, said: ComparisonSet) -> AdaptedUsers:
        """Take more comparisons and judgements of this user into account and return the user as of now."""

    @abstractmethod
    def information(self, questions: ComparisonSet) -> FloatArray:
        """Return the bits that the answer to each pair is expected to tell about this user [Q]."""


class Backbone(Protocol):
    """A transformer that a reward model stands on."""

    def fingerprint(self) -> str:
        """Return a text that is equal exactly when the weights and the tokenizer are."""
        ...

    def load(self) -> Any:
        """Return the loaded model (`copl.reward.backbones.loaded.LoadedBackbone`).

        Raises:
            BackboneError: the model is missing or damaged.
        """
        ...


class DatasetSource(Protocol):
    """Makes a data set out of files, a hub data set or a generator."""

    def load(self, *, seed: int) -> PreferenceData:
        """Read or generate the data and split it.

        Raises:
            DataError: with one fault for each row or file that is wrong.
        """
        ...


@runtime_checkable
class ShowsProgress(Protocol):
    """A source that can show how far it is; whether it does is up to who makes a data set."""

    def showing(self, progress: Progress) -> DatasetSource:
        """Return this source, which shows there how far it is."""
        ...


class Metric(Protocol):
    """Measures margins on held-out comparisons."""

    def __call__(self, margins: FloatArray, pairs: ComparisonSet, context: EvaluationContext) -> Sequence[Measurement]:
        """Return the measurements for the margins [N] of the N comparisons of `pairs`."""
        ...


class EvaluationContext(Protocol):
    """What a metric may know beside the margins."""

    @property
    def split(self) -> str:
        """Name of the split."""

    @property
    def num_comparisons(self) -> Mapping[str, int]:
        """Comparisons each user has given to the model: training ones if seen, support ones if not."""

    @property
    def seed(self) -> int:
        """Seed of the resampling."""


class FormerRun(Protocol):
    """A run to go on from. Nothing it has learnt from is missing in the data; what users changed their minds of may be
    another now."""

    @property
    def key(self) -> str:
        """A text that is equal exactly when two runs hold the same fitted method; belongs in the key of what goes on
        from it."""
        ...

    def stage(self, name: str) -> Path | None:
        """Return the directory of one of its stages, checked; None where it has no such stage.

        Raises:
            RunError: the stage is damaged.
        """
        ...

    def lacks(self, said: ComparisonSet) -> BoolArray:
        """Return which comparisons of the split ``train`` it has not learnt from [N]."""
        ...

    def tell(self, part: str, how: str) -> None:
        """Say for the record what became of a part of the method: ``continued``, or why it was learnt anew."""
        ...


class PreferenceModel(ABC):
    """A whole method: fitted on a data set, adapted to newcomers, scoring any response for any user."""

    @abstractmethod
    def fit(self, data: PreferenceData, *, seed: int, workspace: Workspace) -> None:
        """Learn from the splits ``train`` and ``validation``; results are kept in the workspace's stages."""

    @property
    def continues(self) -> bool:
        """Whether `fit_from` makes use of a former run."""
        return False

    def fit_from(self, data: PreferenceData, former: FormerRun, *, seed: int, workspace: Workspace) -> None:
        """Learn from data that have grown, from a run of the same recipe on; asked where the method `continues`.

        Args:
            data: as in `fit`.
            former: the run to go on from.
            seed: as in `fit`.
            workspace: as in `fit`; what goes on from the run has its `FormerRun.key` in the keys of its stages.
        """
        self.fit(data, seed=seed, workspace=workspace)

    @abstractmethod
    def load(self, directory: Path) -> None:
        """Read back what `fit` and `fit_from` kept in the run directory.

        Raises:
            RunError: a stage is missing, damaged or from another version.
        """

    @abstractmethod
    def adapt(self, support: ComparisonSet) -> AdaptedUsers:
        """Find embeddings for unseen users."""

    def online(self, user_id: str) -> OnlineUser:
        """Follow a user, seen or not, who answers one comparison after another.

        Raises:
            CoplError: the method takes no notice of users.
        """
        raise CoplError("this method takes no notice of users: there is nothing to learn about one")

    @abstractmethod
    def seen_users(self) -> Collection[str]:
        """Return the ids of the users the method was trained on; empty where it takes no notice of users."""

    @abstractmethod
    def scores(self, requests: ScoreRequests, adapted: AdaptedUsers | None = None) -> FloatArray:
        """Return the reward [N] of each request.

        A user found neither among the seen nor in `adapted` gets the method's documented fallback.
        """

    def margins(self, pairs: ComparisonSet, adapted: AdaptedUsers | None = None) -> FloatArray:
        """Return by how much [N] each user prefers the chosen response; positive means the label is predicted.

        Each distinct (user, response) is scored once.
        """
        rows = pairs.comparisons
        user = np.concatenate([rows.user, rows.user])
        response = np.concatenate([rows.chosen, rows.rejected])
        code, inverse = np.unique(user * max(len(pairs.responses), 1) + response, return_inverse=True)
        unique_user, unique_response = np.divmod(code, max(len(pairs.responses), 1))
        scores = self.scores(ScoreRequests(pairs.users, pairs.responses, unique_user, unique_response), adapted)
        chosen, rejected = scores[inverse].reshape(2, -1)
        margins: FloatArray = chosen - rejected
        return margins

    def diagnostics(self) -> Diagnostics:
        """Return what there is to show of the fitted method's inside."""
        return Diagnostics()

    def export(
        self, user: str, directory: Path, *, adapted: AdaptedUsers | None = None, merge: bool = False
    ) -> Mapping[str, Any]:
        """Write one user's reward model so that it works without this package; return what there is to say of it.

        Args:
            user: id of a user who is seen or in `adapted`.
            directory: where it goes; must not exist or be empty.
            adapted: newcomers.
            merge: write whole weights instead of an adapter.

        Raises:
            OptionsError: the method has no such form, or the directory holds something.
        """
        raise OptionsError(f"{type(self).__name__} has no reward model that could be exported")


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
        """Return whether anything is known of a user: seen in training, or adapted."""

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
        """Return what a user has said so far: training comparisons, or those that a newcomer was adapted by."""

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
