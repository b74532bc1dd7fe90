"""What a study asks for: TOML and flags, and every mistake at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from copl.ablate.study import Axis, DataSpec, Flags, HandWritten, load_study
from copl.errors import OptionsError

FILE = """
title = "everything"
seeds = [3, 5]
reference = "plain"

[base]
encoder = "mf"
"reward.max_steps" = 4
[base.adapter]
max_share = 0.5

[data.corpus]
source = "facets"
options = { num_prompts = 30 }
seed = 2
per_seed = true
[data.votes]
directory = "made/votes"

[vary]
method = ["copl", "btl"]
"encoder.num_steps" = [5, 10]
gate.num_experts = [2]

[[variants]]
name = "plain"
values = { gate = "none", mixture = { shared_rank = 0 } }
[[variants]]
name = "other"
requires = "some-package"
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "study.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_study_is_read_from_toml(tmp_path: Path) -> None:
    study = load_study(write(tmp_path, FILE), Flags())
    assert (study.title, study.seeds, study.reference) == ("everything", (3, 5), "plain")
    assert study.base == {
        "encoder": {"name": "mf"},
        "reward": {"max_steps": 4},
        "adapter": {
            "name": "empirical",
            "max_share": 0.5,
        },  # whose option it is, so that it goes when another is chosen
    }
    assert study.data == (
        DataSpec("corpus", None, "facets", {"num_prompts": 30}, 2, True),
        DataSpec("votes", tmp_path / "made/votes"),
    )
    assert study.axes == (
        Axis("method", "name", ("copl", "btl")),
        Axis("encoder", "num_steps", (5, 10)),
        Axis("gate", "num_experts", (2,)),
    )
    plain = HandWritten("plain", {"gate": {"name": "none"}, "mixture": {"shared_rank": 0}})
    assert study.variants == (plain, HandWritten("other", {}, "some-package"))


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    flags = Flags(
        vary=["encoder.num_steps=7", "adapter=mean,empirical"],
        data=[f"corpus,{tmp_path / 'mine'}"],
        num_seeds=3,
        reference="btl",
        settings=["encoder.name=gcf"],
    )
    study = load_study(write(tmp_path, FILE), flags)
    assert study.axes[1] == Axis("encoder", "num_steps", ("7",))
    assert study.axes[3] == Axis("adapter", "name", ("mean", "empirical"))
    assert [spec.name for spec in study.data] == ["corpus", "mine"]
    assert study.data[1].directory == tmp_path / "mine"
    assert (study.seeds, study.reference) == ((0, 1, 2), "btl")
    assert study.base["encoder"] == {"name": "gcf"}


def test_all_mistakes_of_file_and_flags_are_told_at_once(tmp_path: Path) -> None:
    broken = """
    titel = "x"
    seeds = 0
    base = 3
    [data.corpus]
    sorce = "facets"
    [data.both]
    source = "facets"
    directory = "d"
    [data.there]
    directory = "d"
    per_seed = true
    [vary]
    method = "copl"
    [[variants]]
    values = {}
    [[variants]]
    name = "v"
    values = { gate = 3 }
    """
    flags = Flags(vary=["method", "encoder.=3"], data=["corpsu"], num_seeds=0, settings=["x"])
    with pytest.raises(OptionsError) as caught:
        load_study(write(tmp_path, broken), flags)
    found = "\n".join(caught.value.faults)
    for fault in (
        "study: unknown option 'titel' (did you mean 'title'?)",
        "study.seeds: must be their number, at most 10,000, or a list of different whole numbers from 0 up to 2^63 - 1",
        "study.base: expected table, got 3",
        "data.corpus: unknown option 'sorce' (did you mean 'source'?)",
        "data.both: name either a directory or a source",
        "data.there: options, seed and per_seed belong to a source",
        "vary: method must be a list of values, got 'copl'",
        "variant 1: option 'name' is required: what it is called in tables",
        "variant 'v': gate must be the name of a component or a table of options, got 3",
        "--vary method: expected stage=a,b",
        "--vary encoder.=3: expected stage=a,b",
        "--data corpsu: neither a directory nor a data set of the study (did you mean 'corpus'?)",
        "--seeds 0: at least one, and at most 10,000",
        "--set x: expected stage.key=value",
    ):
        assert fault in found, fault
    assert str(tmp_path / "study.toml") in caught.value.faults[0]


def test_a_seed_that_no_generator_takes_is_a_mistake(tmp_path: Path) -> None:
    study = f'seeds = [{2**63}]\n[data.corpus]\nsource = "facets"\nseed = {2**63}'
    with pytest.raises(OptionsError) as caught:
        load_study(write(tmp_path, study), Flags())
    one, other = caught.value.faults
    assert f"study.seeds: expected int | list of int, got [{2**63}]" in one
    assert f"data.corpus.seed: expected int | none, got {2**63}" in other


@pytest.mark.parametrize("number", [10_001, 2**62])
def test_more_seeds_than_anybody_can_mean_are_a_mistake(number: int, tmp_path: Path) -> None:
    with pytest.raises(OptionsError) as caught:
        load_study(write(tmp_path, f'seeds = {number}\n[data.corpus]\nsource = "facets"'), Flags(num_seeds=number))
    one, other = caught.value.faults
    assert f"at most 10,000, or a list of different whole numbers from 0 up to 2^63 - 1, got {number}" in one
    assert other == f"--seeds {number}: at least one, and at most 10,000"


def test_a_file_that_is_none_and_a_study_without_data(tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match="no such file"):
        load_study(tmp_path / "none.toml", Flags())
    with pytest.raises(OptionsError, match="not a readable TOML file"):
        load_study(write(tmp_path, "= 3"), Flags())
    with pytest.raises(OptionsError, match="no data set"):
        load_study(None, Flags(vary=["encoder=mf"]))


def test_two_directories_of_one_name_are_a_mistake(tmp_path: Path) -> None:
    for parent in ("a", "b"):
        (tmp_path / parent / "d").mkdir(parents=True)
    with pytest.raises(OptionsError, match="two data sets are called 'd'"):
        load_study(None, Flags(data=[str(tmp_path / "a" / "d"), str(tmp_path / "b" / "d")]))
