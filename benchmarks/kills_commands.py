"""The commands that `benchmarks.kills` kills, each of a second or so, and what they work on."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from attrs import frozen

QUICK = ("--encoder", "mf", "--set", "encoder.num_steps=6", "--set", "encoder.precision=1")
FEW_STEPS = ("max_steps=3", "eval_every=1", "batch_size=4", "max_length=48")

INPUTS = """
import json, sys
from pathlib import Path
from copl.data.dataset import save_dataset
from copl.plugins import load
from copl.testing.tiny_model import write_tiny_model

root = Path(sys.argv[1])
options = {"num_seen_users": 8, "num_unseen_users": 3, "num_prompts": 14, "num_train": 5, "num_validation": 1,
           "num_test": 1, "num_cold": 1, "num_support": 4, "num_heldout": 4}
data = load().registry("source").create("facets", options).load(seed=0)
save_dataset(data, root / "data")
prompts, texts = data.responses.prompts, data.responses.texts
write_tiny_model(root / "model", [*texts, *prompts])
rows = [{"user_id": f"new-{i % 2}", "prompt": str(prompts[2 * i]), "chosen": texts[2 * i], "rejected": texts[2 * i + 1]}
        for i in range(6)]
def write(name, rows):
    (root / name).write_text("".join(json.dumps(row) + "\\n" for row in rows))
write("new.jsonl", rows)
user = data.users.ids[0]
write("score.jsonl", [{"user_id": user, "prompt": row["prompt"], "response": row["chosen"]} for row in rows])
write("prompts.jsonl", [{"prompt": row["prompt"]} for row in rows])
(root / "user").write_text(user)
"""

STUDY = """
seeds = 1
[base.encoder]
name = "mf"
num_steps = 6
precision = [1.0]
[data.small]
directory = "{data}"
[[variants]]
name = "graph"
values = {{ method = "graph" }}
[[variants]]
name = "population"
values = {{ method = "graph", adapter = "population" }}
"""


@frozen
class Command:
    """A command of the program.

    Attributes:
        name: what the table calls it.
        parts: its arguments, with ``{inputs}`` and ``{place}`` for where it reads and writes, and ``{user}``.
        works_on: the run below the inputs that it writes into, copied to the place first.
        more: what is added when it is run again.
    """

    name: str
    parts: tuple[str, ...]
    works_on: str = ""
    more: tuple[str, ...] = ()

    def arguments(self, inputs: Path, place: Path) -> list[str]:
        """Return the arguments of the first time."""
        user = (inputs / "user").read_text()
        return [part.format(inputs=inputs, place=place, user=user) for part in self.parts]

    def again(self, inputs: Path, place: Path) -> list[str]:
        """Return the arguments of the second time."""
        return [*self.arguments(inputs, place), *self.more]


def train(method: str, out: str, *more: str) -> tuple[str, ...]:
    """Return a training of few steps."""
    parts = ("train", "{inputs}/data", "--out", f"{out}/{method}", "--method", method, *QUICK, *more)
    if method == "copl":
        parts += ("--backbone", "{inputs}/model", *(part for step in FEW_STEPS for part in ("--set", f"reward.{step}")))
    return parts


ALIGN = (
    "align",
    "{inputs}/copl",
    "{inputs}/prompts.jsonl",
    "--aligner",
    "best-of-n",
    "--generator",
    "facets",
    "-n",
    "4",
)
COMMANDS = (
    Command("train graph", train("graph", "{place}", "--no-cache")),
    Command("train copl", train("copl", "{place}", "--no-cache")),
    Command("train copl cached", train("copl", "{place}")),
    Command("evaluate", ("evaluate", "{place}/copl"), works_on="copl"),
    Command("evaluate --policy", ("evaluate", "{place}/graph", "--policy", "-n", "4"), works_on="graph"),
    Command("adapt", ("adapt", "{inputs}/copl", "{inputs}/new.jsonl", "--out", "{place}/users.safetensors")),
    Command("score", ("score", "{inputs}/copl", "{inputs}/score.jsonl", "--out", "{place}/scored.jsonl")),
    Command("export", ("export", "{inputs}/copl", "--out", "{place}/model")),
    Command("export --user", ("export", "{inputs}/copl", "--user", "{user}", "--out", "{place}/model")),
    Command("export --merge", ("export", "{inputs}/copl", "--user", "{user}", "--merge", "--out", "{place}/model")),
    Command("align", (*ALIGN, "--user", "{user}", "--everybody", "--out", "{place}/answers.jsonl")),
    Command("report", ("report", "{place}/evaluated"), works_on="evaluated"),
    Command("ablate", ("ablate", "{inputs}/study.toml", "--out", "{place}/study")),
    Command("data make", ("data", "make", "facets", "--out", "{place}/data", "--set", "num_seen_users=20")),
    Command("data add", ("data", "add", "{inputs}/data", "{inputs}/new.jsonl", "--out", "{place}/data")),
    Command("data forget", ("data", "forget", "{inputs}/data", "--user", "{user}", "--out", "{place}/data")),
    Command("plugins new", ("plugins", "new", "copl-nearest", "--kind", "encoder", "--out", "{place}/copl-nearest")),
)


def prepare(inputs: Path, run: Callable[[list[str]], tuple[int, str]]) -> None:
    """Write what the commands work on: data, a tiny language model, two runs, rows and a study."""
    subprocess.run([sys.executable, "-c", INPUTS, str(inputs)], check=True)
    (inputs / "study.toml").write_text(STUDY.format(data=inputs / "data"))
    for method in ("graph", "copl"):
        command = Command(method, train(method, "{inputs}", "--no-cache"))
        status, said = run(command.arguments(inputs, inputs))
        if status:
            raise RuntimeError(said)
    shutil.copytree(inputs / "copl", inputs / "evaluated")
    status, said = run(["evaluate", str(inputs / "evaluated")])
    if status:
        raise RuntimeError(said)
