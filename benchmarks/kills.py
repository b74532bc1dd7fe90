"""Kills commands at every file event and at random moments, runs them again, and compares what they leave to the bit.

A file event is the making, renaming, linking or removing of a file or directory, or the opening of one for writing, as
Python's audit hooks tell them. A first run of a command counts them, and copies before each one all that lies there,
which is what a process leaves that is killed (SIGKILL) there: what was not handed to the system by then is lost either
way. From each copy the same command is run again to its end. What it leaves must be what the run leaves that nobody
killed: every file byte for byte, but for times (`benchmarks/kills_content.py` says which), and no stray file beside
them. Before every 10th event a process is killed indeed, to see that it leaves what was copied, and the command is run
again on that. At random moments processes are killed by the clock. The commands are those of
`benchmarks/kills_commands.py`.

    python -m benchmarks.kills --out benchmarks/results/kills.md [--every N] [--random N] [--commands A,B] [--limit S]
        [--more] [--own]

``--every N`` takes each Nth event only, so that a short run still meets all parts of the program; ``--more`` adds to
the table that is there. Processes are forked from one that has imported the program, and what a first run of a command
imported, and done nothing with it, so that most of the time is the command's; with ``--own`` each is a process of its
own instead, as a user's is, and each is killed.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import random
import re
import shlex
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import attrs

from benchmarks.kills_commands import COMMANDS, Command, prepare
from benchmarks.kills_content import content, strays
from benchmarks.measured import commit
from copl.system.files import SCRATCH_SUFFIX, is_scratch

EQUAL = "equal"
OPENS_TO_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT
IMPORTED = {"accelerate", "copl", "matplotlib", "peft", "pyarrow", "torch", "transformers"}
"""Packages whose modules are imported once for all processes that are forked."""
OWN_PROCESS = "--own"
REAL = 10
"""Of so many events before one a process is killed; before the others what lies there is copied."""
WATCHED = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "shutil.rmtree"}


@attrs.frozen
class Attack:
    """One command, where it runs, and what it leaves when nobody kills it, or somebody does (``states``, by event)."""

    command: Command
    inputs: Path
    place: Path
    states: Path
    expected: dict[str, str]
    events: tuple[str, ...]
    seconds: float

    @classmethod
    def on(cls, command: Command, inputs: Path, place: Path) -> Attack:
        """Run the command to its end, counting its file events and copying what lies there before each."""
        _clear(command, inputs, place)
        names, states = place.parent / "events.txt", place.parent / "states"
        shutil.rmtree(states, ignore_errors=True)
        began = time.monotonic()
        status, said = _wait(_start(command.arguments(inputs, place), place, names=names, states=states))
        if status:
            raise RuntimeError(f"{command.name}: exit {status}: {said}")
        seconds = time.monotonic() - began
        events, modules = (tuple(part.split()) for part in names.read_text().split("\n\n"))
        load_modules(modules)
        return cls(command, inputs, place, states, content(place), events, seconds)

    def copied(self, event: int) -> str:
        """Put back what lay there before an event, and return the verdict on the command that is run again."""
        shutil.rmtree(self.place)
        shutil.copytree(self.states / str(event), self.place, symlinks=True)
        return self._verdict()

    def killed(self, event: int = 0, seconds: float = 0.0) -> str:
        """Kill the command before an event, or after some seconds; return the verdict on the one that is run again."""
        _clear(self.command, self.inputs, self.place)
        process = _start(self.command.arguments(self.inputs, self.place), self.place, before=event)
        if not event:
            time.sleep(seconds)
            os.kill(process, signal.SIGKILL)
        status, said = _wait(process)
        if status not in (0, -signal.SIGKILL):
            return f"not killed: exit {status}: {said}"
        if event:
            left, copied = (_named_alike(content(place)) for place in (self.place, self.states / str(event)))
            if other := _apart(left, copied):
                return f"killed, it leaves something else than what was copied: {other}"
        return self._verdict()

    def _verdict(self) -> str:
        """Run the command to its end and say how what it leaves differs from what it should."""
        again = self.command.again(self.inputs, self.place)
        finished = self.expected.items() <= content(self.place).items()
        status, said = _wait(_start(again, self.place))
        if status and finished and "; choose another" in said:
            extra = strays(self.place)
            return f"finished before, stray {extra}" if extra else EQUAL
        if status:
            return f"exit {status}: {said.strip().splitlines()[-1] if said.strip() else ''}"
        left = content(self.place)
        different = _apart(left, self.expected)
        extra = strays(self.place)
        return f"stray {extra}, different {different}" if extra or different else EQUAL


def _named_alike(left: dict[str, str]) -> dict[str, str]:
    """Return what lies in a directory with the names of scratch directories that are drawn made one, without locks."""
    names = {name: re.sub(rf"-\w{{8}}(?={SCRATCH_SUFFIX})", "-X", name) for name in left if not name.endswith(".lock")}
    return {alike: left[name] for name, alike in names.items()}


def _apart(one: dict[str, str], other: dict[str, str]) -> list[str]:
    """Return what one directory has and the other has not, or otherwise; what is half written has times in it."""
    whole = {name for name in one.keys() & other.keys() if one[name] == other[name] or is_scratch(Path(name))}
    return sorted({*one, *other} - whole)


def _clear(command: Command, inputs: Path, place: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    if command.works_on:
        shutil.copytree(inputs / command.works_on, place / command.works_on)


def _start(
    arguments: list[str], place: Path, names: Path | None = None, before: int = 0, states: Path | None = None
) -> int:
    """Fork a process that runs the program on what lies below a place, and return its number."""
    process = os.fork()
    if process:
        return process
    status = 70
    try:
        said = os.open(place.parent / "said.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(said, 1)
        os.dup2(said, 2)
        os.environ["COPL_CACHE"] = str(place / "cache")
        if OWN_PROCESS in sys.argv and names is None:
            call = f"import sys; from benchmarks.kills import run; sys.exit(run({arguments}, sys.argv[1], {before}))"
            os.execv(sys.executable, [sys.executable, "-c", call, str(place)])
        status = run(arguments, str(place), before, names, states)
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:  # noqa: BLE001 - a forked process must not return into its parent's code
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)


def _wait(process: int) -> tuple[int, str]:
    """Wait for a process; return its exit status, negative for a signal, and what it said last."""
    _, status = os.waitpid(process, 0)
    said = Path(tempfile.gettempdir(), "said.txt")
    return os.waitstatus_to_exitcode(status), said.read_text(errors="replace")[-2000:] if said.exists() else ""


def run(arguments: list[str], place: str, before: int, names: Path | None = None, states: Path | None = None) -> int:
    """Run the program in this process, with a hook that counts its file events and kills it before one of them.

    Args:
        arguments: of the command.
        place: file events below this directory count.
        before: number of the event to be killed before; 0 for none.
        names: where the events and the imported modules are written.
        states: where what lies in ``place`` is copied to before each event.
    """
    from copl import cli

    root, counted = os.path.realpath(place), list[str]()

    def inside(values: tuple[object, ...]) -> Iterator[bool]:
        for value in values[:2]:
            if isinstance(value, (str, bytes, os.PathLike)):
                yield os.path.abspath(os.fsdecode(value)).startswith(root)

    def hook(event: str, values: tuple[object, ...]) -> None:
        if event == "open":
            mode, flags = str(values[1] or ""), values[2] or 0
            writes = any(letter in mode for letter in "wax+") or (isinstance(flags, int) and flags & OPENS_TO_WRITE)
            if not writes or not any(inside(values[:1])):
                return
        elif event not in WATCHED or not any(inside(values)):
            return
        counted.append(event)
        if states is not None:
            shutil.copytree(root, states / str(len(counted)), symlinks=True)
        if len(counted) == before:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    sys.argv = ["copl", *arguments]
    status = 0
    try:
        cli.main()
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    if names is not None:
        names.write_text("\n".join(counted) + "\n\n" + "\n".join(list(sys.modules)))
    return status


def attack(command: Command, arguments: argparse.Namespace, inputs: Path, place: Path) -> dict[str, Counter[str]]:
    """Return how often each verdict was given, by kind of moment."""
    one = Attack.on(command, inputs, place)
    moments = list(range(1 + arguments.offset, len(one.events) + 1, arguments.every))
    at_events, at_random = Counter[str](), Counter[str]()
    real = moments if arguments.own else moments[::REAL]
    results = {f"before {len(moments)} of {len(one.events)} file events, {len(real)} of them by SIGKILL": at_events}
    until = time.monotonic() + arguments.limit
    for done, event in enumerate(spread(moments)):
        if time.monotonic() > until:
            at_events["left out for want of time"] = len(moments) - done
            break
        said = one.killed(event=event) if event in real else one.copied(event)
        at_events[said] += 1
        if said != EQUAL:
            print(f"{command.name}: before event {event} ({one.events[event - 1]}): {said}", file=sys.stderr)
    generator = random.Random(arguments.seed)
    for _ in range(arguments.random):
        moment = generator.uniform(0, one.seconds)
        said = one.killed(seconds=moment)
        at_random[said] += 1
        if said != EQUAL:
            print(f"{command.name}: after {moment:.2f} of {one.seconds:.2f} s: {said}", file=sys.stderr)
    return results | ({f"{arguments.random} random moments": at_random} if arguments.random else {})


def spread(moments: list[int]) -> list[int]:
    """Return the same moments in an order that leaves even gaps wherever it is broken off.

    >>> spread([1, 2, 3, 4, 5])
    [1, 5, 3, 2, 4]
    """
    width = len(moments).bit_length()
    return [moments[n] for n in sorted(range(len(moments)), key=lambda n: f"{n:0{width}b}"[::-1])]


def load_the_program() -> None:
    """Import what commands import, once for all processes that are forked, without a thread being started."""
    import accelerate  # noqa: F401
    import peft  # noqa: F401
    import torch
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    from copl import cli, model  # noqa: F401
    from copl.plugins import load

    torch.set_num_threads(1)
    get_checkpoint_conversion_mapping("llama")  # compiles a thousand patterns, once a process
    load()


def load_modules(names: Iterable[str]) -> None:
    """Import what a command was seen to import, so that those forked from here on need not."""
    for name in names:
        if name.partition(".")[0] in IMPORTED and name not in sys.modules:
            with suppress(ImportError):
                importlib.import_module(name)
    gc.freeze()  # else every process that is forked copies all that is collected
    threads = [Path("/proc/self/task", task, "comm").read_text().strip() for task in os.listdir("/proc/self/task")]
    if len(others := [name for name in threads if name != "jemalloc_bg_thd"]) > 2:  # pyarrow's one knows of forks
        raise RuntimeError(f"threads before a fork: {others}")


def main() -> None:
    """Run the attack and write its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--commands", default=",".join(command.name for command in COMMANDS))
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--offset", type=int, default=0)
    parser.add_argument("--random", type=int, default=0)
    parser.add_argument("--limit", type=float, default=float("inf"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--more", action="store_true")
    parser.add_argument(OWN_PROCESS, action="store_true")
    arguments = parser.parse_args()
    lines = [*arguments.out.read_text().splitlines(), ""] if arguments.more else ["# Kills", ""]
    lines += [f"`python -m benchmarks.kills {shlex.join(sys.argv[1:])}` at commit {commit()}", ""]
    lines += ["| command | killed | run again | how often |", "| :-- | :-- | :-- | --: |"]
    load_the_program()
    with tempfile.TemporaryDirectory() as directory:
        tempfile.tempdir = directory
        inputs, place = Path(directory) / "inputs", Path(directory) / "place"
        inputs.mkdir()
        prepare(inputs, lambda given: _wait(_start(given, inputs)))
        for command in COMMANDS:
            if command.name in arguments.commands.split(","):
                for moments, verdicts in attack(command, arguments, inputs, place).items():
                    lines += [f"| `{command.name}` | {moments} | {said} | {n} |" for said, n in verdicts.items()]
                    print(lines[-1], file=sys.stderr)
    arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
