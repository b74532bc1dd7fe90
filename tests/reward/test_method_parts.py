"""Method `copl` with the parts that need more than embeddings: users that train along, and a gate told the truth."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from copl import Model
from copl.data.dataset import load_dataset
from copl.graph.store import load_embeddings
from copl.model import UnknownUserWarning
from copl.plugins import load
from copl.reward.training.user_vectors import load_trained_users
from copl.runs.pipeline import train
from copl.runs.recipe import resolve
from copl.system.progress import RunLog, SilentProgress

if TYPE_CHECKING:
    from copl.interfaces import Progress

REWARD = {"max_steps": 3, "batch_size": 4, "eval_every": 2, "max_length": 64, "warm_start": False, "mode": "adapt"}


@contextmanager
def silent(log: Path | None) -> Iterator[Progress]:
    yield SilentProgress(RunLog(log))


def run(tiny_model: Path, data: Path, out: Path, **parts: Any) -> Model:
    draft = {
        "method": {"name": "copl"},
        "backbone": {"name": str(tiny_model)},
        "encoder": {"name": "id", "embedding_dim": 4},
        "mixture": {"shared_rank": 2, "expert_rank": 2},
        "reward": REWARD,
        **parts,
    }
    train(resolve(draft, load(), seed=1), data, out, open_progress=silent, cache=None)
    return Model.open(out)


def test_users_are_trained_along_with_encoder_id(
    small_data: Path, tiny_model: Path, tmp_path: Path, last_look_is_best: None
) -> None:
    model = run(tiny_model, small_data, tmp_path / "run", gate={"num_experts": 3})
    trained = load_trained_users(tmp_path / "run" / "reward")
    assert trained is not None
    assert torch.isfinite(trained.values).all()
    data = load_dataset(small_data)
    user = data.users.ids[int(data.splits["train"].user[0])]
    prompt, text = data.responses.prompts[0], data.responses.texts[0]
    assert np.isfinite(model.score(user, prompt, [text])[0])
    with pytest.warns(UnknownUserWarning, match="nobody"):
        assert np.isfinite(model.score("nobody", prompt, [text])[0])
    shown = model.method.diagnostics()
    assert shown.user_embeddings is not None
    assert np.allclose(shown.user_embeddings, trained.values.numpy())
    first = load_embeddings(tmp_path / "run" / "graph")
    assert first.user_ids == trained.ids
    assert (trained.values - first.users).abs().max() > 1e-5


def test_the_oracle_gate_gets_the_groups_of_the_data(small_data: Path, tiny_model: Path, tmp_path: Path) -> None:
    model = run(tiny_model, small_data, tmp_path / "run", gate={"name": "oracle"})
    shown = model.method.diagnostics()
    data = load_dataset(small_data)
    groups = [data.users.groups[data.users.rows[user]] for user in shown.user_ids]
    assert shown.expert_weights is not None
    experts = shown.expert_weights.argmax(axis=1).tolist()
    assert len(set(zip(groups, experts, strict=True))) == len(set(groups)) == len(set(experts)) > 1
    (said,) = shown.notes
    assert said.startswith(f"The gate uses {len(set(groups))} of {shown.expert_weights.shape[1]} experts")
