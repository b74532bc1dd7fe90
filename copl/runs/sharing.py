"""A finished run as something to keep, send or publish: only what scoring needs, with a card that says what it is."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from copl.errors import RunError
from copl.evaluate.tables import held_out, methods_table, to_markdown
from copl.runs.directory import CONFIG_FILE, METRICS_FILE, RUN_FILE, Run
from copl.runs.pipeline import EVALUATION, read_metrics
from copl.runs.workspace import verify_stage
from copl.system.files import write_text

CARD = "README.md"


def save_portable(run: Run, directory: Path) -> None:
    """Copy what scoring and adapting need of a finished run: recipe, facts, metrics and trained stages.

    Args:
        run: the run; left as it is.
        directory: where the copy goes; must not exist or be empty.

    Raises:
        RunError: the run is unfinished or damaged, or the directory holds something.
    """
    if run.facts["status"] != "finished":
        raise RunError(f"{run.root}: not finished; continue with copl train --resume --out {run.root}")
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise RunError(f"{directory}: already there; choose another directory")
    stages = sorted(path.parent for path in run.root.glob("*/stage.json") if path.parent.name != EVALUATION)
    for stage in stages:
        verify_stage(stage)
    directory.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        for stage in stages:
            shutil.copytree(stage, scratch / stage.name)
        for name in (CONFIG_FILE, METRICS_FILE):
            if (run.root / name).is_file():
                shutil.copy2(run.root / name, scratch / name)
        # where the data lay and how the program was called is nobody else's business
        data = {**run.facts["data"], "path": Path(run.facts["data"]["path"]).name}
        write_text(scratch / RUN_FILE, json.dumps({**run.facts, "data": data, "command": ""}, indent=1) + "\n")
        write_text(scratch / CARD, model_card(run))
        scratch.chmod(0o755)
        if directory.exists():
            directory.rmdir()
        os.replace(scratch, directory)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def fetch_portable(name: str | Path, revision: str | None) -> Path:
    """Return the directory of a run: a local one, or one of the Hugging Face hub, from the local cache if it is there.

    Raises:
        RunError: there is neither.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    text = str(name)
    if path.is_absolute() or text.startswith((".", "~")) or text.count("/") != 1:
        raise RunError(f"{text}: no such run directory")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(text, revision=revision))
    except Exception as error:  # the hub client raises errors of its HTTP library too
        reason = " ".join(str(error).split())[:200]
        raise RunError(f"{text} is no local directory, and the Hugging Face hub did not give it ({reason})") from error


def publish(run: Run, repo_id: str, *, private: bool, **options: Any) -> str:
    """Upload a portable copy of a run to the Hugging Face hub and return its address.

    The ids, comparisons and texts of the training users are part of it: adaptation needs them.

    Args:
        run: the run.
        repo_id: ``owner/name``; made where it does not exist.
        private: whether a new repository is private.
        options: further arguments of `huggingface_hub.HfApi`, such as ``token`` or ``endpoint``.

    Raises:
        RunError: the run is unfinished or damaged, or the hub refuses.
    """
    from huggingface_hub import HfApi

    api = HfApi(**options)
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "run"
        save_portable(run, copy)
        try:
            api.create_repo(repo_id, private=private, exist_ok=True)
            return str(api.upload_folder(repo_id=repo_id, folder_path=copy, commit_message="A copl run"))
        except Exception as error:  # the hub client raises errors of its HTTP library too
            reason = " ".join(str(error).split())[:200]
            raise RunError(
                f"the Hugging Face hub did not take {repo_id} ({reason}); log in with `hf auth login`"
            ) from error


def model_card(run: Run) -> str:
    """Return the card of a run: what it is made of, how to open it, what was measured."""
    parts = "\n".join(
        f"| {kind} | `{about['name']}` | {about['package']} {about['version']} | {about['reference']} |"
        for kind, about in run.facts["components"].items()
    )
    metrics = run.root / METRICS_FILE
    name = run.recipe.method.name
    measured = "Not evaluated."
    if metrics.is_file():
        measured = to_markdown(methods_table(held_out({name: read_metrics(metrics)})))
    return f"""---
library_name: copl
tags: [preference-learning, reward-model, personalization]
---
# Personal reward model (`{name}`)

```python
from copl import Model

model = Model.from_pretrained(".")  # this directory, or its id on the Hugging Face hub
model.score("a user's id", "a prompt", ["a response", "another response"])
```

| part | component | package | reference |
| --- | --- | --- | --- |
{parts}

## Measured

With 95 % intervals, on held-out comparisons of the data set it was trained on.

{measured}"""
