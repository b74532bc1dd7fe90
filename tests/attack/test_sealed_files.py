"""Any file of a stage made another, its checksums made to fit: a line, or numbers that are some, and no traceback."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from attrs import evolve
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from copl.runs.stages import read_stage
from copl.system.documents import write_document
from copl.system.files import sha256
from tests.attack.test_every_key import OTHERS, changed, places

RunCopl = Callable[..., tuple[int, str, str]]

SCORED = ("graph/embeddings.safetensors", "graph/nodes.json", "graph/gate_view.safetensors")
REPORTED = ("evaluation/margins.safetensors", "evaluation/average.safetensors", "evaluation/diagnostics.safetensors",
            "evaluation/diagnostics.json", "evaluation/reasons.json")  # fmt: skip
NUM_CASES = 5
"""Changes of each file."""

TENSORS: dict[str, Callable[[Tensor], Tensor]] = {
    "not finite": lambda tensor: torch.full(tensor.shape, float("nan")),
    "flat": lambda tensor: tensor.reshape(-1) if tensor.dim() > 1 else tensor.reshape(1, -1),
    "no dimension": lambda tensor: torch.zeros((), dtype=tensor.dtype),
    "one fewer": lambda tensor: tensor[:-1],
    "one more": lambda tensor: torch.cat([tensor, tensor[:1]]),
    "narrower": lambda tensor: tensor[..., :-1],
    "none": lambda tensor: tensor[:0],
    "of another type": lambda tensor: tensor.to(torch.int64) if tensor.is_floating_point() else tensor.float(),
    "complex": lambda tensor: torch.complex(tensor.float(), tensor.float()),
    "huge": lambda tensor: torch.full_like(tensor, 3e38) if tensor.is_floating_point() else tensor,
}


def change_tensors(path: Path, draw: random.Random) -> str:
    with safe_open(path, "pt") as file:
        tensors, header = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    name, kind = draw.choice(sorted(tensors)), draw.choice([*TENSORS, "gone", "renamed", "added", "without its header"])
    if kind in TENSORS:
        tensors[name] = TENSORS[kind](tensors[name]).contiguous()
    elif kind == "added":
        tensors["more"] = torch.zeros(2)
    elif kind == "without its header":
        header = None
    else:
        tensor = tensors.pop(name)
        tensors |= {f"{name}x": tensor} if kind == "renamed" else {}
    save_file(tensors, path, metadata=header)
    return f"{name} {kind}"


def change_json(path: Path, draw: random.Random) -> str:
    whole = json.loads(path.read_bytes())
    other, place = draw.choice(OTHERS), draw.choice([*places(whole), ()])
    path.write_text(json.dumps(changed(whole, place, other) if place else other))
    return f"{place} {other!r}"


def seal(stage: Path) -> None:
    """Make the checksums of a stage those of the files that are there."""
    said = read_stage(stage)
    write_document(
        stage / "stage.json", evolve(said, files={name: sha256(stage / name) for name in said.files}).sealed()
    )


def rewards(path: Path) -> list[Any]:
    return [json.loads(line)["reward"] for line in path.read_text().splitlines()]


@pytest.mark.parametrize("name", [*SCORED, *REPORTED])
def test_a_forged_file_ends_in_a_line_or_in_numbers(workplace: Path, run_copl: RunCopl, name: str) -> None:
    users = json.loads((workplace / "run" / "graph" / "nodes.json").read_text())["users"]
    rows = [{"user_id": user, "prompt": "How do I boil an egg?", "response": "Eight minutes."} for user in users[:2]]
    (workplace / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    scores = workplace / "scores.jsonl"
    words: tuple[object, ...] = ("report", workplace / "run")
    if name in SCORED:
        words = ("score", workplace / "run", workplace / "rows.jsonl", "--out", scores, "--average-unknown")
    file, draw = workplace / "run" / name, random.Random(name)
    whole = file.read_bytes()
    for _ in range(NUM_CASES):
        file.write_bytes(whole)
        what = (change_json if file.suffix == ".json" else change_tensors)(file, draw)
        seal(file.parent)
        code, out, err = run_copl(*words)
        where = f"{name} {what}: {err}"
        assert "Traceback" not in out + err, where
        assert code in (0, 2), where
        if code == 2:
            assert all(line.startswith("copl: ") and line.isprintable() for line in err.splitlines()), where
        elif name in SCORED:
            assert all(abs(reward) < float("inf") for reward in rewards(scores)), where
