"""Time and memory of the default encoder on a log of conversations, where nobody judges a text of somebody else.

    python -m benchmarks.text_scale

makes logs of 10 thousand and of 100 thousand users with five comparisons each, four to train and one to validate, all
of texts of their own: a hundred thousand and a million texts. Their features are made up, as wide as those of the
demo's backbone; a few directions of them are what tastes are about. The encoder is fitted in a process of its own, and
then judges comparisons of texts it has never met. Finished sizes are kept beside the table (``.jsonl``) and skipped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch

from benchmarks.encoders import Entrant, entrant
from benchmarks.measured import RESULTS, Cells, code_digest, markdown_table, measure, provenance
from copl.plugins import load
from copl.records import Comparisons, FloatArray, NodeEmbeddings, PreferenceGraph, response_key
from copl.runs import recipe
from copl.system.files import write_text

SIZES = (10_000, 100_000)
MAX_GIB, MAX_MINUTES = 8, 60
"""What the largest size may take."""

_EACH, _VALIDATE = 5, 1
"""Comparisons of each user, and how many of them validate."""
_WIDTH, _FACETS, _TASTES = 384, 48, 8
"""Features of a text, what texts differ in, and how much of that tastes are about."""
_ASKED = 20_000


class _Log:
    """Users and texts whose truth is known: features are facets, mixed, with noise; tastes weigh the first of them."""

    def __init__(self, num_users: int, seed: int) -> None:
        self._rng = np.random.default_rng([seed, num_users])
        self._mixing = self._rng.standard_normal((_FACETS, _WIDTH)).astype(np.float32) / _FACETS**0.5
        self.taste = self._rng.standard_normal((num_users, _TASTES)) * 1.5
        self.shared = self._rng.standard_normal(_TASTES) * 0.5

    def judged(self, users: Any) -> tuple[torch.Tensor, Any, FloatArray]:
        """Return features of two texts for each user [2n, F], whether the first was preferred [n], and true margins."""
        facets = self._rng.standard_normal((2 * len(users), _FACETS)).astype(np.float32)
        features = facets @ self._mixing
        features += 0.1 * self._rng.standard_normal(features.shape, dtype=np.float32)
        about = facets[:, :_TASTES]
        margins = ((self.taste[users] + self.shared) * (about[::2] - about[1::2])).sum(axis=1)
        first = self._rng.random(len(users)) < 1 / (1 + np.exp(-margins))
        return torch.from_numpy(features), first, margins


def _comparisons(users: Any, first: Any) -> Comparisons:
    rows = 2 * np.arange(len(users))
    return Comparisons(users, rows + ~first, rows + first)


def size_cell(num_users: int, seed: int, encoder: str, encoder_options: dict[str, Any]) -> dict[str, Any]:
    """Make one log and fit one encoder; return accuracies on new texts, and time and memory of each step."""
    from copl.system.progress import SilentProgress

    with measure() as making:
        log = _Log(num_users, seed)
        users = np.repeat(np.arange(num_users), _EACH)
        features, first, _ = log.judged(users)
        rows = _comparisons(users, first)
        held = np.arange(len(users)) % _EACH < _VALIDATE
        keys = tuple(response_key(f"prompt {row // 2}", f"text {row}") for row in range(len(features)))
        graph = PreferenceGraph(
            user_ids=tuple(f"user {row}" for row in range(num_users)),
            response_keys=keys,
            comparisons=rows.take(~held),
            validation=rows.take(held),
            response_features=features,
        )
    built = load().registry("encoder").create(encoder, encoder_options)
    with measure() as fitting:
        embeddings = built.fit(graph, seed=seed, progress=SilentProgress())
    asked = np.random.default_rng(seed).integers(num_users, size=_ASKED)
    features, _, truth = log.judged(asked)
    return {
        "personal": _right(embeddings, asked, features, truth),
        "average": _right(embeddings, None, features, truth),
        "making": attrs.asdict(making),
        "fitting": attrs.asdict(fitting),
    }


def _right(embeddings: NodeEmbeddings, users: Any, features: torch.Tensor, truth: FloatArray) -> float:
    """Return how often the better of two new texts is scored higher; `users` None asks the average user."""
    assert embeddings.text_map is not None
    table = embeddings.text_map(features)
    difference = table[::2] - table[1::2]
    told = embeddings.users.mean(dim=0, keepdim=True) if users is None else embeddings.users[torch.from_numpy(users)]
    margins = (told * difference[:, :-1]).sum(dim=1) + difference[:, -1]
    return float(np.mean((margins.numpy() > 0) == (truth > 0)))


def report(one: Entrant, cells: dict[int, Any], command: str, *, threads: int, seed: int) -> str:
    """Return the table."""
    default = " (the default)" if one.encoder == recipe.DEFAULTS["encoder"] else ""
    facts = [
        f"seed {seed} (single runs)",
        f"encoder `{one.name}`{default}: {', '.join(f'{k} = {v}' for k, v in one.options.items())}",
        f"{_EACH} comparisons a user, {_VALIDATE} of them to validate; features of {_WIDTH} numbers, float32, made up",
        "peak: highest resident memory of the whole process while the encoder was fitted, features included",
        f"accuracy: on {_ASKED:,} pairs of new texts, of which the truly better one counts; average user beside it",
    ]
    lines = ["# A log where no text is shared, as it grows", "", *provenance(command, threads=threads, facts=facts), ""]
    lines += [f"A million texts are to fit within {MAX_GIB} GiB and {MAX_MINUTES} minutes once they are read.", ""]
    header = ["users", "texts", "fit s", "fit CPU s", "peak GiB", "accuracy", "average user"]
    rows = []
    for size, cell in cells.items():
        counts = [f"{size:,}", f"{2 * _EACH * size:,}"]
        if "error" in cell:
            rows.append([*counts, str(cell["error"]), *[""] * 4])
            continue
        fit = cell["fitting"]
        costs = [f"{fit['wall_s']:.1f}", f"{fit['cpu_s']:.1f}", f"{fit['peak_mib'] / 1024:.2f}"]
        rows.append([*counts, *costs, f"{cell['personal']:.4f}", f"{cell['average']:.4f}"])
    return "\n".join([*lines, *markdown_table(header, rows)]) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.text_scale", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--encoder", default=recipe.DEFAULTS["encoder"], help="encoder, or encoder:preset")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="numbers of users")
    parser.add_argument("--seed", type=int, default=0, help="seed of the log and of the fit")
    parser.add_argument("--threads", type=int, default=1, help="threads of each fit")
    parser.add_argument("--out", type=Path, default=RESULTS / "text_scale.md", help="file of the table")
    wanted = parser.parse_args(arguments)
    one = entrant(wanted.encoder, {})
    kept = Cells(wanted.out.with_suffix(".jsonl"))
    code = [one.code, code_digest("benchmarks/text_scale.py", "copl/graph")]
    cells = {}
    for size in map(int, wanted.sizes.split(",")):
        options = dict(one.options)
        work = {"num_users": size, "seed": wanted.seed, "encoder": one.encoder, "encoder_options": options}
        cells[size] = kept.compute(
            "benchmarks.text_scale:size_cell",
            {"what": "texts", **work, "code": code, "threads": wanted.threads},
            work,
            threads=wanted.threads,
            timeout=None,
        )
        print(f"{size:,} users: {cells[size]}", file=sys.stderr, flush=True)
    command = " ".join(["python -m benchmarks.text_scale", *(sys.argv[1:] if arguments is None else arguments)])
    write_text(wanted.out, report(one, cells, command, threads=wanted.threads, seed=wanted.seed))
    print(wanted.out)


if __name__ == "__main__":
    main()
