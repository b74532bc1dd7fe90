"""``copl plugins check``: what the conformance kit finds, and values for the options it is to check with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import attrs
import pytest

from copl.plugins import Component, Plugins
from copl.testing.planted import planted_data

RunCopl = Callable[..., tuple[int, str, str]]


@attrs.frozen
class NoOptions:
    pass


class PlantedSource:
    def load(self, *, seed: int) -> object:
        return planted_data(seed=seed)


class HollowSource:
    def load(self, *, seed: int) -> object:
        return attrs.evolve(planted_data(seed=seed), splits={})


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two sources are installed: one whose summary is too long, and one that is broken."""
    plugins = Plugins()
    wordy = Component("wordy", NoOptions, lambda options: PlantedSource(), "x" * 121)
    hollow = Component("hollow", NoOptions, lambda options: HollowSource(), "nothing to train on")
    plugins.register(SimpleNamespace(copl_dataset_sources=lambda: [wordy, hollow]), "toys", "toy-package", "1")
    monkeypatch.setattr("copl.plugins.load", lambda: plugins)


def _outcomes(run_copl: RunCopl, *arguments: object) -> tuple[int, list[str]]:
    code, out, err = run_copl("plugins", "check", *arguments, "--json")
    assert err == ""
    return code, [result["outcome"] for result in json.loads(out)]


@pytest.mark.usefixtures("toys")
def test_a_warning_is_shown_and_is_no_failure(run_copl: RunCopl) -> None:
    code, outcomes = _outcomes(run_copl, "wordy")
    assert code == 0
    assert set(outcomes) == {"passed", "warning"}
    code, out, _ = run_copl("plugins", "check", "wordy")
    assert code == 0
    (line,) = [line for line in out.splitlines() if "121 characters" in line]
    assert line.split()[:2] == ["source", "warning"]


@pytest.mark.usefixtures("toys")
def test_a_broken_promise_exits_with_2(run_copl: RunCopl) -> None:
    code, outcomes = _outcomes(run_copl, "hollow")
    assert code == 2
    assert "failed" in outcomes


def test_a_required_option_is_given_with_set(run_copl: RunCopl, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        "".join(
            json.dumps({"user_id": f"u{i % 6}", "prompt": f"p{i % 7}", "chosen": f"good {i % 7}", "rejected": "bad"})
            + "\n"
            for i in range(42)
        )
    )
    code, without = _outcomes(run_copl, "jsonl")
    assert code == 0
    assert "skipped" in without
    code, outcomes = _outcomes(run_copl, "jsonl", "--set", f"path={rows}", "--set", "unseen_fraction=0.2")
    assert code == 0
    assert set(outcomes) == {"passed"}


@pytest.mark.parametrize(
    ("arguments", "faults"),
    [
        (["jsonl", "--set", "pth=a"], ["unknown option 'pth' (did you mean 'path'?)", "option 'path' is required"]),
        (["jsonl", "--set", "path", "--set", "seed"], ["--set path: expected key=value", "--set seed: expected"]),
        (["jsonlines"], ["unknown component 'jsonlines' (did you mean 'jsonl'?)"]),
    ],
)
def test_a_mistake_is_a_line_a_fault(run_copl: RunCopl, arguments: list[str], faults: list[str]) -> None:
    code, out, err = run_copl("plugins", "check", *arguments)
    assert (code, out) == (2, "")
    for line, fault in zip(err.splitlines(), faults, strict=True):
        assert line.startswith("copl: ")
        assert fault in line
