"""The default graph encoder beside tuned baselines on real votes and crowd comparisons.

    python -m benchmarks.encoders_real --data downloads

Three Polis conversations, where no two splits of a user share a statement, and LLMFAO. ``mf`` chooses its precision by
validation; ``gcf:tuned`` is the published network (all embeddings random at first, no response effects, every edge
supervised by itself) with learning rate and epoch chosen by validation, full batches and D = 64. Finished fits are kept
beside the table (``.jsonl``) and skipped next time.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measured import RESULTS, Cells, code_digest, markdown_table, measure, provenance
from benchmarks.planted_cases import reach_of, right_of
from copl.ablate.statistics import PairedDifference, mean_difference, pooled_runs
from copl.plugins import load
from copl.runs.recipe import DEFAULTS
from copl.system.files import write_text

SETS = {
    "bowling-green": ("polis", "polis/bowling-green"),
    "land-bank": ("polis", "polis/land-bank"),
    "taxes": ("polis", "polis/taxes"),
    "llmfao": ("llmfao", "llmfao"),
}
TUNED = "gcf:tuned"
_LEARNING_RATES = (1e-3, 5e-3, 2e-2)
_TUNED = {"embedding_dim": 64, "batch_size": None, "num_epochs": 200, "validate_every": 2, "patience": 15}


def fit_cell(source: str, path: str, seed: int, encoder: str) -> dict[str, Any]:
    """Fit one encoder on one data set; return its accuracy on the held-out comparisons of the same users."""
    from copl.graph.build import build_graph
    from copl.graph.training import ComparisonTensors, Judgement
    from copl.system.progress import SilentProgress

    encoders = load().registry("encoder")
    data = load().registry("source").create(source, {"path": path}).load(seed=seed)
    graph = build_graph(data)
    candidates: list[tuple[str, dict[str, Any]]] = [(encoder, {})]
    if encoder == TUNED:
        preset = encoders.get("gcf").component.presets["paper"]
        candidates = [("gcf", {**preset, **_TUNED, "learning_rate": rate}) for rate in _LEARNING_RATES]
    held = ComparisonTensors.of(graph.validation)
    found = []
    with measure() as usage:
        for name, options in candidates:
            embeddings = encoders.create(name, options).fit(graph, seed=seed, progress=SilentProgress())
            margins = held.margins(embeddings.users, embeddings.responses, embeddings.response_bias)
            found.append((Judgement.of(held, margins).loss, embeddings))
    best = min(found, key=lambda pair: pair[0])[1]
    right = right_of(best, data)
    reach = reach_of(right, data.split("test"))
    return {"accuracy": float(right.mean()), "reach": reach, "asked": len(right), "cpu_s": usage.cpu_s}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.encoders_real", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("downloads"), help="where `copl data fetch` put them")
    parser.add_argument("--sets", default=",".join(SETS), help=f"data sets, of {', '.join(SETS)}")
    parser.add_argument("--encoders", default=f"{DEFAULTS['encoder']},mf,{TUNED}", help="encoders by name")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds, counted from 0")
    parser.add_argument("--threads", type=int, default=2, help="threads of each fit")
    parser.add_argument("--out", type=Path, default=RESULTS / "encoders_real.md", help="file of the table")
    wanted = parser.parse_args(arguments)
    sets, encoders = wanted.sets.split(","), wanted.encoders.split(",")
    cells = Cells(wanted.out.with_suffix(".jsonl"))
    code = code_digest("benchmarks/encoders_real.py", "copl/graph", "copl/data")
    results: dict[tuple[str, str], list[Mapping[str, float]]] = {}
    for seed in range(wanted.seeds):
        for name in sets:
            source, path = SETS[name]
            for encoder in encoders:
                cell = {"set": name, "seed": seed, "encoder": encoder, "code": code}
                request = {"source": source, "path": str(wanted.data / path), "seed": seed, "encoder": encoder}
                result = cells.compute(
                    "benchmarks.encoders_real:fit_cell", cell, request, threads=wanted.threads, timeout=None
                )
                if "error" in result:
                    sys.exit(f"{encoder} on {name}, seed {seed}: {result['error']}")
                results.setdefault((encoder, name), []).append(result)
    command = " ".join(["python -m benchmarks.encoders_real", *(sys.argv[1:] if arguments is None else arguments)])
    rows = []
    for encoder in encoders:
        parts = {name: _pooled(results[encoder, name]) for name in sets}
        rows.append([encoder, *map(_shown, [*parts.values(), mean_difference(parts)])])
    facts = [
        f"seeds: 0 to {wanted.seeds - 1}; mean accuracy and 95 % interval by Student's t over seeds, and over "
        "users and texts, which are the same in all (docs/protocol.md)"
    ]
    lines = ["# Graph encoders on real data", "", *provenance(command, threads=wanted.threads, facts=facts), ""]
    write_text(wanted.out, "\n".join([*lines, *markdown_table(["encoder", *sets, "mean"], rows), ""]))
    print(wanted.out)


def _pooled(results: Sequence[Mapping[str, float]]) -> PairedDifference:
    return pooled_runs([one["accuracy"] for one in results], [one["reach"] for one in results], shared=True)


def _shown(pooled: PairedDifference) -> str:
    return f"{pooled.value:.3f} ± {pooled.interval[1] - pooled.value:.3f}"


if __name__ == "__main__":
    main()
