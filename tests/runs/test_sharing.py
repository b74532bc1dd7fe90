"""Runs that travel: portable copies, the hub, and one user's classifier by the command line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import attrs
import pytest

from copl import Model
from copl.data.dataset import load_dataset
from copl.errors import RunError

QUICK = (
    "encoder.num_epochs=5",
    "encoder.embedding_dim=4",
    "mixture.shared_rank=2",
    "mixture.expert_rank=2",
    "reward.max_steps=2",
    "reward.batch_size=4",
    "reward.eval_every=2",
    "reward.max_length=64",
)

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def copl_run(small_data: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from copl.plugins import load
    from copl.runs.pipeline import train
    from copl.runs.recipe import parse_assignments, resolve
    from copl.system.progress import SilentProgress

    draft = {**parse_assignments(QUICK), "backbone": {"name": str(tiny_model)}}
    draft["encoder"]["name"] = "gcf"
    out = tmp_path_factory.mktemp("runs") / "copl"
    silent = nullcontext(SilentProgress())
    train(resolve(draft, load(), seed=1), small_data, out, open_progress=lambda log: silent, cache=None)
    return out


def test_a_portable_copy_scores_and_adapts_as_the_run_does(copl_run: Path, small_data: Path, tmp_path: Path) -> None:
    data = load_dataset(small_data)
    model = Model.open(copl_run)
    model.save_pretrained(tmp_path / "copy")
    copy = Model.from_pretrained(tmp_path / "copy")
    user = next(iter(model.method.seen_users()))
    prompt, texts = data.responses.prompts[0], [data.responses.texts[0], data.responses.texts[1], "never seen"]
    assert copy.score(user, prompt, texts) == model.score(user, prompt, texts)
    support = data.split("support")
    assert copy.adapt(support).embeddings.tolist() == model.adapt(support).embeddings.tolist()
    names = {path.name for path in (tmp_path / "copy").iterdir()}
    assert "evaluation" not in names
    assert "log.jsonl" not in names
    facts = json.loads((tmp_path / "copy" / "run.json").read_text())
    assert facts["data"]["path"] == small_data.name
    assert "Model.from_pretrained" in (tmp_path / "copy" / "README.md").read_text()


def test_a_copy_opens_with_its_backbone_elsewhere(copl_run: Path, tiny_model: Path, tmp_path: Path) -> None:
    Model.open(copl_run).save_pretrained(tmp_path / "copy")
    shutil.copytree(tiny_model, tmp_path / "moved")
    moved = Model.from_pretrained(tmp_path / "copy", backbone=str(tmp_path / "moved"))
    user = next(iter(moved.method.seen_users()))
    assert moved.score(user, "a", ["b"]) == Model.open(copl_run).score(user, "a", ["b"])


def test_an_unfinished_run_and_a_full_directory_are_refused(copl_run: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    model = Model.open(copl_run)
    with pytest.raises(RunError, match="already there; choose another directory"):
        model.save_pretrained(tmp_path / "full")
    unfinished = attrs.evolve(model.run, facts=attrs.evolve(model.run.facts, status="started"))
    with pytest.raises(RunError, match="not finished; `copl train --resume"):
        Model(unfinished, model.method).save_pretrained(tmp_path / "copy")
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_what_is_neither_here_nor_on_the_hub_is_said_in_one_line(
    copl_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(RunError, match="no such run directory"):
        Model.from_pretrained(tmp_path / "nothing")
    with pytest.raises(
        RunError, match=r"nobody/nothing is no local directory, and the Hugging Face hub did not give it"
    ):
        Model.from_pretrained("nobody/nothing")
    with pytest.raises(RunError, match="the Hugging Face hub did not take nobody/nothing"):
        Model.open(copl_run).push_to_hub("nobody/nothing", endpoint="http://127.0.0.1:9", token="none")


def test_the_command_writes_one_users_classifier_or_the_whole_run(
    copl_run: Path, small_data: Path, run_copl: Run, tmp_path: Path
) -> None:
    user = next(iter(Model.open(copl_run).method.seen_users()))
    code, out, _ = run_copl("export", copl_run, "--user", user, "--out", tmp_path / "one", "--json")
    assert code == 0
    facts = json.loads(out)
    assert facts["rank"] == 4
    assert facts["task"] == "SEQ_CLS"
    names = {path.name for path in (tmp_path / "one").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "README.md", "export.json", "tokenizer.json"} <= names
    code, _, _ = run_copl("export", copl_run, "--out", tmp_path / "all")
    assert code == 0
    assert (tmp_path / "all" / "graph").is_dir()
    code, _, error = run_copl("export", copl_run, "--user", "stranger", "--out", tmp_path / "two")
    assert code == 2
    assert "user 'stranger' is neither trained nor adapted" in error
    assert not (tmp_path / "two").exists()


def test_an_adapted_newcomer_is_exported_too(copl_run: Path, small_data: Path, run_copl: Run, tmp_path: Path) -> None:
    adapted = tmp_path / "adapted.safetensors"
    assert run_copl("adapt", copl_run, small_data, "--out", adapted)[0] == 0
    data = load_dataset(small_data)
    newcomer = data.users.ids[int(data.split("support").comparisons.user[0])]
    code, _, _ = run_copl("export", copl_run, "--user", newcomer, "--users", adapted, "--out", tmp_path / "new")
    assert code == 0
    assert json.loads((tmp_path / "new" / "export.json").read_text())["user"] == newcomer
