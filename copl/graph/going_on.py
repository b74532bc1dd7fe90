"""Encoders that go on from what they have learnt before."""

from __future__ import annotations

from abc import abstractmethod

from copl.graph.recall import Recall
from copl.interfaces import GraphEncoder, Progress
from copl.records import NodeEmbeddings, PreferenceGraph


class GoesOn(GraphEncoder):
    """An encoder that finds what it has learnt again in a graph that has grown, and learns from there."""

    @property
    def continues(self) -> bool:
        return True

    def fit_from(
        self, graph: PreferenceGraph, former: NodeEmbeddings, *, seed: int, progress: Progress
    ) -> NodeEmbeddings:
        return self.go_on(graph, Recall.of(former, graph), seed=seed, progress=progress)

    @abstractmethod
    def go_on(self, graph: PreferenceGraph, recall: Recall, *, seed: int, progress: Progress) -> NodeEmbeddings:
        """Learn the embeddings of a graph from what is known of its nodes; as `fit` otherwise."""
