"""Whole methods on a tiny language model: train, kill, resume, evaluate, score, adapt."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from benchmarks.model_folders import FOLDERS
from copl import Model
from copl.data.dataset import load_dataset
from copl.errors import BackboneError, DataError, RunError, TrainingError
from copl.model import UnknownUserWarning
from copl.plugins import load
from copl.runs.directory import open_run
from copl.runs.pipeline import evaluate, train
from copl.runs.recipe import Recipe, resolve
from copl.runs.results import load_margins
from copl.system.progress import RunLog, SilentProgress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from copl.interfaces import Progress

QUICK = {
    "encoder": {"name": "gcf", "num_epochs": 5, "embedding_dim": 4},
    "gate": {"num_experts": 3},
    "mixture": {"shared_rank": 2, "expert_rank": 2},
    "reward": {"max_steps": 4, "batch_size": 4, "eval_every": 2, "max_length": 64, "trainable_layers": 0},
}


@contextmanager
def silent(log: Path | None) -> Iterator[Progress]:
    yield SilentProgress(RunLog(log))


def _recipe(tiny_model: Path, method: str = "copl", **changes: Any) -> Recipe:
    draft = {"method": {"name": method}, "backbone": {"name": str(tiny_model)}, **QUICK, **changes}
    return resolve(draft, load(), seed=1)


def _train(recipe: Recipe, data: Path, out: Path, progress: Any = silent) -> AbstractContextManager[Any] | Any:
    return train(recipe, data, out, open_progress=progress, cache=None)


@pytest.fixture(scope="module")
def copl_run(small_data: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "copl"
    run, _ = _train(_recipe(tiny_model), small_data, out)
    evaluate(run, load_dataset(small_data), plugins=load(), open_progress=silent, cache=None)
    return out


def test_a_run_directory_holds_what_the_design_says(copl_run: Path, small_data: Path) -> None:
    names = {path.name for path in copl_run.iterdir()}
    stages = {"graph", "features", "reward", "blend"}
    files = {"config.toml", "run.json", "log.jsonl", "metrics.json", "reference.json", "learnt.safetensors"}
    assert names == {*files, "evaluation", *stages}
    assert not list(copl_run.rglob("*.pt")) + list(copl_run.rglob("*.bin")) + list(copl_run.rglob("*.pkl"))
    assert (copl_run / "reward" / "adapter" / "adapter_config.json").is_file()
    facts = json.loads((copl_run / "run.json").read_text())
    assert facts["status"] == "finished"
    assert facts["stages"] == dict.fromkeys(stages, "computed")
    assert facts["components"]["encoder"]["name"] == "gcf"
    assert facts["data"]["path"] == str(small_data.resolve())


def test_a_killed_run_continues_and_gives_the_same_margins(
    copl_run: Path, small_data: Path, tiny_model: Path, tmp_path: Path
) -> None:
    class KilledError(Exception):
        pass

    class Deadly(SilentProgress):  # type: ignore[misc]  # final outside of tests
        def log(self, stage: str, **values: Any) -> None:
            if stage == "reward" and values.get("step", 0) >= 4:
                raise KilledError

    @contextmanager
    def deadly(log: Path | None) -> Iterator[Progress]:
        yield Deadly(RunLog(log))

    out = tmp_path / "run"
    with pytest.raises(KilledError):
        _train(_recipe(tiny_model), small_data, out, deadly)
    assert (out / "graph").is_dir()
    assert (out / "reward.partial").is_dir()
    with pytest.raises(RunError, match="not finished"):
        open_run(out, load()).load_method()
    run, method = _train(_recipe(tiny_model), small_data, out)
    computed, reused = (
        dict.fromkeys(["reward", "blend"], "computed"),
        dict.fromkeys(["graph", "features"], "reused"),
    )
    assert run.facts.stages == computed | reused
    found = evaluate(run, load_dataset(small_data), plugins=load(), open_progress=silent, cache=None, method=method)
    for split, margins in load_margins(copl_run / "evaluation").items():
        np.testing.assert_allclose(found.margins[split], margins, atol=1e-5)


def test_a_stage_is_computed_anew_only_where_its_inputs_change(
    copl_run: Path, small_data: Path, tiny_model: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    train(_recipe(tiny_model), small_data, tmp_path / "a", open_progress=silent, cache=cache)
    other_gate = _recipe(tiny_model, gate={"name": "none"})
    run, _ = train(other_gate, small_data, tmp_path / "b", open_progress=silent, cache=cache)
    reused = dict.fromkeys(["graph", "features"], "reused")
    assert run.facts.stages == {"reward": "computed", "blend": "computed", **reused}
    other_adapter = _recipe(tiny_model, adapter={"name": "mean"})
    run, _ = train(other_adapter, small_data, tmp_path / "c", open_progress=silent, cache=cache)
    assert set(run.facts.stages.values()) == {"reused"}


def test_the_model_scores_alike_alone_and_together_and_knows_its_users(copl_run: Path, small_data: Path) -> None:
    model = Model.open(copl_run)
    data = load_dataset(small_data)
    user = data.users.ids[int(data.split("train").comparisons.user[0])]
    prompt, texts = data.responses.prompts[0], list(data.responses.texts[:4])
    together = model.score(user, prompt, texts)
    alone = [model.score(user, prompt, [text])[0] for text in reversed(texts)][::-1]
    np.testing.assert_allclose(together, alone, atol=1e-4)
    with pytest.warns(UnknownUserWarning, match="'a stranger'"):
        assert together != model.score("a stranger", prompt, texts)
    row = {"user_id": "new", "prompt": prompt, "chosen": texts[0], "rejected": texts[1]}
    adapted = model.adapt([row])
    assert adapted.user_ids == ("new",)
    with pytest.warns(UnknownUserWarning, match="'new'"):
        assert model.score("new", prompt, texts, adapted=adapted) != model.score("new", prompt, texts)
    assert model.score(user, [{"role": "user", "content": prompt}], texts) == together
    with pytest.raises(DataError, match="row 1"):
        model.adapt([{**row, "chosen": texts[1]}])


def test_methods_without_users_or_without_text(small_data: Path, tiny_model: Path, tmp_path: Path) -> None:
    data = load_dataset(small_data)
    for method in ("btl", "graph"):
        run, fitted = _train(_recipe(tiny_model, method), small_data, tmp_path / method)
        found = evaluate(run, data, plugins=load(), open_progress=silent, cache=None)
        direct = fitted.margins(data.split("test"))
        np.testing.assert_allclose(found.margins["test"], direct, atol=1e-5)
    assert (found.margins["cold"] == 0).all()  # the graph has never met these responses
    btl = Model.open(tmp_path / "btl")
    prompt, text = data.responses.prompts[0], data.responses.texts[0]
    assert btl.score(data.users.ids[0], prompt, [text]) == btl.score(data.users.ids[1], prompt, [text])


def test_data_without_training_comparisons_is_refused_before_anything_is_written(
    small_data: Path, tiny_model: Path, tmp_path: Path
) -> None:
    import attrs

    from copl.data.dataset import save_dataset

    data = load_dataset(small_data)
    save_dataset(attrs.evolve(data, splits={"test": data.splits["test"]}), tmp_path / "d")
    with pytest.raises(DataError, match="no comparisons to train on"):
        _train(_recipe(tiny_model), tmp_path / "d", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("encoder", ["mf", "gcf"])
def test_sizes_that_no_memory_holds_are_a_line(encoder: str, small_data: Path, tmp_path: Path) -> None:
    draft = {"method": {"name": "graph"}, "encoder": {"name": encoder, "embedding_dim": 10**14}}
    with pytest.raises(TrainingError, match=r"memory exhausted in training; lower .* encoder\.embedding_dim"):
        _train(resolve(draft, load()), small_data, tmp_path / "run")


def test_a_backbone_that_is_refused_leaves_no_run_that_is_in_the_way(small_data: Path, tmp_path: Path) -> None:
    backbone, out = tmp_path / "model", tmp_path / "run"
    backbone.mkdir()
    FOLDERS["T5"][0](backbone)
    with pytest.raises(BackboneError, match="encoder-decoder"):
        _train(_recipe(backbone), small_data, out)
    assert not out.exists()
