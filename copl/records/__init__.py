"""Frozen records that the stages hand to each other.

Rows and ids: inside one record, users and responses are numbered by their row in a table that travels with the numbers
(`UserTable`, `ResponseTable`). Between records and on disk, a user is known by its own id and a response by its key,
never by a row. What single families hand over has a module of its own here: `copl.records.passes`, `.memory`,
`.answers`, `.explanation`, and what users say otherwise than by comparing, `.judgements`, `.evidence`, `.said`.

Shapes: U users, R responses, N comparisons, D embedding dimension, B batch, L tokens, M experts.
"""

from copl.records.dataset import SPLITS, ComparisonSet, PreferenceData, ScoreRequests
from copl.records.learnt import AdaptedUsers, Diagnostics, GateWeights, NodeEmbeddings, PreferenceGraph, TokenBatch
from copl.records.measurement import Measurement
from copl.records.tables import (
    NOBODY,
    BoolArray,
    Comparisons,
    FloatArray,
    IntArray,
    ResponseTable,
    UserTable,
    response_key,
)

__all__ = [
    "NOBODY", "SPLITS", "AdaptedUsers", "BoolArray", "ComparisonSet", "Comparisons", "Diagnostics", "FloatArray",
    "GateWeights", "IntArray", "Measurement", "NodeEmbeddings", "PreferenceData", "PreferenceGraph", "ResponseTable",
    "ScoreRequests", "TokenBatch", "UserTable", "response_key",
]  # fmt: skip
