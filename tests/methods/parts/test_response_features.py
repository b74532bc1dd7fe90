"""Text embeddings from the recipe's backbone as node features of the graph."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from copl.data.dataset import load_dataset
from copl.errors import OptionsError
from copl.methods.parts.response_features import wants_response_features
from copl.methods.parts.user_space import UserSpace
from copl.plugins import load
from copl.reward.reading.reader import TextReader
from copl.runs.recipe import resolve
from copl.runs.workspace import RunWorkspace
from copl.system.progress import SilentProgress

ENCODER = {"name": "lightgcn", "num_steps": 2, "embedding_dim": 4}


def stages(tiny_model, method="copl", **encoder):
    draft = {"method": {"name": method}, "encoder": {**ENCODER, **encoder}, "backbone": {"name": str(tiny_model)}}
    return resolve(draft, load()).stages


def test_all_responses_are_embedded_where_the_encoder_asks_for_features(small_data, tiny_model, tmp_path):
    data, asked = load_dataset(small_data), stages(tiny_model, response_features=True)
    workspace, reader = RunWorkspace(tmp_path, SilentProgress()), TextReader.of(asked)
    reader.read(data.responses, workspace)
    space = UserSpace.fit(data, asked, reader, seed=0, workspace=workspace)
    assert space.trained.response_keys == data.responses.keys
    train = data.split("train").comparisons
    cold = np.setdiff1d(np.arange(len(data.responses)), np.concatenate([train.chosen, train.rejected]))
    assert len(cold) > 1
    placed = space.trained.responses[torch.from_numpy(cold)]
    assert torch.unique(placed, dim=0).shape[0] > 1  # their texts tell them apart


def test_the_key_holds_the_backbone_only_where_it_matters(small_data, tiny_model):
    data = load_dataset(small_data)
    with_features, without = stages(tiny_model, response_features=True), stages(tiny_model)
    reader = TextReader.of(with_features)
    assert UserSpace.key(data, with_features, reader, 0)["features"] == reader.key
    assert "backbone" in reader.key
    assert "features" not in UserSpace.key(data, without, reader, 0)


def test_encoders_that_know_no_features_ask_for_none(tiny_model):
    draft = {"encoder": {"name": "mf"}, "backbone": {"name": str(tiny_model)}}
    assert not wants_response_features(resolve(draft, load()).stages)


def test_a_method_without_a_backbone_is_told():
    draft = {"method": {"name": "graph"}, "encoder": {**ENCODER, "response_features": True}}
    with pytest.raises(OptionsError, match=r"encoder.lightgcn: .* this method has no backbone"):
        wants_response_features(resolve(draft, load()).stages)
