"""Reads a page as a person does, and does what it shows: files, commands and Python."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import textwrap
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.csv
import pyarrow.parquet
from attrs import define, field, frozen

from copl.data.events.evidence import pair_subject
from copl.data.events.log import Entry, EventLog
from copl.data.requests import read_support
from copl.model import UnknownUserWarning
from tests.data.published import PUBLISHED, write_copy

ROOT = Path(__file__).resolve().parents[2]
RUN_LANGUAGES = {"sh", "console", "bash"}
FILE_LANGUAGES = {"json", "jsonl", "toml", "csv"}
SETUP = {"cd", "git", "pip", "python", "python3", "."}
"""Programs of the installation; they are not run."""


RunCopl = Callable[..., tuple[int, str, str]]
Row = dict[str, Any]
_FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", flags=re.MULTILINE | re.DOTALL)
_FILE_NAME = re.compile(r" *`([\w./-]+\.(?:jsonl|json|toml|csv))`")


def _feedback(row: Row) -> Row:
    messages = {
        "q": {"role": "user", "content": row["prompt"], "parentId": None},
        "a": {"role": "assistant", "content": row["chosen"], "parentId": "q"},
        "b": {"role": "assistant", "content": row["rejected"], "parentId": "q"},
    }
    chat = {"chat": {"history": {"messages": messages}}}
    return {"user_id": row["user_id"], "data": {"rating": 1}, "meta": {"message_id": "a"}, "snapshot": {"chat": chat}}


def _battle(row: Row) -> Row:
    states = [
        {"roles": ["USER", "ASSISTANT"], "messages": [["USER", row["prompt"]], ["ASSISTANT", row[side]]], "offset": 0}
        for side in ("chosen", "rejected")
    ]
    return {"type": "leftvote", "ip": row["user_id"], "states": states, "tstamp": 1_700_000_000.0}


EXPORTS: dict[str, Callable[[Row], Row]] = {
    "open-webui": _feedback,
    "label-studio": lambda row: {
        "data": {"prompt": row["prompt"], "answer1": row["chosen"], "answer2": row["rejected"]},
        "annotations": [
            {"completed_by": row["user_id"], "result": [{"type": "pairwise", "value": {"selected": "left"}}]}
        ],
    },
    "argilla": lambda row: {
        "prompt": row["prompt"], "r1": row["chosen"], "r2": row["rejected"],
        "best.responses": [["r1", "r2"]], "best.responses.users": [row["user_id"]],
        "best.responses.status": ["submitted"],
    },
    "arena-votes": _battle,
    "thumbs": lambda row: {
        "user_id": row["user_id"], "prompt": row["prompt"], "response": row["chosen"],
        "thumb": ["up", "down"][len(row["chosen"]) % 2],
    },
}  # fmt: skip
"""An entry of each tool's export that says what a comparison says."""


@frozen
class Block:
    """A fenced block of a page."""

    language: str
    text: str
    file: str | None


@frozen
class Command:
    """One command line of a page; one that a comment calls an error has to be one."""

    words: tuple[str, ...]
    is_error: bool = False

    @property
    def positionals(self) -> list[str]:
        return [pair[0] for pair in _pairs(self.words) if not pair[0].startswith("-")]

    @property
    def flags(self) -> list[tuple[str, ...]]:
        return [pair for pair in _pairs(self.words) if pair[0].startswith("-")]

    @property
    def outputs(self) -> set[str]:
        return {pair[1] for pair in self.flags if pair[0] in ("--out", "-o")}

    @property
    def fetches(self) -> str | None:
        """Name of the public data that the command fetches."""
        match self.positionals:
            case ["copl", "data", "fetch", name]:
                return name
        return None

    def __str__(self) -> str:
        return shlex.join(self.words)


_WITHOUT_VALUE = {"--json", "--merge", "--no-cache", "--no-deps", "--overwrite", "--resume", "--version", "--help"}


def _pairs(words: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yield each flag with its value, and every other word alone."""
    rest = list(words)
    while rest:
        word = rest.pop(0)
        yield (word, rest.pop(0)) if word.startswith("-") and word not in _WITHOUT_VALUE and rest else (word,)


def blocks_of(page: str) -> Iterator[Block]:
    """Yield the fenced blocks of a page, each with the file that the line above begins with."""
    for fence in _FENCE.finditer(page):
        above = page[: fence.start()].rstrip().rpartition("\n")[2]
        name = _FILE_NAME.match(above) if fence[2] in FILE_LANGUAGES else None
        yield Block(fence[2], textwrap.dedent(fence[3]), name[1] if name else None)


def commands_of(block: str) -> Iterator[Command]:
    """Yield the commands of a block: lines after a prompt where there are prompts, all lines otherwise."""
    lines = block.replace("\\\n", " ").splitlines()
    if any(line.startswith("$ ") for line in lines):
        lines = [line[2:] for line in lines if line.startswith("$ ")]
    for line in lines:
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, "&&"]:
            if word != "&&":
                words.append(word)
            elif words:
                yield Command(tuple(words), bool(re.search(r"#.*\berror\b", line)))
                words = []


def steps_of(page: str) -> Iterator[tuple[Block | Command, bool]]:
    """Yield what a reader does: files to write, commands to run, Python to execute; and whether it needs fetched data.

    What is made from fetched data needs it, too.
    """
    made: set[str] = set()
    for block in blocks_of(page):
        if block.language in RUN_LANGUAGES:
            for command in commands_of(block.text):
                named = {place for word in command.words for place in (word, word.rpartition("=")[2])}
                needs = command.fetches is not None or any(_lies_in(place, {"downloads", *made}) for place in named)
                made |= command.outputs if needs else set()
                yield command, needs
        elif block.language == "python" and "Model" in block.text:
            yield block, any(_lies_in(place, made) for place in re.findall(r"[\"']([^\"']*)[\"']", block.text))
        elif block.file:
            yield block, False


def _lies_in(place: str, directories: set[str]) -> bool:
    return any(place == directory or place.startswith(f"{directory}/") for directory in directories)


DEMOS: list[Path] = []
"""Where what the demo has made is kept, once a page has run it."""

SMALL_CORPUS = ["num_seen_users=24", "num_unseen_users=8", "num_prompts=28"]
SMALL_POLIS = ["pairs_per_user=2", "eval_pairs_per_user=1"]
SMALL_POLICY = ["aligner.max_steps=2", "aligner.num_prompts=4", "aligner.max_new_tokens=4"]
FEW_STEPS = {
    "stacked": ["encoder.members=latent-groups"],
    "gcf": ["encoder.num_epochs=10"],
    "mf": ["encoder.num_steps=10"],
    "reward": ["reward.max_steps=1", "reward.eval_every=1", "reward.batch_size=4", "reward.max_length=64"],
}


@define
class Reader:
    """Somebody who does what a page says, in an empty directory.

    Attributes:
        run_copl: runs the program.
        rows: rows of comparisons to fill own files with, so that there is something to train on.
        model: directory of a tiny language model.
        downloads: folder with all that can be fetched, since there may be no connection.
    """

    run_copl: RunCopl
    rows: Sequence[Row]
    model: Path
    downloads: Path | None = None
    shown: dict[str, list[Row]] = field(factory=dict)
    copies: dict[str, Row] = field(factory=dict)

    def obey(self, step: Block | Command) -> None:
        if isinstance(step, Command):
            self._run(step)
        elif step.file:
            Path(step.file).write_text(step.text, encoding="utf-8")
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UnknownUserWarning)  # a reader has the users that a page names
                exec(compile(step.text, "the Python block", "exec"), {"__name__": "__main__"})

    def _run(self, command: Command) -> None:
        program, *words = command.words
        if program == "make":
            targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
            assert set(words) <= targets, f"{command}: the Makefile has no such target"
        elif program == "copl":
            self._bring_along(command)
            if words[0] == "serve" and words[1] != "token":
                words.append(
                    "--help"
                )  # its flags are read; it would go on for ever, and tests/serve/test_docs.py runs it
            if words == ["demo"] and DEMOS:  # it says the same wherever it is shown
                shutil.copytree(DEMOS[0], "demo-run")
                return
            code, _, err = self.run_copl(*words, *self._made_quick(command))
            assert code == (2 if command.is_error else 0), f"{command}\n{err}"
            if words == ["demo"]:
                DEMOS.append(Path(shutil.copytree("demo-run", Path.cwd().with_name(f"{Path.cwd().name}-demo"))))
        else:
            assert program in SETUP, f"{command}: not a command that the tests know; they run `copl` and check `make`"

    def _made_quick(self, command: Command) -> list[str]:
        """Return flags that make a command quick."""
        match command.positionals[1:]:
            case ["demo"]:
                return [*self._small_recipe(command), *_sets(f"source.{size}" for size in SMALL_CORPUS)]
            case ["train", *_] if not {"--resume", "--from"} & {flag[0] for flag in command.flags}:
                return [] if command.is_error else self._small_recipe(command)
            case ["ablate", *_] if "--dry-run" not in command.words:
                code, _, err = self.run_copl(*command.words[1:], "--dry-run")  # as the page has it
                assert code == 0, f"{command}\n{err}"
                return ["--seeds", "1"]
            case ["data", "make", "facets"]:
                return _sets(SMALL_CORPUS)
            case ["align", *_] if ("--generator", "local") in command.flags:
                return _sets([f"generator.model={self.model}", "generator.max_tokens=8"])
            case ["data", "make", "polis"]:
                return _sets(SMALL_POLIS)
            case ["align", *_] if {("--aligner", "dpo"), ("--aligner", "mixture-dpo")} & set(command.flags):
                return _sets([*SMALL_POLICY, f"aligner.model={self.model}"])
            case ["data", "make", source] if source in PUBLISHED:
                return _sets(f"{name}={value}" for name, value in self.copies[source].items())
        return []

    def _small_recipe(self, command: Command) -> list[str]:
        """Return flags that make training quick, after the recipe has been resolved as the page has it."""
        asked = ("--config", "-c", "--method", "--encoder", "--gate", "--adapter", "--backbone", "--set", "--seed")
        flags = [pair for pair in command.flags if pair[0] in asked and not pair[-1].startswith("source.")]
        code, shown, err = self.run_copl("config", "show", "--json", *(word for pair in flags for word in pair))
        assert code == 0, f"{command}\n{err}"
        recipe = json.loads(shown)
        parts = (recipe.get("encoder", {}).get("name"), "reward" if "reward" in recipe else None)
        backbone = ["--backbone", str(self.model)] if "backbone" in recipe else []
        return [*backbone, *_sets(value for part in parts for value in FEW_STEPS.get(part or "", []))]

    def _bring_along(self, command: Command) -> None:
        """Write the files that a command reads and that a reader has to have."""
        match command.positionals[1:]:
            case ["data", "fetch", name]:
                assert self.downloads is not None
                shutil.copytree(self.downloads / name, Path("downloads") / name, dirs_exist_ok=True)
            case ["data", "make", "jsonl" | "csv" | "parquet"]:
                values = dict(pair[1].split("=", 1) for pair in command.flags if pair[0] == "--set")
                names = dict(pair.split("=") for pair in values.get("columns", "").split(",") if pair)
                path = Path(values["path"])
                shown = self._rows_shown_in(path)
                _write_rows(path, shown + [{names.get(k, k): value for k, value in row.items()} for row in self.rows])
            case ["data", "make", source] if source in PUBLISHED:
                # Paths are as the page has them; the other options make do with a small copy.
                options = write_copy(source, Path("copies") / source)
                given = {pair[1].partition("=")[2] for pair in command.flags if pair[0] == "--set"}
                paths = {name for name, value in options.items() if str(value).startswith("copies")}
                assert {str(options[name]) for name in paths} <= given, f"{command}: name the copy in copies/{source}"
                self.copies[source] = {name: value for name, value in options.items() if name not in paths}
            case ["data", "make", source] if source in EXPORTS:
                path = Path(next(pair[1] for pair in command.flags if pair[1].startswith("path="))[5:])
                known_as = {self.rows[0]["user_id"]: "ann"}  # whom the pages speak of
                rows = [{**row, "user_id": known_as.get(row["user_id"], row["user_id"])} for row in self.rows]
                entries = [EXPORTS[source](row) for row in rows]
                if path.suffix == ".json":
                    path.write_text(json.dumps(entries), encoding="utf-8")
                else:
                    _write_rows(path, entries)
            case ["data", "make", "events"]:
                values = dict(pair[1].split("=", 1) for pair in command.flags if pair[0] == "--set")
                _write_store(Path(values["store"]), self.rows[:5])
            case ["data", "add", _, file] if not Path(file).exists():
                _write_rows(Path(file), [{**row, "user_id": "newcomer"} for row in self.rows[:5]])
            case ["adapt", _, file] if not Path(file).exists():
                _write_rows(Path(file), [{**row, "user_id": "newcomer"} for row in self.rows[:5]])
            case ["score", _, file] if not Path(file).exists():
                asked = [
                    {"user_id": r["user_id"], "prompt": r["prompt"], "response": r["chosen"]} for r in self.rows[:5]
                ]
                _write_rows(Path(file), asked)

    def _rows_shown_in(self, path: Path) -> list[Row]:
        if str(path) not in self.shown:
            self.shown[str(path)] = []
            if path.exists():
                assert path.suffix == ".jsonl", f"{path}: show rows of comparisons as JSON lines"
                read_support(path, print)  # what is shown is right by itself
                lines = path.read_text(encoding="utf-8").splitlines()
                self.shown[str(path)] = [json.loads(line) for line in lines]
        return self.shown[str(path)]


def _sets(values: Iterable[str]) -> list[str]:
    return [word for value in values for word in ("--set", value)]


def _write_store(path: Path, rows: Sequence[Row]) -> None:
    log = EventLog(path)
    for number, row in enumerate(rows):
        said = {name: row[name] for name in ("prompt", "chosen", "rejected")}
        log.append("somebody new", str(number), [Entry("comparison", pair_subject(*said.values()), said)])
    log.close()


def _write_rows(path: Path, rows: Sequence[Row]) -> None:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".csv":
        pyarrow.csv.write_csv(pyarrow.Table.from_pylist(rows), path)
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
