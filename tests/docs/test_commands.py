"""Every command that README and docs show is run, in order of appearance, in a directory of its own for each page.

Commands stand in fenced blocks marked ``sh`` (``console`` and ``bash`` are read alike). The recipe of a training
command is resolved as shown and then run with a tiny backbone and few steps; ``make`` lines name targets of the
Makefile. A block below a line that begins with a file's name is that file. Files that a reader has to bring along are
made up by the reader.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from copl.data.dataset import load_dataset
from tests.docs.reader import (
    ROOT,
    RUN_LANGUAGES,
    Block,
    Command,
    Reader,
    Row,
    RunCopl,
    blocks_of,
    commands_of,
    steps_of,
)

# The tutorial installs a package; tests/plugins/test_tutorial.py follows it, in an environment of its own.
EXCLUDED = {ROOT / "docs" / "tutorial.md"}
# The reference pages show usage lines, with placeholders; tests/docs/test_generated_pages.py holds them to the code.
EXCLUDED |= {ROOT / "docs" / "cli.md", ROOT / "docs" / "components.md"}
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in sorted({ROOT / "README.md", *(ROOT / "docs").rglob("*.md")} - EXCLUDED)
}


@pytest.fixture(scope="module")
def own_rows(small_data: Path) -> list[Row]:
    """Rows of comparisons as somebody might have them."""
    data = load_dataset(small_data)
    part, table = data.split("train").comparisons, data.responses
    return [
        {
            "user_id": data.users.ids[user],
            "prompt": table.prompts[chosen],
            "chosen": table.texts[chosen],
            "rejected": table.texts[rejected],
        }
        for user, chosen, rejected in zip(part.user, part.chosen, part.rejected, strict=True)
    ][::3]  # of every user some


CASES = [
    pytest.param(page, needs, id=f"{name}{'-with-fetched-data' if needs else ''}")
    for name, page in PAGES.items()
    for needs in (False, True)
    if any(found == needs and not (isinstance(step, Block) and step.file) for step, found in steps_of(page))
]


@pytest.mark.parametrize(("page", "needs_data"), CASES)
def test_what_a_page_shows_can_be_done(
    page: str,
    needs_data: bool,
    run_copl: RunCopl,
    own_rows: list[Row],
    tiny_model: Path,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    reader = Reader(run_copl, own_rows, tiny_model, request.getfixturevalue("downloads") if needs_data else None)
    for step, needs in steps_of(page):
        if needs == needs_data or (isinstance(step, Block) and step.file):
            reader.obey(step)


@pytest.mark.parametrize("name", PAGES)
def test_no_command_stands_where_it_is_not_run(name: str) -> None:
    hidden = [
        line
        for block in blocks_of(PAGES[name])
        if block.language not in RUN_LANGUAGES
        for line in block.text.splitlines()
        if line.removeprefix("$ ").startswith(("copl ", "make "))
    ]
    assert hidden == [], f"{name}: mark the block as ```sh"


def test_the_guide_has_commands_files_and_python() -> None:
    steps = [step for step, _ in steps_of(PAGES["docs/guide.md"])]
    commands = {step.words[1] for step in steps if isinstance(step, Command) and step.words[0] == "copl"}
    assert {"demo", "data", "train", "evaluate", "adapt", "score", "report", "config", "doctor"} <= commands
    assert sum(isinstance(step, Block) and step.file is not None for step in steps) == 3
    assert any(isinstance(step, Block) and step.language == "python" for step in steps)


PAGE = """
`rows.jsonl`:

```json
{"user_id": "u"}
```

- in a list:

  ```console
  $ copl data fetch polis/taxes
  $ copl data make polis \\
      --set path=downloads/polis/taxes --out d   # votes
  some output
  $ copl train d -o r && copl plugins list
  ```

```bash
copl train e --out f  # this is an error
```

```json
{"only": "the form"}
```

```python
Model.open("r/x")
```
"""


def test_a_page_is_read_as_a_person_reads_it() -> None:
    make = ("copl", "data", "make", "polis", "--set", "path=downloads/polis/taxes", "--out", "d")
    assert list(steps_of(PAGE)) == [
        (Block("json", '{"user_id": "u"}\n', "rows.jsonl"), False),
        (Command(("copl", "data", "fetch", "polis/taxes")), True),
        (Command(make), True),
        (Command(("copl", "train", "d", "-o", "r")), True),
        (Command(("copl", "plugins", "list")), False),
        (Command(("copl", "train", "e", "--out", "f"), is_error=True), False),
        (Block("python", 'Model.open("r/x")\n', None), True),
    ]


@pytest.mark.parametrize(
    "line", ["copl nonsense", "copl config show --gate no-such", "make nonsense", "ls", "copl plugins list  # an error"]
)
def test_a_command_that_cannot_be_run_fails(
    line: str, run_copl: RunCopl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (command,) = commands_of(line)
    with pytest.raises(AssertionError, match=re.escape(str(command))):
        Reader(run_copl, [], tmp_path).obey(command)
