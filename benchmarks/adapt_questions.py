"""Accuracy by number of questions: those of most expected information beside random ones, on planted graphs.

    python -m benchmarks.adapt_questions

Each unseen user answers 16 questions out of a pool of 300 trained pairs, chosen by `expected_information` or at random,
as the user's planted group answers. After each answer the user is placed by ``empirical`` and judged by held-out
comparisons on other pairs. ``--fits DIRECTORY`` keeps fitted embeddings, as in `benchmarks.adapt_accuracy`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import logsigmoid

from benchmarks.adapt_accuracy import cells_of, fit, interval, options
from benchmarks.adapt_data import PLANTED, correct, planted_options
from benchmarks.measured import code_digest, markdown_table, provenance
from copl.adapt.prior import prior_of
from copl.adapt.questions import expected_information
from copl.data.sources.planted import generate
from copl.system.files import write_text

NUM_QUESTIONS, POOL, NUM_POINTS = 16, 300, 256
ASKED = ("informative", "random")


def measure_cell(name: str, encoder: str, seed: int, scale: float, kept: str | None = None) -> dict[str, Any]:
    """Return the accuracy after 0, 1, ... questions, by how they are chosen, and that of the seen users."""
    data, truth = generate(planted_options(name, scale), seed)
    trained = fit(data, encoder, seed, Path(kept) if kept else None)
    heldout, test = data.split("heldout"), data.split("test")
    newcomers = np.unique(heldout.comparisons.user)
    place = np.full(len(data.users), -1)
    place[newcomers] = np.arange(len(newcomers))
    of_pair = torch.from_numpy(place[heldout.comparisons.user])

    rng = np.random.default_rng(seed)
    rows = np.array([trained.response_rows.get(key, -1) for key in data.responses.keys])
    known = np.flatnonzero((rows[truth.first] >= 0) & (rows[truth.second] >= 0))
    pool = rng.choice(known, min(POOL, len(known)), replace=False)
    first, second = (torch.from_numpy(rows[side[pool]]) for side in (truth.first, truth.second))
    answers = torch.from_numpy(
        truth.labels[pool][:, truth.user_groups[newcomers]].T.copy()
    )  # prefers the first? [n, Q]
    taken = torch.zeros(len(newcomers), len(pool), dtype=torch.bool)  # pairs that the user is judged by are never asked
    number = np.full(len(truth.labels), -1)
    number[pool] = np.arange(len(pool))
    judged = number[np.minimum(heldout.comparisons.chosen, heldout.comparisons.rejected) // 2]
    taken[of_pair[judged >= 0], torch.from_numpy(judged[judged >= 0])] = True

    prior = prior_of(trained, NUM_POINTS)
    responses, bias = trained.responses.double(), trained.response_bias.double()
    margins = prior.points @ (responses[first] - responses[second]).T + bias[first] - bias[second]  # [K, Q]
    sure = torch.zeros(margins.shape[1], dtype=torch.float64)  # these encoders leave no tastes in texts
    found: dict[str, Any] = {}
    seen = trained.users[torch.tensor([trained.user_rows[test.users.ids[u]] for u in test.comparisons.user.tolist()])]
    found["seen"] = float(correct(test, seen, trained).mean())
    for how in ASKED:
        evidence = torch.zeros(len(newcomers), len(prior), dtype=torch.float64)
        asked, curve = taken.clone(), []
        for _ in range(NUM_QUESTIONS + 1):
            shares = prior.shares(evidence)
            curve.append(float(correct(heldout, prior.mean(shares).float()[of_pair], trained).mean()))
            worth = (
                expected_information(shares, margins, sure)
                if how == "informative"
                else torch.from_numpy(rng.random((len(newcomers), len(pool))))
            )
            question = worth.masked_fill(asked, -1.0).argmax(dim=1)
            asked[torch.arange(len(newcomers)), question] = True
            sign = torch.where(answers[torch.arange(len(newcomers)), question], 1.0, -1.0)
            evidence = evidence + logsigmoid(sign[:, None] * margins.T[question])
        found[how] = curve
    return found


def needed(curve: list[float], accuracy: float) -> float:
    """Return after how many questions a curve reaches an accuracy, by linear interpolation; infinite if never."""
    best = np.maximum.accumulate(curve)
    if best[-1] < accuracy:
        return float("inf")
    after = int(np.argmax(best >= accuracy))
    if after == 0:
        return 0.0
    return after - 1 + float((accuracy - best[after - 1]) / (best[after] - best[after - 1]))


def report(name: str, results: Sequence[dict[str, Any]]) -> list[str]:
    """Return the tables of one set."""
    shown = (0, 1, 2, 3, 4, 6, 8, 12, 16)
    curves = [[how, *(interval([r[how][n] for r in results]) for n in shown)] for how in ASKED]
    means = {how: [float(np.mean([r[how][n] for r in results])) for n in range(NUM_QUESTIONS + 1)] for how in ASKED}
    saved = [[str(n), f"{needed(means['informative'], means['random'][n]):.1f}"] for n in (2, 4, 8, 16)]
    lines = ["", f"## {name}", "", f"Seen users: {interval([r['seen'] for r in results])}.", ""]
    lines += markdown_table(["questions", *map(str, shown)], curves)
    return [*lines, "", *markdown_table(["random questions", "informative ones to the same accuracy"], saved)]


def main(arguments: Sequence[str] | None = None) -> None:
    wanted = options(__doc__, "adapt_questions", list(PLANTED)).parse_args(arguments)
    command = " ".join(["python -m benchmarks.adapt_questions", *(sys.argv[1:] if arguments is None else arguments)])
    code = code_digest("copl/adapt") + code_digest("benchmarks/adapt_questions.py")
    found: dict[str, list[dict[str, Any]]] = {}
    for name, _, result in cells_of(wanted, "benchmarks.adapt_questions:measure_cell", code):
        found.setdefault(name, []).append(result)
        facts = [
            f"encoder `{wanted.encoder}`, seeds 0 to {wanted.seeds - 1}, {1_000 * wanted.scale:,.0f} unseen users each",
            f"a pool of {POOL} trained pairs; ± is the half width of a 95 % interval over seeds (Student's t)",
        ]
        head = ["# Accuracy by number of questions", "", *provenance(command, threads=wanted.threads, facts=facts)]
        body = [line for each, results in found.items() for line in report(each, results)]
        write_text(wanted.out, "\n".join([*head, *body, ""]))


if __name__ == "__main__":
    main()
