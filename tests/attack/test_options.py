"""Options and paths that make no sense, by every command."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

Refused = Callable[..., str]

HUGE = str(10**25)
VALUES = {
    "train DATA --out new": [
        ["--seed", "-1"], ["--seed", HUGE], ["--seed", "x"], ["--seed", "1.5"], ["--method", "gcf"], ["--method", ""],
        ["--encoder", "mff"], ["--encoder", "\n"], ["--gate", "top1", "--method", "graph"], ["--set", "encoder"],
        ["--set", "encoder.="], ["--set", "=3"], ["--set", "encoder.nothing=3"], ["--set", "nothing.key=3"],
        ["--set", f"encoder.embedding_dim={HUGE}", "--encoder", "mf"], ["--set", "encoder.embedding_dim=-1"],
        ["--set", "encoder.embedding_dim=nan"], ["--set", "encoder.embedding_dim=1e3"],
        ["--set", "encoder.precision=inf", "--encoder", "mf"], ["--set", "encoder.precision=nan", "--encoder", "mf"],
        ["--set", "encoder.learning_rate=-1", "--encoder", "mf"], ["--set", "encoder.learning_rate=1e400"],
        ["--set", "encoder.preset=papier"], ["--set", "method.preset=papier"], ["--set", "encoder.name=\x00"],
        ["--set", f"encoder.num_steps={HUGE}", "--encoder", "mf"], ["--config", "absent.toml"], ["--config", "."],
        ["--backbone", "./nowhere"], ["--backbone", "a/b/c/d"], ["--backbone", ""], ["--resume", "--seed", "1"],
        ["--adapter", "mean", "--set", "adapter.x=1"], ["--unknown"],
    ],
    "config show": [
        ["--seed", "-1"], ["--set", "reward.max_steps=-1"], ["--set", "reward.max_steps=ten"],
        ["--set", "reward.learning_rate=nan"], ["--set", "mixture.expert_rank=0"], ["--set", "mixture.dropout=1"],
        ["--set", "mixture.target_modules="], ["--set", "mixture.layers=-1"], ["--set", "gate.num_experts=0"],
        ["--set", f"gate.num_experts={HUGE}"], ["--method", "cople"], ["--set", "mixture.gates=three"],
        ["--set", "reward.max_step=3"], ["--config", "absent.toml"],
    ],
    "data make planted --out new": [
        ["--seed", "-1"], ["--seed", HUGE], ["--set", "num_seen_users=-1"], ["--set", f"num_seen_users={HUGE}"],
        ["--set", "num_seen_users=x"], ["--set", "nothing=1"], ["--set", "num_seen_users"], ["--set", "=1"],
    ],
    "data make jsonl --out new": [
        [], ["--set", "path=absent.jsonl"], ["--set", "path=."], ["--set", "path="], ["--set", "path=a\nb.jsonl"],
        ["--set", "path=/dev/null"], ["--set", "path=/dev/zero"], ["--set", "path=absent", "--set", "support=-1"],
        ["--set", f"support={HUGE}", "--set", "path=absent"], ["--set", "columns=user_id", "--set", "path=absent"],
        ["--set", "strategy=fair", "--set", "path=absent"], ["--set", "test_fraction=2", "--set", "path=absent"],
        ["--set", "test_fraction=nan", "--set", "path=absent"],
    ],
    "data make nothing --out new": [[]],
    "data make facets --out data": [[]],
    "data fetch nothing": [[]],
    "data describe": [["absent"], ["rows.jsonl"], ["."], ["run"], ["\udcff"]],
    "data check": [["absent"], ["rows.jsonl"]],
    "data add": [
        ["data", "absent.jsonl", "--out", "new"], ["absent", "rows.jsonl", "--out", "new"],
        ["data", "rows.jsonl", "--out", "data"], ["data", "rows.jsonl", "--out", "new", "--set", "x=1"],
        ["data", "rows.jsonl", "--out", "rows.jsonl"],
    ],
    "data forget": [["data", "--user", "nobody at all", "--out", "new"],
        ["data", "--user", "\udc80", "--out", "new"], ["absent", "--user", "u", "--out", "new"]],
    "plugins show": [["encoder", "mff"], ["encodr", "mf"], ["encoder", ""], ["", ""], ["encoder", "\x1b[31m"]],
    "plugins list": [["encodr"], ["\n"]],
    "plugins check": [["nothing"], ["mf", "--set", "embedding_dim=-1"], ["mf", "--kind", "gates"],
                      ["mf", "--set", "x"]],
    "plugins new": [
        ["../x"], [""], ["copl-x", "--kind", "encodr"], ["copl-x", "--out", "data"], ["copl-x", "--out", "rows.jsonl"],
        ["1"], ["a b"], ["copl"],
    ],
    "config init": [["rows.jsonl"], ["data"], ["absent/dir/copl.toml", "--method", "nothing"]],
    "evaluate": [["absent"], ["data"], ["rows.jsonl"], ["run", "--data", "absent"], ["run", "--data", "run"]],
    "report": [["absent"], ["data"], ["rows.jsonl"]],
    "adapt": [
        ["run", "absent.jsonl", "--out", "a.safetensors"], ["absent", "rows.jsonl", "--out", "a.safetensors"],
        ["run", "rows.jsonl", "--out", "rows.jsonl"], ["run", "rows.jsonl", "--out", "data"],
        ["run", "run", "--out", "a.safetensors"],
    ],
    "score": [
        ["run", "absent.jsonl", "--out", "s.jsonl"], ["run", "rows.jsonl", "--out", "rows.jsonl"],
        ["run", "rows.jsonl", "--out", "s.txt"], ["run", "rows.jsonl", "--out", "s.jsonl", "--users", "absent"],
        ["run", "rows.jsonl", "--out", "s.jsonl", "--users", "rows.jsonl"], ["run", "rows.jsonl", "--out", "data"],
        ["data", "rows.jsonl", "--out", "s.jsonl"],
    ],
    "ask": [
        ["run", "absent.jsonl"], ["run", "rows.jsonl"], ["run", "rows.jsonl", "--count", "0"],
        ["run", "rows.jsonl", "--count", HUGE], ["absent", "rows.jsonl"], ["run", "rows.jsonl", "--support", "absent"],
        ["run", "rows.jsonl", "--user", ""], ["run", "rows.jsonl", "--user", "\0"], ["run", "."], ["run", "run"],
    ],
    "export": [
        ["absent", "--out", "new"], ["run", "--out", "new", "--user", "nobody at all"], ["run", "--out", "data"],
        ["run", "--out", "rows.jsonl"], ["run", "--out", "new", "--merge"], ["run", "--out", "run"],
    ],
    "ablate": [
        [], ["absent.toml", "--out", "new"], ["--data", "absent", "--out", "new"], ["--data", "data", "--seeds", "0"],
        ["--data", "data", "--seeds", "-3", "--out", "new"], ["--data", "data", "--vary", "encoder", "--out", "new"],
        ["--data", "data", "--vary", "encoder=mff", "--out", "new"], ["--data", "data", "--jobs", "0", "--out", "new"],
        ["--data", "data", "--vary", "encodr=mf", "--out", "new"], ["--data", "data", "--dry-run", "--set", "x"],
        ["--data", "data", "--dry-run", "--reference", "nobody"], ["run/config.toml", "--dry-run"], ["rows.jsonl"],
    ],
    "demo --out new": [["--backbone", "./nowhere"], ["--set", "reward"], ["--seed", "-1"], ["--set", "source.x=1"]],
    "align": [
        ["absent"], ["run", "--out"],
        ["run", "rows.jsonl", "--user", "\0", "--out", "a.jsonl", "--generator", "facets"],
    ],
    "serve": [["absent"], ["absent", "--store", "data"]],
    "serve token new --scope user": [
        ["--user", "", "--store", "s.sqlite"], ["--user", "\0", "--store", "s.sqlite"], ["run", "--store", "a\0b"],
        ["--scope", "king", "--store", "s.sqlite"],
    ],
    "serve token list": [["--store", "data"], ["--store", "absent.sqlite"], ["--store", "rows.jsonl"], ["absent"], []],
    "serve token revoke": [[HUGE, "--store", "s.sqlite"], ["x", "--store", "s.sqlite"]],
    "nothing": [[]],
}  # fmt: skip
CASES = [(command, extra) for command, extras in VALUES.items() for extra in extras]


@pytest.mark.parametrize(("command", "extra"), CASES, ids=[ascii(f"{c} {' '.join(e)}")[1:80] for c, e in CASES])
def test_what_makes_no_sense_is_refused(refused: Refused, workplace: Path, command: str, extra: list[str]) -> None:
    (workplace / "rows.jsonl").write_text('{"user_id": "u", "prompt": "p", "text": "r"}\n')
    refused(*command.replace("DATA", "data").split(), *extra)


PIPED = ["data make jsonl --out new --set", "score run --out s.jsonl", "adapt run --out a.safetensors"]


@pytest.mark.parametrize("command", PIPED)
def test_a_pipe_is_no_file_and_nobody_waits_for_it(refused: Refused, workplace: Path, command: str) -> None:
    os.mkfifo(workplace / "pipe.jsonl")
    path = "pipe.jsonl"
    words = command.split()
    refused(*words, f"path={path}" if words[-1] == "--set" else path)


@pytest.mark.parametrize(
    "command",
    ["data make facets --out new/data", "train data --out locked/new --method graph --encoder none --no-cache",
     "plugins new copl-x --out locked/x", "config init locked/copl.toml", "export run --out locked/x"],
)  # fmt: skip
@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_place_where_nothing_can_be_written(refused: Refused, workplace: Path, command: str) -> None:
    (workplace / "locked").mkdir(mode=0o500)
    (workplace / "new").mkdir(mode=0o500)
    refused(*command.split())
