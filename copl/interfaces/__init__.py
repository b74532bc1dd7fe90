"""The contracts of the stages: what a plugin implements.

Abstract base classes on `torch.nn.Module` where there are weights, protocols elsewhere. Shapes: U users, R responses,
D embedding dimension, B batch, L tokens, M experts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from copl.interfaces.answering import Aligner, AlignerContext, ChecksPrompts, CountsTokens, CutText, Generator
from copl.interfaces.method import FormerRun, PreferenceModel
from copl.interfaces.stages import (
    AdaptationStrategy,
    Backbone,
    DatasetSource,
    EvaluationContext,
    GraphEncoder,
    Metric,
    OnlineUser,
    ShowsProgress,
)
from copl.interfaces.work import SCRATCH, Progress, Task, Workspace

if TYPE_CHECKING:
    from copl.interfaces.gate import ExpertGate

__all__ = [
    "SCRATCH",
    "AdaptationStrategy",
    "Aligner",
    "AlignerContext",
    "Backbone",
    "ChecksPrompts",
    "CountsTokens",
    "CutText",
    "DatasetSource",
    "EvaluationContext",
    "ExpertGate",
    "FormerRun",
    "Generator",
    "GraphEncoder",
    "Metric",
    "OnlineUser",
    "PreferenceModel",
    "Progress",
    "ShowsProgress",
    "Task",
    "Workspace",
]


def __getattr__(name: str) -> Any:
    """Import `ExpertGate`, a torch module, when it is first used: a command that builds no gate needs no torch."""
    if name != "ExpertGate":
        raise AttributeError(f"module 'copl.interfaces' has no attribute {name!r}")
    from copl.interfaces.gate import ExpertGate

    return ExpertGate
