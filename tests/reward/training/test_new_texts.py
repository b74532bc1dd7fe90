"""What a reward model says of texts before it learns from them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from copl.errors import RunError
from copl.experts.gates import NoGate
from copl.experts.options import MixtureOptions
from copl.records import PreferenceData
from copl.reward.backbones.loaded import LoadedBackbone
from copl.reward.options import RewardOptions
from copl.reward.reading.reader import TextReader
from copl.reward.scoring import score_responses
from copl.reward.store import load_reward_model
from copl.reward.training.new_texts import NewTextMargins
from copl.reward.training.train import UserVectors, train_reward_model
from copl.reward.training.warm_start import hold_out_texts
from copl.system.progress import SilentProgress


@pytest.mark.parametrize("mode", ["adapt", "frozen"])
def test_margins_are_those_of_the_model_on_validation_comparisons_with_a_held_out_text(
    mode: str,
    preferences: tuple[PreferenceData, UserVectors],
    make_backbone: Callable[[str], LoadedBackbone],
    tmp_path: Path,
) -> None:
    data, users = preferences
    # without a warm start nothing is added after training: the model saved is the one that was asked
    options = RewardOptions(
        mode="frozen" if mode == "frozen" else "adapt", warm_start=False, max_steps=4, max_length=32, trainable_layers=0
    )
    mixture = MixtureOptions(shared_rank=2, expert_rank=2)
    train_reward_model(
        data,
        users,
        TextReader.over(make_backbone("bert"), options),
        NoGate(),
        mixture,
        options,
        seed=0,
        directory=tmp_path,
        progress=SilentProgress(),
    )
    found = NewTextMargins.load(tmp_path)
    rows = data.split("validation").comparisons
    train = data.split("train").comparisons
    assert set(np.concatenate([rows.chosen, rows.rejected])) <= set(np.concatenate([train.chosen, train.rejected]))
    prompts = {prompt: number for number, prompt in enumerate(dict.fromkeys(data.responses.prompts))}
    groups = np.array([prompts[prompt] for prompt in data.responses.prompts])
    fitted = hold_out_texts(train, groups, seed=0).fitted
    known = set(fitted.chosen) | set(fitted.rejected)
    new = np.array([[c not in known, r not in known] for c, r in zip(rows.chosen, rows.rejected, strict=True)])
    assert found.rows.tolist() == np.flatnonzero(new.any(axis=1)).tolist()
    assert len(found.rows)
    assert found.new.tolist() == new[found.rows].tolist()
    model = load_reward_model(tmp_path, TextReader.over(make_backbone("bert"), options), lambda dim: NoGate())
    asked = rows.take(found.rows)
    vectors = users.values[[users.ids.index(data.users.ids[user]) for user in asked.user]]
    chosen, rejected = (
        score_responses(model, data.responses, vectors, side) for side in (asked.chosen, asked.rejected)
    )
    np.testing.assert_allclose(found.margins, chosen - rejected, atol=1e-5)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"new_texts\.safetensors: missing"):
        NewTextMargins.load(tmp_path)
