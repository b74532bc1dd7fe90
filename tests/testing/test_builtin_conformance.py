"""The conformance kit over every component of our own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import csv, parquet

from copl.data.dataset import save_dataset
from copl.plugins import KINDS, OWN_PACKAGE, Registered, load
from copl.records import PreferenceData
from copl.testing import check_component
from copl.testing.alignment import PROMPTS
from copl.testing.planted import planted_data
from copl.testing.tiny_model import write_tiny_model
from tests.data.published import PUBLISHED, write_copy

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
OWN = [(kind, found) for kind in KINDS for found in load().registry(kind) if found.package == OWN_PACKAGE]


def rows_of(data: PreferenceData) -> list[dict[str, Any]]:
    return [
        {
            "user_id": data.users.ids[user],
            "prompt": data.responses.prompts[chosen],
            "chosen": data.responses.texts[chosen],
            "rejected": data.responses.texts[rejected],
            "split": split,
        }
        for split, rows in data.splits.items()
        for user, chosen, rejected in zip(rows.user, rows.chosen, rows.rejected, strict=True)
    ]


def own_file(kind: str, directory: Path) -> Path:
    rows, path = rows_of(planted_data()), directory / f"rows.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        write = csv.write_csv if kind == "csv" else parquet.write_table
        write(pa.Table.from_pylist(rows), str(path))
    return path


QUICK: dict[str, dict[str, Any]] = {
    "gcf": {"start": "spectral", "num_epochs": 20},
    "stacked": {"members": "tastes,latent-groups"},
    **{name: {"num_epochs": 20} for name in ("lightgcn", "ngcf", "signed-gcn", "gat")},
}
"""What encoders promise, they promise after a few steps as well."""


def values_for(kind: str, name: str, directory: Path) -> dict[str, Any]:
    """Return values for the options a component requires, and for those that make it quick."""
    if kind == "encoder":
        return QUICK.get(name, {})
    if kind == "source" and name in {"jsonl", "csv", "parquet"}:
        return {"path": str(own_file(name, directory))}
    shared = {"polis": SHARED / "polis" / "american-assembly.bowling-green", "llmfao": SHARED / "llmfao"}
    if kind == "source" and name in shared:
        if not shared[name].exists():
            pytest.skip(f"{shared[name]} is not here")
        return {"path": str(shared[name])}
    if kind == "source" and name in PUBLISHED:
        return write_copy(name, directory)
    if (kind, name) == ("source", "subset"):
        save_dataset(planted_data(), directory / "whole")
        return {"path": str(directory / "whole"), "train_per_user": 4, "support": 2}
    if (kind, name) == ("generator", "table"):
        lines = [json.dumps({"prompt": prompt, "candidates": ["yes", "no", "perhaps"]}) for prompt in PROMPTS]
        (directory / "candidates.jsonl").write_text("\n".join(lines), encoding="utf-8")
        return {"path": str(directory / "candidates.jsonl")}
    if (kind, name) == ("generator", "local"):
        return {"model": str(write_tiny_model(directory / "model", ["a brief answer", *PROMPTS])), "max_tokens": 8}
    if (kind, name) == ("generator", "openai"):  # nobody answers there
        return {"model": "m", "base_url": "http://127.0.0.1:9/v1", "retries": 0}
    if (kind, name) == ("backbone", "hf"):
        return {"path": str(write_tiny_model(directory / "model", ["a brief answer"]))}
    return {}


def case(kind: str, found: Registered) -> Any:
    packaged = kind == "backbone" and found.component.name != "hf"
    marks = [pytest.mark.slow, pytest.mark.weights] if packaged else []
    return pytest.param(kind, found, id=f"{kind}-{found.component.name}", marks=marks)


@pytest.mark.parametrize(("kind", "found"), [case(kind, found) for kind, found in OWN])
def test_a_component_of_our_own_keeps_its_contract(kind: str, found: Registered, tmp_path: Path) -> None:
    results = check_component(found, kind, values_for(kind, found.component.name, tmp_path))
    assert {result.name: result.detail for result in results if not result.passed} == {}


def test_an_encoder_whose_members_read_no_texts_keeps_the_contract() -> None:
    found = load().registry("encoder").get("stacked")
    results = check_component(found, "encoder", {"members": "latent-groups"})
    assert {result.name: result.detail for result in results if not result.passed} == {}
