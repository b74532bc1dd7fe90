"""What the program imports: a command that needs no model loads neither torch nor a library that stands on it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from copl.data.dataset import load_dataset
from copl.plugins import KINDS

HEAVY = ("torch", "transformers", "peft", "accelerate", "torch_geometric", "pandas", "scipy.optimize", "scipy.stats")
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
    loaded[" ".join(command)] = [code or 0, [name for name in json.loads(HEAVY) if name in sys.modules], out.getvalue()]
print(json.dumps(loaded))
"""


def loaded_after(commands: list[list[str]]) -> dict[str, tuple[int, list[str], str]]:
    """Run the commands in one process; return the exit code, what heavy is loaded after it, and the text of each."""
    program = PROGRAM.replace("HEAVY", repr(json.dumps(HEAVY)))
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
        assert not heavy, command


def test_a_run_without_texts_is_opened_without_a_library_for_texts(small_run: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"user_id": "nobody", "prompt": "Hello", "response": "Hi."}\n')
    command = ["score", str(small_run), str(rows), "--out", str(tmp_path / "scores.jsonl"), "--average-unknown"]
    ((code, heavy, text),) = loaded_after([command]).values()
    assert code == 0, text
    assert set(heavy) <= {"torch"}, heavy


def test_a_run_that_reads_texts_places_and_asks_newcomers_without_its_language_model(
    personal_run: Path, small_data: Path, tmp_path: Path
) -> None:
    responses = load_dataset(small_data).responses  # all of them were read in training
    prompt = responses.prompts[0]
    first, second, *_ = (t for t, own in zip(responses.texts, responses.prompts, strict=True) if own == prompt)
    said, asked, out = tmp_path / "said.jsonl", tmp_path / "asked.jsonl", tmp_path / "adapted.safetensors"
    said.write_text(json.dumps({"user_id": "new", "prompt": prompt, "chosen": first, "rejected": second}))
    asked.write_text(json.dumps({"prompt": prompt, "first": first, "second": second}))
    commands = [["adapt", str(personal_run), str(said), "--out", str(out)], ["ask", str(personal_run), str(asked)]]
    for command, (code, heavy, text) in loaded_after(commands).items():
        assert code == 0, (command, text)
        assert set(heavy) <= {"torch"}, (command, heavy)
    assert out.is_file()
