"""How much older evidence counts: a half-life, given or chosen by the validation split."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, final

import attrs

from copl.graph.training import ComparisonTensors, Judgement
from copl.interfaces import FormerRun, Workspace
from copl.methods.catalogue import RecencyOptions
from copl.methods.parts.ageing import discounted, faded, half_lives
from copl.methods.parts.user_space import UserSpace, encoded
from copl.records import ComparisonSet, PreferenceData
from copl.runs.recipe import Stages
from copl.system.documents import read_document, write_document

if TYPE_CHECKING:
    from copl.reward.reading.reader import TextReader

STAGE = "recency"
_FILE = "recency.json"


@final
@attrs.frozen
class Recency:
    """How older evidence counts.

    Attributes:
        half_life: days after which evidence counts half; None for all alike.
        losses: validation loss by half-life in days, where it was chosen; 0 stands for none.
    """

    half_life: float | None
    losses: tuple[tuple[float, float], ...] = ()

    @classmethod
    def fit(
        cls,
        options: RecencyOptions,
        data: PreferenceData,
        stages: Stages,
        reader: TextReader | None,
        *,
        seed: int,
        workspace: Workspace,
        former: FormerRun | None = None,
    ) -> Recency:
        """Take the half-life that was given, or choose one: the encoder learns with each, and the least loss counts.

        Where a former run has chosen one, it is that.
        """
        if not options.choose_half_life:
            return cls(options.half_life)
        chosen = None if former is None else former.stage(STAGE)

        def compute(directory: Path) -> None:
            if chosen is not None:
                write_document(directory / _FILE, cls._read(chosen))
                return
            losses = []
            for days in (0.0, *half_lives(data)):
                faded_data = discounted(data, days) if days else data
                graph, embeddings = encoded(faded_data, stages, reader, seed, workspace)
                judge = ComparisonTensors.of(graph.validation)
                loss = Judgement.of_embeddings(judge, embeddings).loss if len(judge) else 0.0
                workspace.progress.log(STAGE, half_life=days, validation_loss=loss)
                losses.append((days, loss))
            best = min(losses, key=lambda entry: entry[1])[0]
            write_document(directory / _FILE, cls(best or None, tuple(losses)))

        key = UserSpace.key(data, stages, reader, seed, former if chosen is not None else None)
        return cls._read(workspace.stage(STAGE, key=key, compute=compute))

    @classmethod
    def load(cls, options: RecencyOptions, directory: Path) -> Recency:
        """Read what a run has chosen.

        Raises:
            RunError: it is missing or damaged.
        """
        return cls._read(directory / STAGE) if options.choose_half_life else cls(options.half_life)

    @classmethod
    def _read(cls, directory: Path) -> Recency:
        return read_document(directory / _FILE, cls, advice="train the run again")

    def of_data(self, data: PreferenceData) -> PreferenceData:
        """Return a data set whose older evidence counts less."""
        return data if self.half_life is None else discounted(data, self.half_life)

    def of_support(self, support: ComparisonSet) -> ComparisonSet:
        """Return what newcomers say, the older the less."""
        return support if self.half_life is None else faded(support, self.half_life)
