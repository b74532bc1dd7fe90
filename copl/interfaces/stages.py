"""The contracts of the stages and of what they are measured on.

Shapes: U users, R responses, N comparisons, Q questions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from copl.interfaces.work import Progress
from copl.records import AdaptedUsers, ComparisonSet, Measurement, NodeEmbeddings, PreferenceData, PreferenceGraph

if TYPE_CHECKING:
    from copl.records import FloatArray


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
