"""``copl plugins check``: what the conformance kit finds, and values for the options it is to check with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

RunCopl = Callable[..., tuple[int, str, str]]


TOYS = """
import os, time
import attrs
from copl.options import NoOptions
from copl.plugins import Component
from copl.testing.planted import planted_data


class Source:
    def __init__(self, behave):
        self.behave = behave

    def load(self, *, seed):
        return self.behave(planted_data(seed=seed))


def ends(data):
    print("not in the way of the answers")
    os._exit(0)


BEHAVIOUR = {
    "wordy": lambda data: data,
    "hollow": lambda data: attrs.evolve(data, splits={}),
    "ends": ends,
    "quits": lambda data: exit(0),
    "hangs": lambda data: time.sleep(1000),
}


def copl_dataset_sources():
    return [
        Component(name, NoOptions, lambda options, behave=behave: Source(behave), name.ljust(121, "x"))
        for name, behave in BEHAVIOUR.items()
    ]
"""


@pytest.fixture
def toys(install: Callable[[str, str], None]) -> None:
    """Sources are installed: one whose summary is too long, and others that do not do what they should."""
    install("toys", TOYS)


def _outcomes(run_copl: RunCopl, *arguments: object) -> tuple[int, list[str]]:
    code, out, err = run_copl("plugins", "check", *arguments, "--json")
    assert err == ""
    return code, [result["outcome"] for result in json.loads(out)]


@pytest.mark.usefixtures("toys")
def test_a_warning_is_shown_and_is_no_failure(run_copl: RunCopl) -> None:
    code, out, _ = run_copl("plugins", "check", "wordy")
    assert code == 0
    assert {line.split()[1] for line in out.splitlines() if line.startswith("source ")} == {"passed", "warning"}
    (line,) = [line for line in out.splitlines() if "121 characters" in line]
    assert line.split()[:2] == ["source", "warning"]


@pytest.mark.usefixtures("toys")
@pytest.mark.parametrize(
    ("words", "finding"),
    [
        (["ends"], "the process ended with code 0 in the middle of this check"),
        (["quits"], "raised SystemExit: 0"),
        (["hangs", "--timeout", "20"], "no end within 20 seconds (--timeout)"),
    ],
)
def test_a_component_that_ends_its_process_or_hangs_is_a_finding(
    words: list[str], finding: str, run_copl: RunCopl
) -> None:
    code, out, _ = run_copl("plugins", "check", *words, "--json")
    results = json.loads(out)
    assert code == 2
    assert [result["outcome"] for result in results[:2]] == ["warning", "passed"]  # what was found before is told
    assert any(finding in result["detail"] for result in results if result["outcome"] == "failed")


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


EVIL = {
    "ends the process": "import os; os._exit(0)",
    "ends the program": "raise SystemExit",
    "has a name that is none": """
        from copl.options import NoOptions
        from copl.plugins import Component
        def copl_metrics():
            return [Component("A\\nName", NoOptions, list, "A summary.")]""",
}


@pytest.mark.parametrize("what", EVIL)
def test_a_plugin_that_does_not_work_is_told_and_takes_nothing_with_it(
    what: str, install: Callable[[str, str], None], run_copl: RunCopl
) -> None:
    install("evil", EVIL[what])
    install("toys", TOYS)
    code, out, err = run_copl("config", "show")
    assert (code, err) == (0, "")
    assert 'name = "copl"' in out
    code, out, err = run_copl("plugins", "list", "--json")
    assert (code, err) == (0, "")
    assert [fault["package"] for fault in json.loads(out)["broken"]] == ["evil"]
    assert {"wordy", "gcf"} <= {component["name"] for component in json.loads(out)["components"]}
    code, out, err = run_copl("plugins", "list", "source")
    assert code == 0
    assert "wordy" in out
    assert ("broken plugin 'evil' of package 'evil': " in err) == (what != "has a name that is none")
    code, out, err = run_copl("plugins", "check", "worldly")
    assert (code, out) == (2, "")
    first, second = err.splitlines()
    assert "unknown component 'worldly' (did you mean 'wordy'?)" in first
    assert second.startswith("copl: it may be one of the broken plugin 'evil' of package 'evil': ")
    code, out, _ = run_copl("doctor", "--json")
    assert code == 0
    assert {"what": "plugin evil", "state": "broken"}.items() <= json.loads(out)[-1].items()


def test_a_component_that_ends_the_program_is_no_quiet_success(
    install: Callable[[str, str], None], run_copl: RunCopl, tmp_path: Path
) -> None:
    install("toys", TOYS)
    with pytest.raises(RuntimeError, match="something has tried to end the program"):
        run_copl("data", "make", "quits", "--out", tmp_path / "d")
    assert not (tmp_path / "d").exists()
