"""Files of our own, damaged in every way, by each command that reads them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Refused = Callable[..., str]


def flipped(whole: bytes, place: int) -> bytes:
    return whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "cut": lambda whole: whole[: len(whole) // 2],
    "flipped": lambda whole: (
        whole[: len(whole) // 2] + bytes([whole[len(whole) // 2] ^ 1]) + whole[len(whole) // 2 + 1 :]
    ),
    "noise": lambda _: bytes(range(256)) * 4,
    "null": lambda _: b"null",
    "list": lambda _: b"[[]]",
    "text": lambda _: b'"text"',
    "number": lambda _: b"9" * 6000,
    "deep": lambda _: b"[" * 90_000,
    "not-utf-8": lambda _: b'{"\xff": 1}',
}
JSON_ALONE = ("null", "list", "text", "number", "deep", "not-utf-8")
ROWS = '{"user_id": "u", "prompt": "p", "response": "r"}\n'


def score(root: Path) -> list[object]:
    (root / "rows.jsonl").write_text(ROWS)
    return ["score", root / "run", root / "rows.jsonl", "--out", root / "scores.jsonl", "--average-unknown"]


def adapt(root: Path) -> list[object]:
    (root / "said.jsonl").write_text('{"user_id": "u", "prompt": "p", "chosen": "r", "rejected": "s"}\n')
    return ["adapt", root / "run", root / "said.jsonl", "--out", root / "adapted.safetensors"]


def report(root: Path) -> list[object]:
    return ["report", root / "run"]


def resume(root: Path) -> list[object]:
    return ["train", root / "data", "--out", root / "run", "--resume", "--no-cache"]


def describe(root: Path) -> list[object]:
    return ["data", "describe", root / "data"]


def train(root: Path) -> list[object]:
    return ["train", root / "data", "--out", root / "new", "--method", "graph", "--encoder", "none", "--no-cache"]


def forget(root: Path) -> list[object]:
    return ["data", "forget", root / "data", "--user", "u", "--out", root / "new"]


OF_RUN = {"run.json": [score, adapt, report], "config.toml": [score, adapt, report], "metrics.json": [report],
          "graph/stage.json": [score, adapt, resume],
          "graph/nodes.json": [score], "graph/embeddings.safetensors": [score, adapt],
          "graph/gate_view.safetensors": [score], "evaluation/stage.json": [report],
          "evaluation/margins.safetensors": [report], "evaluation/diagnostics.json": [report],
          "evaluation/diagnostics.safetensors": [report]}  # fmt: skip
OF_DATA = {"dataset.json": [describe, train], "comparisons.parquet": [describe, forget],
           "responses.parquet": [describe],
                      "users.parquet": [describe, train]}  # fmt: skip
FILES = [(f"run/{name}", command) for name, commands in OF_RUN.items() for command in commands]
FILES += [(f"data/{name}", command) for name, commands in OF_DATA.items() for command in commands]
CASES = [
    (path, kind, command)
    for path, command in FILES
    for kind in DAMAGE
    if path.endswith(".json") or kind not in JSON_ALONE
    if not (path.endswith("config.toml") and kind in ("flipped", "cut", "empty"))  # may be a recipe all the same
    if not (
        path.endswith(("metrics.json", "dataset.json", "run.json")) and kind == "flipped"
    )  # a digit, a word, a version
]


@pytest.mark.parametrize(
    ("path", "kind", "command"), CASES, ids=[f"{c.__name__}-{p.replace('/', '.')}-{k}" for p, k, c in CASES]
)
def test_a_damaged_file_is_named_and_nothing_is_written(
    refused: Refused, workplace: Path, path: str, kind: str, command: Callable[[Path], list[object]]
) -> None:
    file = workplace / path
    file.write_bytes(DAMAGE[kind](file.read_bytes()))
    assert file.name in refused(*command(workplace)) or kind == "flipped"


@pytest.mark.parametrize(("path", "command"), FILES, ids=[f"{c.__name__}-{p.replace('/', '.')}" for p, c in FILES])
def test_a_missing_file_is_named(
    refused: Refused, workplace: Path, path: str, command: Callable[[Path], list[object]]
) -> None:
    (workplace / path).unlink()
    refused(*command(workplace))


@pytest.mark.parametrize(("path", "command"), FILES, ids=[f"{c.__name__}-{p.replace('/', '.')}" for p, c in FILES])
def test_a_directory_in_place_of_a_file(
    refused: Refused, workplace: Path, path: str, command: Callable[[Path], list[object]]
) -> None:
    (workplace / path).unlink()
    (workplace / path).mkdir()
    refused(*command(workplace))


WRONG = {"table": {"a": [{}]}, "list": [[None]], "number": 10**30, "text": "\x1b[31m" * 500}


@pytest.mark.parametrize("wrong", list(WRONG.values()), ids=list(WRONG))
@pytest.mark.parametrize("key", ["format", "files", "counts", "source", "seed", "name", "copl"])
def test_a_wrong_value_in_dataset_json_ends_in_a_line_or_is_none_of_our_business(
    workplace: Path, run_copl: Callable[..., tuple[int, str, str]], key: str, wrong: Any
) -> None:
    path = workplace / "data" / "dataset.json"
    document = json.loads(path.read_bytes())
    document[key] = wrong
    path.write_text(json.dumps(document))
    code, out, err = run_copl(*describe(workplace))
    assert code in (0, 2), err
    assert "Traceback" not in out + err
    assert "\x1b[31m" not in out + err
    if code == 2:
        assert all(line.startswith("copl: ") for line in err.splitlines()), err
