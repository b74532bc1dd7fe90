"""Method ``btl``: one Bradley-Terry reward model for everybody, the baseline every personal method has to beat.

The same backbone, LoRA rank of the shared expert, warm start and training as `copl`, without users.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import final

from copl.interfaces import FormerRun, Workspace
from copl.methods.parts.going_on import GoesOn
from copl.methods.parts.text_reward import TextReward, former_reward
from copl.methods.parts.unpersonalised import Unpersonalised
from copl.options import NoOptions
from copl.records import (
    NOBODY,
    AdaptedUsers,
    FloatArray,
    IntArray,
    PreferenceData,
    ResponseTable,
    ScoreRequests,
    UserTable,
)
from copl.reward.reading.reader import TextReader
from copl.runs.recipe import Stages


@final
class BtlMethod(GoesOn, Unpersonalised):
    """A reward model that reads the text and takes no notice of the user."""

    def __init__(self, stages: Stages) -> None:
        self._stages = stages
        self._fitted: TextReward | None = None

    def _fit(self, data: PreferenceData, former: FormerRun | None, seed: int, workspace: Workspace) -> None:
        stages = self._stages
        reader = TextReader.of(stages)
        reader.read(data.responses, workspace)
        before = None if former is None else former_reward(former, data, stages)
        upstream = {} if former is None or before is None else {"former": former.key}
        self._fitted = TextReward.fit(
            data, None, stages, reader, upstream=upstream, seed=seed, workspace=workspace, former=before
        )

    def load(self, directory: Path) -> None:
        reader = TextReader.of(self._stages)
        reader.load(directory)
        self._fitted = TextReward.load(directory, self._stages, reader)

    def rewards(self, responses: ResponseTable, rows: IntArray) -> FloatArray:
        if self._fitted is None:
            raise RuntimeError("fit or load the method first")
        nobody = UserTable.ungrouped([NOBODY])
        return self._fitted.scores(ScoreRequests(nobody, responses, rows * 0, rows), None)

    def export(
        self, user: str, directory: Path, *, adapted: AdaptedUsers | None = None, merge: bool = False
    ) -> Mapping[str, object]:
        if self._fitted is None:
            raise RuntimeError("fit or load the method first")
        return self._fitted.export("everybody", None, self._stages, directory, merge=merge)


def build(options: NoOptions, *, stages: Stages) -> BtlMethod:
    return BtlMethod(stages)
