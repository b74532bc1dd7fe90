"""Time and memory of an encoder as the graph grows.

    python -m benchmarks.encoder_scale

makes planted graphs of 10 thousand, 100 thousand and a million users, 16 training comparisons each, over twice as many
responses, and fits the default encoder on each in a process of its own; ``--encoder mf`` takes another,
``--sizes 10000,100000`` leaves the largest out. Finished sizes are kept beside the table (``.jsonl``) and skipped.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from benchmarks.encoders import Entrant, entrant
from benchmarks.limits import answers, consensus, share_right
from benchmarks.measured import RESULTS, Cells, code_digest, markdown_table, measure, provenance
from benchmarks.planted_cases import accuracies, data_of
from copl.data.sources.planted import PlantedOptions
from copl.errors import CoplError
from copl.options import options_to_dict
from copl.plugins import load
from copl.runs import recipe
from copl.system.files import write_text

SIZES = (10_000, 100_000, 1_000_000)

MAX_GIB, MAX_MINUTES = 16, 60
"""What the largest size may take."""


def graph_of(num_users: int) -> dict[str, Any]:
    """Return the options of the planted graph of this size: every response belongs to a pair that is trained on."""
    options = PlantedOptions(
        num_seen_users=num_users,
        num_pairs=num_users,
        num_groups=4,
        num_train=16,
        num_test=2,
        cold_share=0.0,
    )
    return options_to_dict(options)


def size_cell(options: dict[str, float], seed: int, encoder: str, encoder_options: dict[str, Any]) -> dict[str, Any]:
    """Make one graph and fit one encoder on it; return accuracies, and time and memory of each step."""
    from copl.graph.build import build_graph
    from copl.system.progress import SilentProgress

    with measure() as making:
        data = data_of(options, seed)
    with measure() as building:
        graph = build_graph(data)
    built = load().registry("encoder").create(encoder, encoder_options)
    with measure() as fitting:
        embeddings = built.fit(graph, seed=seed, progress=SilentProgress())
    parts, num_pairs = answers(data, ("train", "test"))
    known = consensus(parts["train"], parts["test"], num_pairs)
    return {
        **accuracies(embeddings, data),
        "consensus": share_right(known, parts["test"].won),
        "making": attrs.asdict(making),
        "building": attrs.asdict(building),
        "fitting": attrs.asdict(fitting),
    }


def growth(before: Mapping[str, Any], after: Mapping[str, Any], factor: float, field: str) -> str:
    """Return the exponent of growth between two sizes: 1 is linear."""
    small, large = before["fitting"][field], after["fitting"][field]
    if field == "peak_mib":  # what the graph adds, not what torch and its libraries take
        small, large = (cell["fitting"][field] - cell["making"]["start_mib"] for cell in (before, after))
    return f"{math.log(large / small) / math.log(factor):.2f}" if small > 0 and large > 0 else "-"


def report(one: Entrant, found: Mapping[int, Mapping[str, Any]], command: str, *, threads: int, seed: int) -> str:
    """Return the table."""
    default = " (the default)" if one.encoder == recipe.DEFAULTS["encoder"] else ""
    facts = [
        f"seed {seed} (single runs)",
        f"encoder `{one.name}`{default}: {', '.join(f'{k} = {v}' for k, v in one.options.items())}",
        "peak: highest resident memory of the whole process while the encoder was fitted, the data set included",
        "growth: exponent of CPU time and of memory from the size before; 1 is linear",
    ]
    lines = ["# An encoder as the graph grows", "", *provenance(command, threads=threads, facts=facts), ""]
    lines += [f"A million users are to fit within {MAX_GIB} GiB and {MAX_MINUTES} minutes on two cores.", ""]
    header = ["users", "responses", "comparisons", "data s", "graph s", "fit s", "fit CPU s", "peak GiB"]
    header += ["growth of time", "growth of memory", "accuracy", "consensus"]
    rows = []
    done: list[int] = []
    for size, cell in found.items():
        counts = [f"{size:,}", f"{2 * size:,}", f"{16 * size:,}"]
        if "error" in cell:
            rows.append([*counts, str(cell["error"]), *[""] * 8])
            continue
        fit = cell["fitting"]
        growths = (
            [growth(found[done[-1]], cell, size / done[-1], f) for f in ("cpu_s", "peak_mib")] if done else ["", ""]
        )
        seconds = [f"{cell[step]['wall_s']:.1f}" for step in ("making", "building", "fitting")]
        costs = [*seconds, f"{fit['cpu_s']:.1f}", f"{fit['peak_mib'] / 1024:.2f}"]
        rows.append([*counts, *costs, *growths, f"{cell['all']:.4f}", f"{cell['consensus']:.4f}"])
        done.append(size)
    return "\n".join([*lines, *markdown_table(header, rows)]) + "\n"


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    summary = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.encoder_scale", description=summary)
    parser.add_argument("--encoder", default=recipe.DEFAULTS["encoder"], help="encoder, or encoder:preset")
    parser.add_argument("--set", action="append", default=[], metavar="K=V", help="an option of the encoder")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="numbers of users")
    parser.add_argument("--seed", type=int, default=0, help="seed of the graph and of the fit")
    parser.add_argument("--threads", type=int, default=2, help="threads of each fit")
    parser.add_argument("--timeout", type=float, help="seconds after which a size is given up")
    parser.add_argument("--out", type=Path, default=RESULTS / "encoder_scale.md", help="file of the table")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    wanted = _parse(arguments)
    try:
        one = entrant(wanted.encoder, {key: value for key, _, value in (text.partition("=") for text in wanted.set)})
    except CoplError as error:
        sys.exit("\n".join(error.faults))
    cells = Cells(wanted.out.with_suffix(".jsonl"))
    code = [one.code, code_digest("benchmarks/encoder_scale.py")]
    found = {}
    for size in map(int, wanted.sizes.split(",")):
        work = {
            "options": graph_of(size),
            "seed": wanted.seed,
            "encoder": one.encoder,
            "encoder_options": dict(one.options),
        }
        found[size] = cells.compute(
            "benchmarks.encoder_scale:size_cell",
            {"what": "size", **work, "code": code, "threads": wanted.threads},
            work,
            threads=wanted.threads,
            timeout=wanted.timeout,
        )
        print(f"{size:,} users: {found[size]}", file=sys.stderr, flush=True)
    command = " ".join(["python -m benchmarks.encoder_scale", *(sys.argv[1:] if arguments is None else arguments)])
    write_text(wanted.out, report(one, found, command, threads=wanted.threads, seed=wanted.seed))
    print(wanted.out)


if __name__ == "__main__":
    main()
