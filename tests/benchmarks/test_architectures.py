"""The cheap half of the sweep over architectures: one of each kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import architectures
from benchmarks.architectures import CASES, COLUMNS, YES, examine
from benchmarks.model_folders import FOLDERS, refusal
from benchmarks.tiny_models import model_types

_NONE = "refused: transformers has no linear classifier on "
KINDS: dict[str, dict[str, str]] = {
    "qwen3": {},
    "gpt2": {},  # linear layers the other way round
    "opt": {"bfloat16, prefix space, mean": f"{_NONE}OPTModel"},
    "gemma3": {"bfloat16, prefix space, mean": f"{_NONE}Gemma3TextModel"},
    "mixtral": {},
    "phi3": {},  # moves by 1e-4 when its weights change by their last bit
    "roberta": {},  # positions count from behind the padding
    "deberta-v2": {},
    "modernbert": dict.fromkeys(CASES, f"{_NONE}ModernBertModel"),  # whose classifiers are curved
    "albert": {"kept states": "refused: reward.trainable_layers is 1, but AlbertModel has 1 layers"},
}


@pytest.mark.filterwarnings("ignore")  # what transformers says of models with random weights
@pytest.mark.parametrize("model_type", KINDS)
def test_an_architecture_opens_reads_and_leaves_as_it_should_or_says_why_not(model_type: str, tmp_path: Path) -> None:
    cells = examine(model_type, tmp_path)
    for name in COLUMNS:
        if name != "adapters":
            assert cells[name].startswith(KINDS[model_type].get(name, YES)), (name, cells[name])
    assert not cells["adapters"].startswith(("refused", "FAULT"))


@pytest.mark.filterwarnings("ignore")
def test_convolutions_that_read_padding_are_refused(tmp_path: Path) -> None:
    assert (
        "ConvBertModel reads padding: a text has another hidden state beside a longer one"
        in (examine("convbert", tmp_path)["opens"])
    )


@pytest.mark.filterwarnings("ignore")
def test_layers_that_cannot_be_cached_or_adapted_say_what_to_set(tmp_path: Path) -> None:
    cells = examine("squeezebert", tmp_path)
    assert cells["opens"] == YES
    assert cells["kept states"].endswith("set reward.trainable_layers to 0")
    assert "set mixture.target_modules to some of its linear modules" in cells["adapters"]


@pytest.mark.parametrize("name", FOLDERS)
def test_folders_that_are_no_backbone_are_refused_with_a_reason_and_run_nothing(name: str, tmp_path: Path) -> None:
    write, reason = FOLDERS[name]
    said = refusal(write, tmp_path / "folder")
    assert said.startswith("refused: "), said
    assert reason in said


def test_the_table_counts_what_was_tried() -> None:
    found = {
        "a": dict.fromkeys(COLUMNS, YES),
        "b": {**dict.fromkeys(COLUMNS, YES), "alone": "FAULT: 0.1 apart"},
        "c": {"opens": "not tried: 5 parameters"},
    }
    page = architectures.table(found, {"GGUF": "refused"})
    assert "3 architectures that read text; 2 could be made tiny and were tried; 2 of them are exported" in page
    assert "1 cells are faults" in page
    assert "1. FAULT: 0.1 apart" in page
    assert len(model_types()) > 200
