"""What a person reads who ends a command with Ctrl-C, and that the same command goes on from what it says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer
from safetensors import safe_open

import copl
from copl import cli
from copl.commands.parts.interrupts import interruptible, kept_of_run

RunCopl = Callable[..., tuple[int, str, str]]
LONG = ["--set", "encoder.name=mf", "--set", "encoder.embedding_dim=4", "--set", "reward.max_steps=3000"]
LONG += ["--set", "reward.eval_every=2", "--set", "reward.batch_size=4", "--set", "reward.max_length=64"]
LONG += ["--set", "reward.epochs=100000", "--set", "reward.patience=100000"]


@pytest.fixture
def interrupts() -> Iterator[None]:
    """Have an interrupt raise KeyboardInterrupt, also where this test run is a background job of a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def interrupted_when(interrupts: None, run_copl: RunCopl) -> Callable[..., tuple[int, str]]:
    """Return a function that runs `copl`, has it interrupted when it is time, and gives exit code and what it said."""

    def run(is_time: Callable[[], bool], words: list[str]) -> tuple[int, str]:
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(0.05):
                if is_time():
                    os.kill(os.getpid(), signal.SIGINT)
                    return

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            code, _, said = run_copl(*words)
        finally:
            ended.set()
            watcher.join()
        return code, said

    return run


@pytest.mark.slow
def test_an_interrupted_training_says_what_is_kept_and_the_same_command_goes_on(
    interrupted_when: Callable[..., tuple[int, str]], small_data: Path, tiny_model: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    words = ["train", str(small_data), "--out", str(run), "--backbone", str(tiny_model), *LONG, "--no-cache"]
    checkpoint = run / "reward.partial" / "scratch" / "checkpoint.safetensors"

    def steps() -> list[int]:
        if not checkpoint.is_file():
            return []
        with safe_open(checkpoint, framework="pt") as file:
            curve = json.loads(file.metadata()["copl"])["curve"]
        return [point["step"] for point in curve]

    code, said = interrupted_when(lambda: bool(steps()), words)
    line = f"copl: interrupted; {kept_of_run(run)}"
    assert (code, said.splitlines()[-1]) == (130, line), said
    assert "graph, what there is of " in line
    assert "graph, what there is of reward; the same command goes on" in line
    assert "Traceback" not in said
    assert "encoder" in said
    reached = steps()[-1]
    code, said = interrupted_when(lambda: steps()[-1:] > [reached], words)
    assert (code, said.splitlines()[-1]) == (130, line), said
    assert "encoder" not in said
    assert steps()[-1] >= reached


def test_what_goes_wrong_while_an_interrupt_is_on_its_way_is_the_interrupt(tmp_path: Path) -> None:
    handle = os.open(tmp_path, os.O_RDONLY)

    def close_twice() -> None:
        try:
            os.close(handle)
            raise KeyboardInterrupt
        finally:
            os.close(handle)

    with pytest.raises(typer.Exit) as ended, interruptible(lambda: ""):
        close_twice()
    assert ended.value.exit_code == 130
    with pytest.raises(OSError, match="Bad file descriptor"), interruptible(lambda: ""):
        os.close(handle)


def test_what_is_kept_of_a_run(tmp_path: Path) -> None:
    nothing = "no stage was finished, the same command begins again"
    assert kept_of_run(tmp_path / "absent") == nothing
    (tmp_path / "graph.partial").mkdir()
    (tmp_path / "graph.partial" / ".key").touch()
    assert kept_of_run(tmp_path) == nothing
    (tmp_path / "graph").mkdir()
    (tmp_path / "graph" / "stage.json").touch()
    assert kept_of_run(tmp_path) == f"kept in {tmp_path}: graph; the same command goes on from there"


def test_an_interrupted_evaluation_leaves_the_run_and_is_made_up_for(
    interrupts: None, monkeypatch: pytest.MonkeyPatch, run_copl: RunCopl, small_data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert run_copl("train", small_data, "--out", run, "--method", "graph", *LONG[:4], "--no-cache")[0] == 0

    def interrupted(*given: Any, **named: Any) -> None:
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr("copl.runs.pipeline.measure", interrupted)
        code, out, err = run_copl("evaluate", run, "--no-cache")
    line = "copl: interrupted; the run is kept as it was trained, and the same command measures what is missing"
    assert (code, out, err.splitlines()[-1]) == (130, "", line)
    assert not (run / "metrics.json").exists()
    code, _, err = run_copl("evaluate", run, "--no-cache")
    assert code == 0
    assert "evaluate: done" not in err  # the margins were there
    assert (run / "metrics.json").exists()


def test_a_command_that_keeps_nothing_says_that_it_was_interrupted(
    interrupts: None, monkeypatch: pytest.MonkeyPatch, run_copl: RunCopl
) -> None:
    monkeypatch.setattr("copl.commands.doctor.examine", lambda: signal.raise_signal(signal.SIGINT))
    assert run_copl("doctor") == (130, "", "copl: interrupted\n")


def test_one_of_several_processes_speaks(interrupts: None, monkeypatch: pytest.MonkeyPatch, run_copl: RunCopl) -> None:
    monkeypatch.setattr("copl.commands.doctor.examine", lambda: signal.raise_signal(signal.SIGINT))
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert run_copl("doctor") == (130, "", "")


def test_an_interrupt_before_a_command_is_begun_leaves_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The commands are put together before one of them is called."""

    def putting_together(*_: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "application", putting_together)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert (ended.value.code, capsys.readouterr().err) == (130, "copl: interrupted\n")


def test_an_interrupt_while_modules_are_loaded_is_a_line() -> None:
    program = """
import builtins, runpy
load = builtins.__import__
def interrupted(name, *rest, **more):
    if name == "typer":
        raise KeyboardInterrupt
    return load(name, *rest, **more)
builtins.__import__ = interrupted
runpy.run_module("copl", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "copl: interrupted\n")


def test_the_installed_program_begins_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    module, _, name = settings["project"]["scripts"]["copl"].partition(":")
    monkeypatch.setattr("sys.argv", ["copl", "--version"])
    with pytest.raises(SystemExit):
        getattr(import_module(module), name)()
    assert capsys.readouterr().out == f"{copl.__version__}\n"
