"""From a run and its data to the verdict (`copl.evaluate.verdict`)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from copl.data.checking.checks import island_sizes
from copl.evaluate.context import SplitContext
from copl.evaluate.verdict import TrainingFacts, Verdict, judge
from copl.experts.report import gate_report
from copl.interfaces import Metric, PreferenceModel, Progress
from copl.plugins import load
from copl.records import Diagnostics, Measurement, PreferenceData
from copl.runs.consensus import consensus_margins
from copl.runs.directory import Run
from copl.runs.pipeline import ahead, average_margins
from copl.runs.results import References


def verdict_of(run: Run, data: PreferenceData, measurements: Iterable[Measurement], inside: Diagnostics) -> Verdict:
    """Return the verdict on an evaluated run.

    Args:
        run: the run.
        data: what it was evaluated on.
        measurements: of its evaluation.
        inside: what the fitted method shows of itself.
    """
    return judge(measurements, training_facts(run, data, inside))


def first_verdict(
    run: Run, data: PreferenceData, method: PreferenceModel, *, progress: Progress, cache: Path | None
) -> Verdict:
    """Return the verdict on a run that was just trained, by the validation split alone.

    Args:
        run: the run.
        data: what it was trained on.
        method: the fitted method.
        progress: where to show progress.
        cache: directory shared between runs.
    """
    split = "validation"
    pairs = data.split(split)
    measurements: list[Measurement] = []
    if len(pairs):
        consensus = consensus_margins(run, data, data, (split,), plugins=load(), progress=progress, cache=cache)
        references = References({split: average_margins(method, pairs)}, consensus)
        margins, seed = method.margins(pairs), run.recipe.seed
        accuracy: Metric = load().registry("metric").create("accuracy")  # the verdict looks at no other
        measurements = [
            *accuracy(margins, pairs, SplitContext.of(data, split, seed=seed)),
            *ahead({split: margins}, references, data, seed=seed),
        ]
    facts = training_facts(run, data, method.diagnostics())
    return judge(measurements, facts, splits=(split,))


def training_facts(run: Run, data: PreferenceData, inside: Diagnostics) -> TrainingFacts:
    """Return what a run had to learn from."""
    counts = np.bincount(data.split("train").comparisons.user)
    counts = counts[counts > 0]
    islands = island_sizes(data)
    weights = inside.expert_weights
    return TrainingFacts(
        num_users=len(counts),
        num_comparisons=int(counts.sum()),
        median_comparisons=float(np.median(counts)) if len(counts) else 0.0,
        outside=1.0 - float(islands.max() / islands.sum()) if len(islands) else 0.0,
        reads_texts="backbone" in run.recipe.stages.parts,
        gate=gate_report(weights).finding if weights is not None and weights.size else None,
    )
