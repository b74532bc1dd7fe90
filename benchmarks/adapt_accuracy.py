"""Held-out accuracy of newcomers by strategy and number of comparisons, on planted graphs and real sets.

    python -m benchmarks.adapt_accuracy

fits the default encoder on every set and seed, each in a process of its own, and adapts the unseen users with every
strategy from their first 1, 2, 4, 8 and 16 comparisons; planted graphs also from as many as a seen user trained with.
``--sets taxes,llmfao --seeds 2 --encoder mf`` runs a part. Finished fits are kept beside the table (``.jsonl``) and
skipped next time, as long as the code is the same; ``--fits DIRECTORY`` keeps the embeddings too, so that other
strategies are measured without fitting again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from benchmarks.adapt_data import PLANTED, correct, first_of_each, make, planted_options, present
from benchmarks.measured import RESULTS, Cells, code_digest, markdown_table, provenance
from copl.graph.build import build_graph
from copl.graph.store import NODES_FILE, load_embeddings, save_embeddings
from copl.plugins import load
from copl.records import ComparisonSet, NodeEmbeddings, PreferenceData
from copl.runs.recipe import DEFAULTS
from copl.system.files import write_text
from copl.system.progress import SilentProgress

COUNTS = (1, 2, 4, 8, 16)
_FITS = ("copl/graph", "copl/data", "benchmarks/adapt_data.py", "benchmarks/planted_cases.py")


def fits_digest() -> str:
    """Return a digest of the code that fitted embeddings depend on."""
    return code_digest(*_FITS)


def fit(data: PreferenceData, encoder: str, seed: int, kept: Path | None) -> NodeEmbeddings:
    """Return the fitted embeddings, from `kept` where they are there."""
    if kept is not None and (kept / NODES_FILE).exists():
        return load_embeddings(kept)
    fitted: NodeEmbeddings = (
        load().registry("encoder").create(encoder).fit(build_graph(data), seed=seed, progress=SilentProgress())
    )
    if kept is not None:
        save_embeddings(fitted, kept)
    return fitted


def measure_cell(name: str, encoder: str, seed: int, scale: float, kept: str | None = None) -> dict[str, Any]:
    """Return the accuracies of one fit: of the seen users, of the mean user, and by strategy and number."""
    data = make(name, seed, scale)
    fitted = fit(data, encoder, seed, Path(kept) if kept else None)
    test, heldout, support = data.split("test"), data.split("heldout"), data.split("support")
    seen = fitted.users[torch.tensor([fitted.user_rows[test.users.ids[u]] for u in test.comparisons.user.tolist()])]
    mean = fitted.users.mean(dim=0).expand(len(heldout), -1)
    same = planted_options(name).num_train if name in PLANTED else None
    counts = sorted({*COUNTS, *([same] if same else [])})
    strategies = load().registry("adapter").names()
    return {
        "seen": float(correct(test, seen, fitted).mean()),
        "population": float(correct(heldout, mean, fitted).mean()),
        "same": same,
        "curves": {
            strategy: {str(n): _accuracy(strategy, first_of_each(support, n), heldout, fitted) for n in counts}
            for strategy in strategies
        },
    }


def _accuracy(strategy: str, support: ComparisonSet, heldout: ComparisonSet, fitted: NodeEmbeddings) -> float:
    adapted = load().registry("adapter").create(strategy).adapt(support, fitted)
    place = {user: row for row, user in enumerate(adapted.user_ids)}
    rows = torch.tensor([place[heldout.users.ids[u]] for u in heldout.comparisons.user.tolist()])
    return float(correct(heldout, adapted.embeddings[rows], fitted).mean())


def interval(values: Sequence[float]) -> str:
    """Return the mean over seeds with the half width of its 95 % interval (Student's t)."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return f"{mean:.3f} (1 seed)"
    half = float(stats.t.ppf(0.975, len(values) - 1)) * float(np.std(values, ddof=1)) / len(values) ** 0.5
    return f"{mean:.3f} ± {half:.3f}"


def _average(found: Mapping[str, Any], strategy: str) -> float:
    """Return the mean accuracy over `COUNTS`."""
    return float(np.mean([found["curves"][strategy][str(n)] for n in COUNTS]))


def report(found: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> list[str]:
    """Return the tables: `found` holds results by set and seed; seeds that every set has are averaged over sets."""
    strategies = sorted({s for by_seed in found.values() for result in by_seed.values() for s in result["curves"]})
    default = DEFAULTS["adapter"]
    complete = sorted(set.intersection(*(set(by_seed) for by_seed in found.values())))
    means = {s: {k: float(np.mean([_average(found[n][k], s) for n in found])) for k in complete} for s in strategies}
    ahead = [
        [
            strategy + (" (default)" if strategy == default else ""),
            interval([means[strategy][seed] for seed in complete]),
            "" if strategy == default else interval([means[default][k] - means[strategy][k] for k in complete]),
            *(interval([_average(r, strategy) for r in by_seed.values()]) for by_seed in found.values()),
        ]
        for strategy in sorted(strategies, key=lambda s: -float(np.mean(list(means[s].values()))))
    ]
    lines = [
        "",
        f"## Mean over {', '.join(map(str, COUNTS))} comparisons",
        "",
        "The second column is the mean over all sets, the third how far the default is ahead, paired by seed.",
        "",
        *markdown_table(["strategy", "all sets", "default less this", *found], ahead),
    ]
    for name, by_seed in found.items():
        results = list(by_seed.values())
        counts = sorted({int(n) for n in results[0]["curves"][default]})
        rows = [
            [
                strategy,
                interval([r["population"] for r in results]),
                *(interval([r["curves"][strategy][str(n)] for r in results]) for n in counts),
            ]
            for strategy in strategies
        ]
        lines += ["", f"## {name}", "", f"Seen users: {interval([r['seen'] for r in results])}.", ""]
        if results[0]["same"]:
            same = str(results[0]["same"])
            shares = interval([r["curves"][default][same] / r["seen"] for r in results])
            lines += [f"`{default}` with {same} comparisons, as share of the seen users' accuracy: {shares}.", ""]
        lines += markdown_table(["comparisons", "0", *map(str, counts)], rows)
    return lines


def options(summary: str | None, subject: str, sets: Sequence[str]) -> argparse.ArgumentParser:
    """Return the options that the benchmarks of adaptation share."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{subject}",
        description=summary,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--sets", default=",".join(sets), help="names of the sets, with commas")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds, from 0")
    parser.add_argument("--encoder", default=DEFAULTS["encoder"], help="encoder that embeds the seen users")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the users and pairs of planted graphs")
    parser.add_argument("--threads", type=int, default=1, help="threads of each process")
    parser.add_argument("--fits", type=Path, help="directory to keep fitted embeddings in")
    parser.add_argument("--out", type=Path, default=RESULTS / f"{subject}.md", help="file of the table")
    return parser


def cells_of(wanted: argparse.Namespace, target: str, code: str) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Yield set, seed and result of each finished cell, seed by seed; a failed one is told and left out."""
    cells, fits = Cells(wanted.out.with_suffix(".jsonl")), fits_digest()
    for seed in range(wanted.seeds):
        for name in wanted.sets.split(","):
            what = {"name": name, "encoder": wanted.encoder, "seed": seed, "scale": wanted.scale}
            place = f"{name}-{wanted.encoder}-{seed}-{wanted.scale:g}-{fits}".replace(" ", "-")
            given = {**what, "kept": str(wanted.fits / place) if wanted.fits else None}
            cell = {**what, "code": [fits, code]}
            result = cells.compute(target, cell, given, threads=wanted.threads, timeout=None)
            print(what, result.get("error") or f"seen {result['seen']:.3f}", flush=True)
            if "error" not in result:
                yield name, seed, result


def main(arguments: Sequence[str] | None = None) -> None:
    wanted = options(__doc__, "adapt_accuracy", present()).parse_args(arguments)
    found: dict[str, dict[int, dict[str, Any]]] = {name: {} for name in wanted.sets.split(",")}
    command = " ".join(["python -m benchmarks.adapt_accuracy", *(sys.argv[1:] if arguments is None else arguments)])
    code = code_digest("copl/adapt")
    for name, seed, result in cells_of(wanted, "benchmarks.adapt_accuracy:measure_cell", code):
        found[name][seed] = result
        if not all(found.values()):
            continue
        facts = [
            f"encoder `{wanted.encoder}`; seeds 0 to {wanted.seeds - 1}, each with its own split, fit and unseen users",
            "± is the half width of a 95 % interval over seeds (Student's t)",
            f"planted graphs of {10_000 * wanted.scale:,.0f} seen users; of real sets a fifth of the users is unseen",
        ]
        head = ["# Accuracy of newcomers", "", *provenance(command, threads=wanted.threads, facts=facts)]
        write_text(wanted.out, "\n".join([*head, *report(found), ""]))


if __name__ == "__main__":
    main()
