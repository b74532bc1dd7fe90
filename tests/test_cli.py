import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from copl.plugins import KINDS
from copl.records import SPLITS

RunCopl = Callable[..., tuple[int, str, str]]
QUICK = ["--set", "encoder.name=gcf", "--set", "encoder.num_epochs=10", "--no-cache"]


@pytest.fixture
def graph_run(run_copl: RunCopl, small_data: Path, tmp_path: Path) -> Path:
    run = tmp_path / "run"
    code, _, err = run_copl("train", small_data, "--out", run, "--method", "graph", *QUICK)
    assert code == 0, err
    return run


def _rows(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_program_starts_without_torch_or_transformers() -> None:
    code = """
import sys
from copl import cli
try:
    cli.main()
except SystemExit:
    print(sorted(name for name in ("torch", "transformers", "peft") if name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    imported = "import sys, copl; print(sorted(m for m in sys.modules if m.split('.')[0] in ('torch', 'numpy')))"
    assert subprocess.run([sys.executable, "-c", imported], capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.parametrize("closed", ["1>&-", "2>&-", "1>&- 2>&-", "2>/dev/full"])
def test_streams_may_be_closed_or_full(closed: str, small_data: Path, tmp_path: Path) -> None:
    program = f"{sys.executable} -m copl.cli data"
    results = tmp_path / "results"
    run = f"{program} describe {small_data} --json > {results} {closed}"
    assert subprocess.run(["bash", "-c", run], check=False).returncode == 0
    assert bool(results.read_text()) == ("1>" not in closed)
    run = f"{program} describe {tmp_path / 'nowhere'} > {results} {closed}"
    done = subprocess.run(["bash", "-c", run], capture_output=True, text=True, check=False)
    assert (done.returncode, results.read_text(), done.stderr.count("Traceback")) == (2, "", 0)


def test_a_current_directory_that_is_gone_is_said(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    run = f"cd {tmp_path}/gone && rmdir {tmp_path}/gone && {sys.executable} -m copl.cli data sources"
    done = subprocess.run(["bash", "-c", run], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "copl: the current directory was removed; change into one that is there\n"


def test_every_kind_is_listed_and_every_component_can_be_shown(run_copl: RunCopl) -> None:
    code, out, _ = run_copl("plugins", "list", "--json")
    listed = json.loads(out)
    assert code == 0
    assert listed["broken"] == []
    kinds = {c["kind"] for c in listed["components"]}
    assert kinds == set(KINDS)
    names = {(c["kind"], c["name"]) for c in listed["components"]}
    wanted = {("encoder", "gcf"), ("encoder", "mf"), ("gate", "top1"), ("gate", "none"), ("adapter", "two-hop")}
    assert wanted | {("adapter", "mean"), ("method", "copl"), ("method", "btl"), ("method", "graph")} <= names
    for component in listed["components"]:
        code, out, _ = run_copl("plugins", "show", component["kind"], component["name"])
        assert code == 0
        assert component["summary"] in out


def test_train_evaluate_adapt_score_report(
    run_copl: RunCopl, small_data: Path, graph_run: Path, tmp_path: Path
) -> None:
    code, out, _ = run_copl("evaluate", graph_run, "--json", "--no-cache")
    assert code == 0
    measured = json.loads(out)
    assert json.loads((graph_run / "metrics.json").read_text()) == measured
    assert {"split", "subset", "metric", "value", "low", "high", "count"} == set(measured[0])
    assert {m["split"] for m in measured} == {"validation", "test", "cold", "heldout"}
    assert "<html" in (graph_run / "report.html").read_text()
    code, out, _ = run_copl("evaluate", graph_run, "--no-cache")
    table, verdict = out.split("\nIs it personal? In brackets: 95 % intervals.\n")
    assert re.search(r"^graph +\.\d{3} \(", table, re.MULTILINE)
    assert "log loss" not in table  # what was measured beside accuracy is in metrics.json, and shown on demand
    assert "No answer for new prompts: it gives both responses the same score." in verdict.splitlines()
    code, out, _ = run_copl("evaluate", graph_run, "--no-cache", "--details")
    assert out.endswith(table + out[out.index("\nIs it personal?") :])
    assert "log loss" in out

    adapted = tmp_path / "new.safetensors"
    code, out, _ = run_copl("adapt", graph_run, small_data, "--out", adapted, "--json")
    assert code == 0
    newcomers = json.loads(out)
    assert len(newcomers) == 10

    from copl.data.dataset import load_dataset

    data = load_dataset(small_data)
    train = data.split("train").comparisons
    seen, response = data.users.ids[int(train.user[0])], int(train.chosen[0])
    prompt, text = data.responses.prompts[response], data.responses.texts[response]
    rows = [{"user_id": user, "prompt": prompt, "response": text} for user in (seen, newcomers[0]["user"], "stranger")]
    scores = tmp_path / "scores.jsonl"
    asked = ["score", graph_run, _rows(tmp_path / "rows.jsonl", rows), "--users", adapted, "--out", scores]
    code, _, err = run_copl(*asked)
    assert code == 2
    assert "line 3: unknown user 'stranger': neither trained nor adapted" in err
    assert not scores.exists()
    code, _, err = run_copl(*asked, "--average-unknown")
    assert code == 0, err
    scored = [json.loads(line) for line in scores.read_text().splitlines()]
    assert [row["user_known"] for row in scored] == [True, True, False]
    assert [row["user_id"] for row in scored] == [row["user_id"] for row in rows]
    assert len({row["reward"] for row in scored}) == 3

    code, _, err = run_copl("report", graph_run)
    assert code == 0
    assert "report.html" in err


def test_a_second_run_computes_nothing_and_a_resumed_one_needs_no_options(
    run_copl: RunCopl, small_data: Path, graph_run: Path
) -> None:
    before = {p: p.stat().st_mtime_ns for p in (graph_run / "graph").iterdir()}
    assert run_copl("train", small_data, "--out", graph_run, "--method", "graph", *QUICK)[0] == 0
    assert run_copl("train", "--resume", "--out", graph_run)[0] == 0
    assert {p: p.stat().st_mtime_ns for p in (graph_run / "graph").iterdir()} == before


def test_a_run_with_other_options_is_not_overwritten(run_copl: RunCopl, small_data: Path, graph_run: Path) -> None:
    code, _, err = run_copl(
        "train", small_data, "--out", graph_run, "--method", "graph", "--encoder", "mf", "--no-cache"
    )
    assert code == 2
    assert "holds a run with other settings; choose another --out" in err
    assert "encoder.name: 'gcf' there, 'mf' now" in err


@pytest.mark.parametrize(
    ("arguments", "faults"),
    [
        (["--encoder", "gfc"], ["unknown encoder 'gfc' (did you mean 'gcf'?)"]),
        (["--method", "btl", "--backbone", "no/such/model"], ["no/such/model"]),
        (
            ["--encoder", "gcf", "--set", "encoder.num_layer=2", "--set", "reward.max_steps=-1"],
            ["'num_layers'", "reward.max_steps"],
        ),
        (["--set", "num_layers=2"], ["expected stage.key=value"]),
        (["--method", "graph", "--gate", "top1"], ["method 'graph' has no part 'gate'"]),
    ],
)
def test_a_mistake_in_a_recipe_is_a_line_a_fault_and_nothing_is_written(
    run_copl: RunCopl, small_data: Path, tmp_path: Path, arguments: list[str], faults: list[str]
) -> None:
    out = tmp_path / "run"
    code, stdout, err = run_copl("train", small_data, "--out", out, *arguments, "--no-cache")
    assert (code, stdout) == (2, "")
    for line, fault in zip(err.splitlines(), faults, strict=True):
        assert line.startswith("copl: ")
        assert fault in line
    assert not out.exists()


def test_a_foreign_or_old_or_damaged_run_is_refused(run_copl: RunCopl, graph_run: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "notes.txt").write_text("mine")
    assert "not a run directory" in run_copl("evaluate", foreign)[2]
    assert "no such run directory" in run_copl("evaluate", tmp_path / "absent")[2]
    facts = json.loads((graph_run / "run.json").read_text())
    (graph_run / "run.json").write_text(json.dumps({**facts, "format": 0}))
    code, _, err = run_copl("evaluate", graph_run)
    assert code == 2
    assert "run.json: format is 0, this version of copl reads 1" in err
    (graph_run / "run.json").write_text("{")
    assert "damaged" in run_copl("evaluate", graph_run)[2]
    (graph_run / "run.json").write_text(json.dumps(facts))
    tensors = graph_run / "graph" / "embeddings.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:100])
    code, _, err = run_copl("evaluate", graph_run, "--no-cache")
    assert code == 2
    assert "damaged" in err
    assert not (graph_run / "metrics.json").exists()


def test_data_is_made_described_and_checked(run_copl: RunCopl, tmp_path: Path) -> None:
    rows = [
        {"user_id": f"u{i % 5}", "prompt": f"p{i % 7}", "chosen": f"good {i % 7}", "rejected": f"bad {i % 7}"}
        for i in range(35)
    ]
    out = tmp_path / "d"
    source = _rows(tmp_path / "rows.jsonl", rows)
    code, stdout, err = run_copl("data", "make", "jsonl", "--set", f"path={source}", "--out", out, "--json")
    assert code == 0, err
    assert json.loads(stdout)["users"] == 5
    assert set(json.loads(stdout)["splits"]) <= set(SPLITS)
    assert run_copl("data", "describe", out)[0] == 0
    code, stdout, _ = run_copl("data", "check", out, "--json")
    assert code == 0
    assert isinstance(json.loads(stdout), list)
    code, _, err = run_copl("data", "make", "jsonl", "--set", f"path={source}", "--out", out)
    assert code == 2
    assert "exists; choose another --out" in err


def test_each_bad_row_is_a_line_and_no_data_set_is_written(run_copl: RunCopl, tmp_path: Path) -> None:
    good = {"user_id": "u", "prompt": "p", "chosen": "a", "rejected": "b"}
    rows: list[dict[str, object]] = [
        good,
        {**good, "rejected": ["b"]},
        {**good, "chosen": "  "},
        {**good, "chosen": "b"},
        {k: v for k, v in good.items() if k != "prompt"},
    ]
    source = _rows(tmp_path / "rows.jsonl", rows)
    code, _, err = run_copl("data", "make", "jsonl", "--set", f"path={source}", "--out", tmp_path / "d")
    assert code == 2
    lines = err.splitlines()
    assert len(lines) == 4
    for number, (line, column) in enumerate(zip(lines, ("rejected", "chosen", "chosen", "prompt"), strict=True), 2):
        assert f"line {number}" in line
        assert column in line
    assert not (tmp_path / "d").exists()


def test_config_init_writes_a_recipe_that_config_show_reads(run_copl: RunCopl, tmp_path: Path) -> None:
    path = tmp_path / "copl.toml"
    assert run_copl("config", "init", path)[0] == 0
    code, shown, _ = run_copl("config", "show", "--config", path, "--json")
    assert code == 0
    assert json.loads(shown) == json.loads(run_copl("config", "show", "--json")[1])
    assert run_copl("config", "init", path)[0] == 2


def test_doctor_names_what_is_there_and_what_is_missing(run_copl: RunCopl) -> None:
    code, out, _ = run_copl("doctor", "--json")
    assert code == 0
    states = {finding["what"]: finding["state"] for finding in json.loads(out)}
    assert states["torch"] == "ok"
    assert "backbone minilm" in states
    assert set(states.values()) <= {"ok", "missing", "broken"}


def test_doctor_says_which_missing_weights_can_be_done_without(
    run_copl: RunCopl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("COPL_CACHE", str(tmp_path / "empty"))
    monkeypatch.setattr("copl.reward.backbones.packaged.PackagedFiles.is_installed", lambda self: False)
    found = {finding["what"]: finding for finding in json.loads(run_copl("doctor", "--json")[1])}
    default, other = found["backbone minilm"], found["backbone smollm2-135m"]
    assert (default["state"], other["state"]) == ("missing", "missing")
    assert default["detail"].startswith("the weights of ")
    assert other["detail"].startswith("optional; the weights of ")


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch, run_copl: RunCopl, tmp_path: Path) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("copl.data.dataset.load_dataset", broken)
    with pytest.raises(ZeroDivisionError):
        run_copl("data", "describe", tmp_path)
