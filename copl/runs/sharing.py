"""A finished run as something to keep, send or publish: only what scoring needs, with a card that says what it is."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from attrs import evolve

from copl.errors import RunError, in_brief
from copl.evaluate.tables import held_out, markdown_text, methods_table, to_markdown
from copl.runs.directory import CONFIG_FILE, Run
from copl.runs.facts import RUN_FILE
from copl.runs.learnt import LEARNT_FILE
from copl.runs.reference import REFERENCE_FILE
from copl.runs.results import METRICS_FILE, read_metrics
from copl.runs.stages import fitted_stages, verify_stage
from copl.system.documents import write_document
from copl.system.files import is_free, new_directory, write_text

CARD = "README.md"


def save_portable(run: Run, directory: Path) -> None:
    """Copy what scoring and adapting need of a finished run: recipe, facts, metrics and trained stages.

    Args:
        run: the run; left as it is.
        directory: where the copy goes; must not exist or be empty.

    Raises:
        RunError: the run is unfinished or damaged, or the directory holds something.
    """
    run.require_finished()
    if not is_free(directory):
        raise RunError(f"{directory}: already there; choose another directory")
    stages = fitted_stages(run.root)
    for stage in stages:
        verify_stage(stage)
    with new_directory(directory) as fresh:
        for stage in stages:
            shutil.copytree(stage, fresh / stage.name)
        for name in (CONFIG_FILE, METRICS_FILE, REFERENCE_FILE, LEARNT_FILE):
            if (run.root / name).is_file():
                shutil.copy2(run.root / name, fresh / name)
        # where the data lay and how the program was called is nobody else's business
        data = evolve(run.facts.data, path=run.data_directory.name)
        former = run.facts.former
        if former is not None:
            former = evolve(former, path=Path(former.path).name)
        write_document(fresh / RUN_FILE, evolve(run.facts, data=data, command="", former=former))
        write_text(fresh / CARD, model_card(run))


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
        raise RunError(
            f"{text} is no local directory, and the Hugging Face hub did not give it ({in_brief(error)})"
        ) from error


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
            raise RunError(
                f"the Hugging Face hub did not take {repo_id} ({in_brief(error)}); log in with `hf auth login`"
            ) from error


def model_card(run: Run) -> str:
    """Return the card of a run: what it is made of, how to open it, what was measured."""
    parts = "\n".join(
        f"| {kind} | `{about.name}` | {about.package} {about.version} | {markdown_text(about.reference)} |"
        for kind, about in run.facts.components.items()
    )
    name = run.recipe.method.name
    measured = "Not evaluated."
    if (run.root / METRICS_FILE).is_file():
        measured = to_markdown(methods_table(held_out({name: read_metrics(run.root)})))
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
