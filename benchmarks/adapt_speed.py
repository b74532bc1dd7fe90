"""How long newcomers take: every strategy beside a dense two-hop with the users x users mask and the Python loop.

    python -m benchmarks.adapt_speed

Two cases: 1,000 newcomers with 8 comparisons each against 10,000 seen users, and one newcomer with 8 against 100,000.
Embeddings and comparisons are random; their values do not change the work. Times are medians of the runs after the
first, which alone condenses the seen users or puts histories together, and is shown beside.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.measured import RESULTS, markdown_table, provenance
from copl.plugins import load
from copl.records import Comparisons, ComparisonSet, NodeEmbeddings, ResponseTable, UserTable
from copl.system.files import write_text

DIM, NUM_PAIRS, PER_USER = 16, 27_000, 7
STRATEGIES = ("empirical", "posterior", "two-hop", "mean", "knn", "encode", "refit", "population")
DENSE = "dense two-hop"
_MOST_CELLS = 1 << 28


def draw(count: int, per_user: int, rng: np.random.Generator) -> Comparisons:
    pair, side = rng.integers(NUM_PAIRS, size=count * per_user), rng.integers(2, size=count * per_user)
    return Comparisons(np.repeat(np.arange(count), per_user), 2 * pair + side, 2 * pair + 1 - side)


def problem(num_newcomers: int, num_seen: int, per_newcomer: int, seed: int) -> tuple[ComparisonSet, NodeEmbeddings]:
    rng = np.random.default_rng(seed)
    responses = ResponseTable(
        [f"prompt {row // 2}" for row in range(2 * NUM_PAIRS)], [f"answer {row % 2}" for row in range(2 * NUM_PAIRS)]
    )
    generator = torch.Generator().manual_seed(seed)
    trained = NodeEmbeddings(
        tuple(f"seen-{row}" for row in range(num_seen)),
        responses.keys,
        torch.randn(num_seen, DIM, generator=generator),
        torch.randn(2 * NUM_PAIRS, DIM, generator=generator),
        torch.randn(2 * NUM_PAIRS, generator=generator),
        draw(num_seen, PER_USER, rng),
    )
    users = UserTable.ungrouped([f"new-{row}" for row in range(num_newcomers)])
    return ComparisonSet(users, responses, draw(num_newcomers, per_newcomer, rng)), trained


def dense_two_hop(support: ComparisonSet, trained: NodeEmbeddings, temperature: float = 0.07) -> torch.Tensor:
    """Return the adapted embeddings as the published formula is written down: dense masks, one newcomer at a time."""
    rows, seen = support.comparisons, trained.comparisons
    num_newcomers, num_seen = len(support.users), len(trained.user_ids)
    user = torch.from_numpy(np.concatenate([seen.user, num_seen + rows.user]))
    response = torch.from_numpy(np.concatenate([seen.chosen, rows.chosen]))
    shape = num_seen + num_newcomers, len(trained.response_keys)
    chosen = torch.sparse_coo_tensor(
        torch.stack([user, response]), torch.ones(len(user)), shape, check_invariants=False
    )
    with warnings.catch_warnings():  # the layout that the product goes through is called beta
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        mask = torch.sparse.mm(chosen, chosen.t()).to_dense() > 0  # users x users
    directions = torch.nn.functional.normalize(trained.users, dim=1)
    adapted = torch.zeros(num_newcomers, DIM)
    for newcomer in range(num_newcomers):
        near = torch.nonzero(mask[num_seen + newcomer, :num_seen])[:, 0]
        if not len(near):
            continue
        own = torch.from_numpy(np.flatnonzero(rows.user == newcomer))
        difference = (
            trained.responses[torch.from_numpy(rows.chosen)[own]]
            - (trained.responses[torch.from_numpy(rows.rejected)[own]])
        )
        agreement = torch.nn.functional.logsigmoid(directions[near] @ difference.T).mean(dim=1)
        adapted[newcomer] = (agreement / temperature).softmax(dim=0) @ trained.users[near]
    return adapted


def timed(run: Callable[[], object], repeats: int) -> tuple[float, float, float]:
    """Return the seconds of the first run, and the medians of wall clock and CPU seconds of the others."""
    start = time.perf_counter()
    run()
    first = time.perf_counter() - start
    wall, cpu = [], []
    for _ in range(repeats):
        begin = time.perf_counter(), time.process_time()
        run()
        wall.append(time.perf_counter() - begin[0])
        cpu.append(time.process_time() - begin[1])
    return first, float(np.median(wall)), float(np.median(cpu))


def time_one(
    name: str, support: ComparisonSet, trained: NodeEmbeddings, repeats: int
) -> tuple[float, float, float] | None:
    """Return the times of one strategy, None where the dense one needs too much memory."""
    if name != DENSE:
        strategy = load().registry("adapter").create(name)
        return timed(lambda: strategy.adapt(support, trained), repeats)
    if len(trained.user_ids) ** 2 > _MOST_CELLS:
        return None
    return timed(lambda: dense_two_hop(support, trained), min(repeats, 3))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.adapt_speed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--strategies", nargs="*", default=[*STRATEGIES, DENSE])
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the numbers of users")
    parser.add_argument("--out", type=Path, default=RESULTS / "adapt_speed.md", help="file of the table")
    wanted = parser.parse_args(arguments)
    torch.set_num_threads(wanted.threads)
    body = []
    cases = {
        "1,000 newcomers x 8, 10,000 seen users": (1000, 10_000),
        "1 newcomer x 8, 100,000 seen users": (1, 100_000),
    }
    for title, (num_newcomers, num_seen) in cases.items():
        support, trained = problem(
            max(round(num_newcomers * wanted.scale), 1), round(num_seen * wanted.scale), 8, seed=0
        )
        _ = trained.response_rows, support.responses.keys  # tables of ids, made once for a trained set
        rows = []
        for name in wanted.strategies:
            found = time_one(name, support, trained, wanted.repeats)
            cells = [f"{1e3 * seconds:,.1f}" for seconds in found] if found else ["", "", ""]
            rows.append([name, cells[1], cells[2], cells[0]])
            print(title, *rows[-1], flush=True)
        body += ["", f"## {title}", "", *markdown_table(["strategy", "wall, ms", "CPU, ms", "first, wall, ms"], rows)]
    facts = [
        f"data: random, {NUM_PAIRS:,} pairs, {PER_USER} training comparisons a seen user, D = {DIM}, seed 0",
        f"medians of {wanted.repeats} runs after the first (3 for the dense one); CPU seconds, of all threads, "
        "suffer least from other work on the machine",
        f"{DENSE} is left out where its mask of users x users has over {_MOST_CELLS:,} cells",
    ]
    command = " ".join(["python -m benchmarks.adapt_speed", *(sys.argv[1:] if arguments is None else arguments)])
    head = [
        "# Time to adapt",
        "",
        *provenance(command, threads=wanted.threads, facts=facts),
    ]
    write_text(wanted.out, "\n".join([*head, *body, ""]))


if __name__ == "__main__":
    main()
