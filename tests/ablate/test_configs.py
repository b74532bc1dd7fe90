"""The ready-made studies can be planned here: every name, option and value in them is known."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from copl.ablate.grid import plan
from copl.ablate.study import Flags, load_study
from copl.errors import OptionsError
from copl.plugins import load

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def test_the_studies_are_there() -> None:
    assert {path.name for path in CONFIGS.glob("*.toml")} >= {"paper-main.toml", "paper-ablation.toml", "small.toml"}


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.name)
def test_a_study_can_be_planned(path: Path, request: pytest.FixtureRequest) -> None:
    if "../downloads" in path.read_text(encoding="utf-8"):
        checkout = request.getfixturevalue("downloads").parent
        path = Path(shutil.copytree(CONFIGS, checkout / "configs", dirs_exist_ok=True)) / path.name
    planned = plan(load_study(path, Flags()), load())
    assert len(planned.variants) >= 2
    assert planned.num_cells == len(planned.variants) * len(planned.study.data) * len(planned.study.seeds)
    assert set(planned.left_out.values()) <= {"copl-baselines"}
    used = {variant.recipe.method.name for variant in planned.variants}
    assert "copl" in used


def test_a_study_says_what_to_fetch(tmp_path: Path) -> None:
    study = load_study(Path(shutil.copy(CONFIGS / "gates.toml", tmp_path)), Flags())
    with pytest.raises(OptionsError, match=re.escape("; get it by: copl data fetch polis/bowling-green --out ")):
        plan(study, load())


def test_the_small_study_on_the_embedded_corpus_needs_no_other_files() -> None:
    planned = plan(load_study(CONFIGS / "small.toml", Flags(data=["facets"])), load())
    assert [spec.name for spec in planned.study.data] == ["facets"]
    assert planned.reference == "best unpersonalised"
    assert {"btl", "consensus", "length"} <= set(planned.unpersonalised)


def test_all_variants_of_a_comparison_of_methods_read_the_same_texts() -> None:
    """The same backbone, template and limit in tokens: else a difference of methods may be one of texts."""
    for name in ("small.toml", "sharing.toml", "paper-main.toml", "report.toml"):
        flags = Flags(data=["facets"] if name in ("small.toml", "report.toml") else ())
        planned = plan(load_study(CONFIGS / name, flags), load())
        readings = {v.name: v.recipe.reading for v in planned.variants if v.recipe.reading is not None}
        assert len(readings) > 10
        assert {str(reading) for reading in readings.values()} == {str(readings["btl"])}, name


def test_the_published_settings_are_those_of_the_presets() -> None:
    planned = plan(load_study(CONFIGS / "paper-main.toml", Flags()), load())
    recipes = {variant.name: variant.recipe for variant in planned.variants}
    published = recipes["copl, as published"].stages
    assert (published.parts["encoder"].options.embedding_dim, published.parts["encoder"].options.num_layers) == (512, 4)
    assert published.parts["gate"].options.num_experts == 8
    assert published.options("reward").max_steps == 1500
    assert published.options("reward").learning_rate == 5e-5
    assert recipes["copl, published training, our graph and newcomers"].stages.options("reward").max_steps == 1500


def test_the_study_of_sharing_compares_every_method_at_each_position_of_the_dial() -> None:
    plugins = load()
    planned = plan(load_study(CONFIGS / "sharing.toml", Flags()), plugins)
    listed = {variant.recipe.method.name for variant in planned.variants} | set(planned.left_out)
    ours = {"copl", "copl-baselines"}
    assert listed >= {entry.component.name for entry in plugins.registry("method") if entry.package in ours}
    assert [spec.options["own_wording"] for spec in planned.study.data] == [0.0, 0.5, 1.0]
