"""The ablations of ``gcf`` by options: each runs, stays finite, and is not what it is an ablation of."""

from __future__ import annotations

import itertools

import pytest
import torch

from copl.options import parse_options
from copl.plugins import load
from copl.system.progress import SilentProgress
from copl.testing.planted import planted_graph

GCF = load().registry("encoder").get("gcf").component
QUICK = {"start": "spectral", "num_epochs": 2, "validate_every": 1, "embedding_dim": 4}
CHOICES = {
    "formula": ["paper", "released"],
    "weights": ["shared", "separate"],
    "negative_edges": [True, False],
    "hadamard": [True, False],
    "num_layers": [1, 3],
}


def fit(**values):
    encoder = GCF.build(parse_options(GCF.options, {**QUICK, **values}, where="gcf"))
    return encoder.fit(planted_graph().graph, seed=0, progress=SilentProgress())


@pytest.mark.parametrize("formula", CHOICES["formula"])
def test_every_combination_runs_and_differs_from_every_other(formula):
    found = {}
    rest = {name: choices for name, choices in CHOICES.items() if name != "formula"}
    for combination in itertools.product(*rest.values()):
        embeddings = fit(formula=formula, **dict(zip(rest, combination, strict=True)))
        assert torch.isfinite(embeddings.users).all()
        assert torch.isfinite(embeddings.responses).all()
        found[combination] = embeddings.users
    for one, other in itertools.combinations(found, 2):
        assert not torch.equal(found[one], found[other]), (one, other)
