"""What the program imports: a command that needs no model loads neither torch nor a library that stands on it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from copl.data.dataset import load_dataset
from copl.plugins import KINDS

WATCHED = ("torch", "transformers", "peft", "accelerate", "torch_geometric", "pandas", "scipy.optimize", "scipy.stats")
OTHERS = "copl_baselines"  # a package of plugins, of which no component is asked for
PROGRAM = """
import contextlib, io, json, sys
from copl import cli
loaded = {}
for command in json.loads(sys.argv[1]):
    sys.argv = ["copl", *command]
    out = io.StringIO()
    code = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code
    present = [name for name in json.loads(WATCHED) if name in sys.modules]
    loaded[" ".join(command)] = [code or 0, present, out.getvalue()]
print(json.dumps(loaded))
"""


def loaded_after(
    commands: list[list[str]], watched: tuple[str, ...] = (*WATCHED, OTHERS)
) -> dict[str, tuple[int, list[str], str]]:
    """Run the commands in one process; return the exit code, what heavy is loaded after it, and the text of each."""
    program = PROGRAM.replace("WATCHED", repr(json.dumps(watched)))
    arguments = [sys.executable, "-c", program, json.dumps(commands)]
    result: dict[str, tuple[int, list[str], str]] = json.loads(
        subprocess.run(arguments, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
    )
    return result


def test_commands_without_a_model_load_no_torch(small_data: Path, small_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(small_run, run)
    one_of_each = {"encoder": "gcf", "gate": "top1", "adapter": "two-hop", "method": "copl", "source": "facets"}
    shown = {**one_of_each, "backbone": "minilm", "metric": "accuracy", "generator": "facets", "aligner": "none"}
    assert shown.keys() == KINDS.keys()
    commands = [
        ["--help"],
        ["train", "--help"],
        ["config", "show"],
        ["config", "show", "--method", "graph", "--encoder", "gcf", "--set", "encoder.preset=paper"],
        ["config", "init", str(tmp_path / "copl.toml")],
        *(["plugins", "show", kind, name] for kind, name in shown.items()),
        ["plugins", "list"],
        ["data", "sources"],
        ["data", "fetch"],
        ["data", "describe", str(small_data)],
        ["data", "check", str(small_data)],
        ["report", str(run)],
    ]
    for command, (code, heavy, text) in loaded_after(commands).items():
        assert code == 0, (command, text)
        assert set(heavy) <= {OTHERS}, command


def test_what_can_be_chosen_is_listed_without_a_library_for_tables(tmp_path: Path) -> None:
    commands = [
        ["--help"],
        ["config", "show"],
        ["config", "init", str(tmp_path / "copl.toml")],
        ["plugins", "show", "source", "events"],
        ["plugins", "show", "source", "subset"],
        ["plugins", "list"],
        ["data", "sources"],
    ]
    for command, (code, heavy, text) in loaded_after(commands, ("pyarrow", "scipy", "matplotlib", "jinja2")).items():
        assert (code, heavy) == (0, []), (command, text)


def test_a_finished_run_is_evaluated_and_reported_again_without_tensors_or_pictures(
    small_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(small_run, run)
    watched = ("torch", "transformers", "peft", "matplotlib", "scipy.stats")
    first = ["evaluate", str(run), "--no-cache"]
    assert loaded_after([first], watched)[" ".join(first)][0] == 0
    page = (run / "report.html").read_bytes()
    for command in (first, ["report", str(run)]):
        ((code, heavy, text),) = loaded_after([command], watched).values()
        assert (code, heavy) == (0, []), (command, text)
        assert (run / "report.html").read_bytes() == page
    (run / "report.html").write_text("cut", encoding="utf-8")
    assert "matplotlib" in loaded_after([["report", str(run)]], watched)[f"report {run}"][1]
    assert (run / "report.html").read_bytes() == page


def test_a_run_without_texts_is_opened_without_a_library_for_texts(small_run: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"user_id": "nobody", "prompt": "Hello", "response": "Hi."}\n')
    command = ["score", str(small_run), str(rows), "--out", str(tmp_path / "scores.jsonl"), "--average-unknown"]
    ((code, heavy, text),) = loaded_after([command]).values()
    assert code == 0, text
    assert set(heavy) <= {"torch"}, heavy


def test_texts_that_a_run_has_read_are_scored_asked_and_explained_without_its_language_model(
    personal_run: Path, trained_run: Path, small_data: Path, tmp_path: Path
) -> None:
    data = load_dataset(small_data)  # all its texts were read in training
    users, responses, own = data.users, data.responses, data.split("train").comparisons
    seen, prompt = users.ids[own.user[0]], responses.prompts[own.chosen[0]]
    first, second = responses.texts[own.chosen[0]], responses.texts[own.rejected[0]]

    def rows(name: str, **row: str) -> str:
        (tmp_path / name).write_text(json.dumps({"prompt": prompt, **row}))
        return str(tmp_path / name)

    said = rows("said.jsonl", user_id="new", chosen=first, rejected=second)
    asked = rows("asked.jsonl", first=first, second=second)
    known = rows("known.jsonl", user_id="new", response=first)
    of_seen = rows("seen.jsonl", user_id=seen, response=first)
    unread = rows("unread.jsonl", user_id=seen, response="A text that nobody has read.")
    run, with_adapters = str(personal_run), str(trained_run)
    adapted, scores = str(tmp_path / "adapted.safetensors"), str(tmp_path / "scores.jsonl")
    commands = [
        ["adapt", run, said, "--out", adapted],
        ["ask", run, asked],
        ["score", run, known, "--users", adapted, "--out", scores],
        ["score", with_adapters, of_seen, "--out", scores],
        ["explain", run, "--user", "new", "--support", said],
        ["explain", with_adapters, "--user", seen],
    ]
    *light, last = loaded_after([*commands, ["score", with_adapters, unread, "--out", scores]]).items()
    for command, (code, heavy, text) in light:
        assert code == 0, (command, text)
        assert set(heavy) <= {"torch"}, (command, heavy)
    assert last[1][0] == 0, last[1][2]
    assert {"transformers", "peft"} <= set(last[1][1])


def test_loading_torch_is_not_held_up_by_searches_of_everything_for_garbage() -> None:
    program = """
import gc, sys
from copl import cli
before = gc.get_stats()[2]["collections"]
try:
    cli.main()
except SystemExit:
    import torch
    print(gc.get_stats()[2]["collections"] - before)
"""
    done = subprocess.run([sys.executable, "-c", program, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0"
