from __future__ import annotations

from collections.abc import Callable

import pytest

from copl.interfaces import ExpertGate
from copl.reward.backbones.loaded import LoadedBackbone
from tests.reward.training.bench import Bench


@pytest.fixture
def bench(make_backbone: Callable[[str], LoadedBackbone], make_gate: Callable[..., ExpertGate]) -> Bench:
    return Bench(make_backbone, make_gate)
