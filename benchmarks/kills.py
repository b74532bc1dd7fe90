"""Kills `copl train` at every file event and at random moments, resumes it, and compares the result to the bit.

A file event is the making, renaming, linking or removing of a file or directory, or the opening of one for writing, as
Python's audit hooks tell them. A first run counts them; then, for each one, a fresh process is killed (SIGKILL) right
before it, and the same command is run again to its end. What it leaves must be what the run leaves that nobody killed:
every file of every stage byte for byte, but for the seconds that training took, `config.toml`, and no stray file
beside them. At random moments the same is
done by the clock.

    python benchmarks/kills.py --out results.md [--every N] [--random N] [--methods graph,copl] [--limit SECONDS]

``--every N`` kills before each Nth event only, so that a short run still meets all parts of the program.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

KILLED_BEFORE = "KILLED_BEFORE_EVENT"
EVENTS_FILE = "COUNT_EVENTS_IN"
AS_THEY_ARE = {"run.json", "log.jsonl", ".lock"}
"""Hold times and process numbers; everything else is compared."""

PROGRAM = f"""
import os, signal, sys
place, before, counted = os.path.realpath(sys.argv[1]), int(os.environ.get("{KILLED_BEFORE}", 0)), 0
names = []
WATCHED = {{"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "shutil.rmtree"}}

def inside(arguments):
    for value in arguments[:2]:
        if isinstance(value, (str, bytes, os.PathLike)):
            yield os.path.abspath(os.fsdecode(value)).startswith(place)

def hook(event, arguments):
    global counted
    if event == "open":
        mode = arguments[1] or ""
        flags = arguments[2] or 0
        writes = any(letter in str(mode) for letter in "wax+") or flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if not writes or not any(inside(arguments[:1])):
            return
    elif event not in WATCHED or not any(inside(arguments)):
        return
    counted += 1
    names.append(event)
    if counted == before:
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(hook)
from copl import cli
sys.argv = ["copl", *sys.argv[2:]]
try:
    cli.main()
finally:
    if "{EVENTS_FILE}" in os.environ:
        with open(os.environ["{EVENTS_FILE}"], "w") as file:
            file.write("\\n".join(names))
"""


def prepare(root: Path) -> tuple[Path, Path]:
    """Write a small data set and a tiny language model that knows its words."""
    from copl.data.dataset import save_dataset
    from copl.plugins import load
    from copl.testing.tiny_model import write_tiny_model

    options = {"num_seen_users": 20, "num_unseen_users": 5, "num_prompts": 30}
    data = load().registry("source").create("facets", options).load(seed=0)
    save_dataset(data, root / "data")
    return root / "data", write_tiny_model(root / "model", [*data.responses.texts, *data.responses.prompts])


def command_of(method: str, data: Path, model: Path, out: Path) -> list[str]:
    """Return the training command of a method, of few steps."""
    quick = ["--encoder", "mf", "--set", "encoder.num_steps=6", "--set", "encoder.precision=1"]
    command = ["train", str(data), "--out", str(out), "--method", method, "--no-cache", *quick]
    if method == "copl":
        steps = ("max_steps=3", "eval_every=1", "batch_size=4", "max_length=48")
        command += ["--backbone", str(model), *(part for step in steps for part in ("--set", f"reward.{step}"))]
    return command


def launch(place: Path, command: list[str], **environment: str) -> subprocess.Popen[bytes]:
    """Start the program on what lies below a place."""
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(place), *command],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def content(root: Path) -> dict[str, str]:
    """Return the checksum of each file below a directory, and each directory."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(untimed(path)).hexdigest() if path.is_file() else "directory"
        for path in sorted(root.rglob("*"))
        if path.name not in AS_THEY_ARE
    }


def untimed(path: Path) -> bytes:
    """Return a file without the seconds that training took, and without the checksums that follow from them."""
    if path.name not in ("reward.json", "stage.json"):
        return path.read_bytes()
    document = json.loads(path.read_bytes())
    document.get("training", {}).pop("seconds", None)
    document.get("files", {}).pop("reward.json", None)
    document.pop("seal", None)
    return json.dumps(document, sort_keys=True).encode()


def verdict(place: Path, command: list[str], expected: dict[str, str]) -> str:
    """Run the command to its end and say how what it leaves differs from what it should."""
    process = launch(place, command)
    _, err = process.communicate()
    if process.returncode:
        return f"exit {process.returncode}: {err.decode().strip().splitlines()[-1] if err.strip() else ''}"
    if json.loads((place / "run" / "run.json").read_text())["status"] != "finished":
        return "not finished"
    strays = [path.name for path in place.iterdir() if path.name != "run"]
    found = content(place / "run")
    different = sorted({*found, *expected} - {n for n in found.keys() & expected.keys() if found[n] == expected[n]})
    return "equal" if not strays and not different else f"stray {strays}, different {different}"


def killed(scratch: Path, method: str, data: Path, model: Path, expected: dict[str, str], **how: float) -> str:
    """Kill one run, at an event or after some seconds, and return the verdict on the resumed one."""
    place = scratch / "killed"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    command = command_of(method, data, model, place / "run")
    environment = {KILLED_BEFORE: str(int(how["event"]))} if "event" in how else {}
    process = launch(place, command, **environment)
    if "seconds" in how:
        time.sleep(how["seconds"])
        process.send_signal(signal.SIGKILL)
    process.communicate()
    if process.returncode not in (0, -signal.SIGKILL):
        return f"not killed: exit {process.returncode}"
    return verdict(place, command, expected)


def attack(
    method: str, arguments: argparse.Namespace, scratch: Path, data: Path, model: Path
) -> dict[str, Counter[str]]:
    """Return how often each verdict was given, by kind of moment."""
    place, events = scratch / "whole", scratch / "events.txt"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    command = command_of(method, data, model, place / "run")
    began = time.monotonic()
    process = launch(place, command, **{EVENTS_FILE: str(events)})
    _, err = process.communicate()
    if process.returncode:
        raise RuntimeError(err.decode())
    seconds, expected = time.monotonic() - began, content(place / "run")
    names = events.read_text().splitlines()
    moments = list(range(1 + arguments.offset, len(names) + 1, arguments.every))
    results = {f"before {len(moments)} of {len(names)} file events": Counter[str]()}
    generator, until = random.Random(arguments.seed), time.monotonic() + arguments.limit
    for event in moments:
        if time.monotonic() > until:
            results["left out for want of time"] = Counter({"file events": len(moments) - moments.index(event)})
            break
        said = killed(scratch, method, data, model, expected, event=event)
        next(iter(results.values()))[said] += 1
        if said != "equal":
            print(f"{method}: before event {event} ({names[event - 1]}): {said}", file=sys.stderr)
    at_random: Counter[str] = Counter()
    for _ in range(arguments.random):
        at_random[killed(scratch, method, data, model, expected, seconds=generator.uniform(0, seconds))] += 1
    return results | ({f"{arguments.random} random moments": at_random} if arguments.random else {})


def main() -> None:
    """Run the attack and write its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--methods", default="graph,copl")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--offset", type=int, default=0)
    parser.add_argument("--random", type=int, default=0)
    parser.add_argument("--limit", type=float, default=float("inf"))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    lines = ["# Kills", "", f"`python {' '.join(['benchmarks/kills.py', *sys.argv[1:]])}`", ""]
    lines += ["| run | killed | resumed | how often |", "| :-- | :-- | :-- | --: |"]
    with tempfile.TemporaryDirectory() as directory:
        scratch = Path(directory)
        data, model = prepare(scratch)
        for method in arguments.methods.split(","):
            for moments, verdicts in attack(method, arguments, scratch, data, model).items():
                lines += [f"| `{method}` | {moments} | {said} | {number} |" for said, number in verdicts.items()]
    arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
