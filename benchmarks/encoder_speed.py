"""How much faster the default encoder is than the published recipe: to the same accuracy, and in one step.

    python -m benchmarks.encoder_speed

**To the same accuracy.** On the first planted case, the whole fit of the default encoder against the published recipe
(``gcf`` with preset ``paper``) until its best epoch, fits of the default before and after it. The published recipe runs
on our layers and computes what reaches each batch alone, about twice as fast as the whole graph for every batch, as
published; it keeps its schedule and stops after two epochs without a lower validation loss.

**One step.** Forward, backward and update for 1,024 comparisons at D = 512 and four layers in single precision, without
edge dropout: as the released code does it, over the whole graph with sparse matrices transposed anew for every product,
against our layers, which compute what reaches the batch and keep the transposes. Both have the same weights, and their
losses and gradients are compared first. Steps alternate.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import attrs
import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.encoders import Entrant, entrant
from benchmarks.measured import RESULTS, Cells, code_digest, markdown_table, measure, provenance
from benchmarks.planted_cases import CASES, accuracies, data_of, options_of
from copl.graph.build import build_graph
from copl.options import options_to_dict
from copl.plugins import load
from copl.runs import recipe
from copl.system.files import write_text
from copl.system.progress import SilentProgress

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from torch import Tensor

    from copl.graph.messages.hops import SignEdges
    from copl.interfaces import Task
    from copl.records import PreferenceGraph

MAX_SHARE, MIN_SPEEDUP, MAX_FIT_S = 1 / 20, 2.0, 60.0
"""What the default may take of the published recipe's time, how much faster a step is to be, and how long a fit."""

_PUBLISHED = "gcf:paper"


@final
class _Timed:
    """Progress that keeps the time and the values of each record of the log."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._inner = SilentProgress()
        self.records: list[dict[str, Any]] = []

    def task(self, name: str, total: int | None = None) -> AbstractContextManager[Task]:
        return self._inner.task(name, total)

    def log(self, stage: str, **values: float | int | str) -> None:
        self.records.append({"elapsed_s": time.perf_counter() - self._start, **values})


def fit_cell(
    options: dict[str, float], seed: int, encoder: str, encoder_options: dict[str, Any], run: int
) -> dict[str, Any]:
    """Fit one encoder; return its accuracy, its time, and the time of the epoch with the lowest validation loss."""
    data = data_of(options, seed)
    graph = build_graph(data)
    built = load().registry("encoder").create(encoder, encoder_options)
    progress = _Timed()
    with measure() as usage:
        embeddings = built.fit(graph, seed=seed, progress=progress)
    epochs = [record for record in progress.records if "validation_loss" in record and "epoch" in record]
    best = min(epochs, key=lambda record: float(record["validation_loss"]), default=None)
    return {
        **accuracies(embeddings, data),
        **attrs.asdict(usage),
        "epochs": len(epochs),
        "best_epoch": best["epoch"] if best else None,
        "best_s": best["elapsed_s"] if best else usage.wall_s,
        "curve": curve_of(progress.records),
    }


def curve_of(records: Sequence[Mapping[str, Any]]) -> list[tuple[float, float]]:
    """Return the seconds and the accuracy of each record of the log that has a higher one than all before."""
    curve: list[tuple[float, float]] = []
    for record in records:
        accuracy = max((float(value) for key, value in record.items() if key.endswith("accuracy")), default=0.0)
        if accuracy > (curve[-1][1] if curve else 0.0):
            curve.append((float(record["elapsed_s"]), accuracy))
    return curve


def seconds_to(fit: Mapping[str, Any], accuracy: float) -> float:
    """Return when a fit first had this accuracy on the validation comparisons; its end where its log does not say."""
    return min((seconds for seconds, reached in fit["curve"] if reached >= accuracy), default=float(fit["wall_s"]))


@final
class _Step:
    """One optimisation step in two ways, each with weights and an optimiser of its own, equal at the start."""

    def __init__(self, graph: PreferenceGraph, dim: int, num_layers: int) -> None:
        from copl.graph.encoders.catalogue import GcfOptions
        from copl.graph.encoders.gcf import GcfNetwork
        from copl.graph.messages.batches import ReceptiveFields
        from copl.graph.messages.message_graph import MessageGraph
        from copl.graph.messages.node_table import NodeTable
        from copl.graph.starts import random_tables

        options = GcfOptions(embedding_dim=dim, num_layers=num_layers, start="random", supervision_share=0.0)
        torch.manual_seed(0)
        self.table = NodeTable(*random_tables(graph, dim), None, bias=False)
        self.network = GcfNetwork(options)
        messages = MessageGraph(graph.comparisons, graph.num_users, graph.num_responses)
        self.train, self.num_users = messages.comparisons, graph.num_users
        self.batches = ReceptiveFields(messages, options)
        hop = messages.whole()
        self.matrices = [self._bipartite(edges, graph) for edges in (hop.chosen, hop.rejected)]
        self.parameters = [self.table.free, *self.network.parameters()]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-4)

    def _bipartite(self, edges: SignEdges, graph: PreferenceGraph) -> Tensor:
        """Return the block of users and responses [U, R] of the adjacency of all nodes."""
        target, source, value = edges.matrix.entries()
        to_users = target < self.num_users
        index = torch.stack([target[to_users], source[to_users] - self.num_users])
        size = graph.num_users, graph.num_responses
        return torch.sparse_coo_tensor(index, value[to_users], size, check_invariants=False).coalesce()

    def ours(self, rows: Tensor) -> Tensor:
        """Return the loss of some comparisons by our layers."""
        batch = self.batches.around(rows)
        embedded = self.network(self.table(batch.nodes), batch.hops)
        users, responses = embedded.split([batch.hops[-1].num_users, len(batch.judged)])
        return batch.comparisons.loss(batch.comparisons.margins(users, responses, self.table.effects(batch.judged)))

    def reference(self, rows: Tensor) -> Tensor:
        """Return the same by products with matrices transposed for each of them."""
        batch = self.train.take(rows)
        users, responses = torch.split(self.table.free, [self.num_users, len(self.table.free) - self.num_users])
        chosen, rejected = self.matrices
        layers: Any = self.network.layers
        for layer in layers:
            update = layer.of_users  # the released code has one set of weights for users and responses
            sums = (
                (users, torch.sparse.mm(chosen, responses), torch.sparse.mm(rejected, responses)),
                (
                    responses,
                    torch.sparse.mm(chosen.transpose(0, 1), users),
                    torch.sparse.mm(rejected.transpose(0, 1), users),
                ),
            )
            users, responses = (
                F.leaky_relu(
                    (liked + update.chosen_product(liked * own))
                    - (disliked + update.rejected_product(disliked * own))
                    + update.own(own),
                    0.2,
                )
                for own, liked, disliked in sums
            )
        user = users[batch.user]
        margins = (user * responses[batch.chosen]).sum(dim=1) - (user * responses[batch.rejected]).sum(dim=1)
        return F.softplus(-margins).mean()

    def gradients(self, loss: Callable[[Tensor], Tensor], rows: Tensor) -> tuple[float, list[Tensor]]:
        self.optimizer.zero_grad()
        value = loss(rows)
        torch.autograd.backward(value)
        return float(value.detach()), [p.grad.clone() for p in self.parameters if p.grad is not None]

    def update(self, loss: Callable[[Tensor], Tensor], rows: Tensor) -> tuple[float, float]:
        """Take a step; return its seconds by the clock and of the CPU."""
        wall, cpu = time.perf_counter(), time.process_time()
        self.optimizer.zero_grad()
        torch.autograd.backward(loss(rows))
        self.optimizer.step()
        return time.perf_counter() - wall, time.process_time() - cpu


def step_cell(options: dict[str, float], seed: int, dim: int, num_layers: int, num_steps: int) -> dict[str, Any]:
    """Time one step both ways, in turn, after checking that they are the same step."""
    step = _Step(build_graph(data_of(options, seed)), dim, num_layers)
    generator = torch.Generator().manual_seed(seed)

    def rows() -> Tensor:
        return torch.randperm(len(step.train), generator=generator)[:1024]

    first = rows()
    (one, ours), (other, theirs) = (step.gradients(loss, first) for loss in (step.ours, step.reference))
    apart = max(float((a - b).norm() / b.norm().clamp_min(1e-12)) for a, b in zip(ours, theirs, strict=True))
    if abs(one - other) > 1e-4 * abs(other) or apart > 1e-3:
        raise RuntimeError(f"not the same step: losses {one:.6f} and {other:.6f}, gradients {apart:.1e} apart")
    del ours, theirs
    times: dict[str, list[tuple[float, float]]] = {"ours": [], "reference": []}
    for place in range(num_steps + 1):
        batch = rows()
        for name, loss in (("ours", step.ours), ("reference", step.reference)):
            taken = step.update(loss, batch)
            if place:  # the first is the warm-up
                times[name].append(taken)
    medians = {name: np.median(values, axis=0).tolist() for name, values in times.items()}
    return {"steps": num_steps, "gradients_apart": apart, "wall_cpu_s": medians}


def report(
    fits: Mapping[str, Sequence[Mapping[str, Any]]],
    step: Mapping[str, Any],
    wanted: argparse.Namespace,
    changes: str,
    command: str,
) -> str:
    """Return the tables."""
    facts = [
        f"case 2x7, seed {wanted.seed} (single runs of the published recipe, {len(fits['default'])} of the default)",
        f"{10_000 * wanted.scale:,.0f} users in the fits, {10_000 * wanted.step_scale:,.0f} in the step",
        "each fit in a process of its own; time of the fit alone",
    ]
    facts += [f"`{_PUBLISHED}` with {changes}"] if changes else []
    lines = ["# Speed of the default encoder", "", *provenance(command, threads=wanted.threads, facts=facts), ""]
    lines += [
        f"The default is to reach the published recipe's best accuracy in {MAX_SHARE:.2f} of its time, with a fit that",
        f"takes {MAX_FIT_S:.0f} s at most; a step at equal arithmetic is to be {MIN_SPEEDUP:.0f} times as fast.",
        "",
        "## To the same accuracy",
        "",
        *_fits_section(fits["default"], fits["published"][0]),
        "",
        "## One step",
        "",
        *_step_section(step),
    ]
    return "\n".join(lines) + "\n"


def _fits_section(default: Sequence[Mapping[str, Any]], published: Mapping[str, Any]) -> list[str]:
    broken = [str(fit["error"]) for fit in (*default, published) if "error" in fit]
    if broken:
        return [f"Failed: {broken[0]}", ""]
    name = recipe.DEFAULTS["encoder"]
    own = float(np.median([seconds_to(fit, published["all"]) for fit in default]))
    until = f"epoch {published['best_epoch']} of {published['epochs']} run"
    rows = [
        [who, f"{fit['all']:.4f}", when, *(f"{seconds:.1f}" for seconds in (reached, fit["wall_s"], fit["cpu_s"]))]
        for who, when, fit, reached in (
            *((f"default (`{name}`)", "that accuracy", fit, seconds_to(fit, published["all"])) for fit in default),
            ("published recipe", until, published, published["best_s"]),
        )
    ]
    header = ["fit", "held-out accuracy", "until", "seconds until then", "seconds in all", "CPU seconds in all"]
    kept = "yes" if all(fit["all"] >= published["all"] for fit in default) else "no"
    whole = float(np.median([fit["wall_s"] for fit in default]))
    return [
        *markdown_table(header, rows),
        "",
        f"Share of the time: {own / published['best_s']:.3f} ({whole / published['best_s']:.3f} with all",
        f"that the default does after that); accuracy kept to the end: {kept}. Until then: when the log of",
        "the fit first shows that accuracy on the validation comparisons.",
    ]


def _step_section(step: Mapping[str, Any]) -> list[str]:
    if "error" in step:
        return [f"Failed: {step['error']}"]
    (wall, cpu), (wall_reference, cpu_reference) = (step["wall_cpu_s"][name] for name in ("ours", "reference"))
    rows = [
        ["as released", f"{wall_reference:.3f}", f"{cpu_reference:.3f}"],
        ["ours", f"{wall:.3f}", f"{cpu:.3f}"],
        ["times as fast", f"{wall_reference / wall:.2f}", f"{cpu_reference / cpu:.2f}"],
    ]
    return [
        *markdown_table(["step", "wall s", "CPU s"], rows),
        "",
        f"Medians of {step['steps']} steps each, in turn, after one each to warm up. The gradients of both",
        f"differ by {step['gradients_apart']:.0e} of their norm at most.",
    ]


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    summary = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.encoder_speed", description=summary)
    parser.add_argument("--set", action="append", default=[], metavar="K=V", help="an option of the published recipe")
    parser.add_argument("--runs", type=int, default=3, help="fits of the default")
    parser.add_argument("--steps", type=int, default=5, help="steps timed each way")
    parser.add_argument("--dim", type=int, default=512, help="embedding dimension of the step")
    parser.add_argument("--layers", type=int, default=4, help="layers of the step")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the users and pairs that are fitted")
    parser.add_argument("--step-scale", type=float, default=1.0, help="the same for the graph of the step")
    parser.add_argument("--seed", type=int, default=0, help="seed of the graph and of the fits")
    parser.add_argument("--threads", type=int, default=2, help="threads of each process")
    parser.add_argument("--timeout", type=float, help="seconds after which a fit is given up")
    parser.add_argument("--out", type=Path, default=RESULTS / "encoder_speed.md", help="file of the tables")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    wanted = _parse(arguments)
    changes = dict(text.split("=", 1) for text in wanted.set)
    entrants = {"default": entrant(recipe.DEFAULTS["encoder"], {}), "published": entrant(_PUBLISHED, changes)}
    graph = {"options": options_to_dict(options_of(CASES["2x7"], wanted.scale)), "seed": wanted.seed}
    cells = Cells(wanted.out.with_suffix(".jsonl"))
    code = code_digest("benchmarks/encoder_speed.py")

    def compute(target: str, arguments: Mapping[str, Any], digest: str) -> dict[str, Any]:
        cell = {"what": target, **arguments, "code": [digest, code], "threads": wanted.threads}
        place = f"benchmarks.encoder_speed:{target}"
        result = cells.compute(place, cell, arguments, threads=wanted.threads, timeout=wanted.timeout)
        print(f"{target}: {result}", file=sys.stderr, flush=True)
        return result

    def fit(one: Entrant, run: int) -> dict[str, Any]:
        work = {**graph, "encoder": one.encoder, "encoder_options": dict(one.options), "run": run}
        return compute("fit_cell", work, one.code)

    fits: dict[str, list[dict[str, Any]]] = {"default": [fit(entrants["default"], 0)]}
    fits["published"] = [fit(entrants["published"], 0)]
    fits["default"] += [fit(entrants["default"], run) for run in range(1, wanted.runs)]
    sizes = {"dim": wanted.dim, "num_layers": wanted.layers, "num_steps": wanted.steps}
    stepped = {**graph, "options": options_to_dict(options_of(CASES["2x7"], wanted.step_scale))}
    step = compute("step_cell", {**stepped, **sizes}, code_digest("copl/graph"))
    changed = {"patience": "2", **changes}
    command = " ".join(["python -m benchmarks.encoder_speed", *(sys.argv[1:] if arguments is None else arguments)])
    shown = ", ".join(f"{key} = {value}" for key, value in changed.items())
    write_text(wanted.out, report(fits, step, wanted, shown, command))
    print(wanted.out)


if __name__ == "__main__":
    main()
