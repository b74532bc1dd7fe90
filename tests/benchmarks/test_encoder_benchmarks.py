"""The benchmarks of encoders at tiny sizes: that the commands run, keep what is finished and write their tables."""

from __future__ import annotations

import importlib
import json
import math
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch

from benchmarks.encoder_scale import growth
from benchmarks.encoder_speed import curve_of, seconds_to
from benchmarks.encoders import Entrant, Findings, Study, entrant, headroom, mean_of, report
from benchmarks.measured import Cells, in_own_process, measure
from benchmarks.planted_cases import CASES, accuracies, options_of
from copl.errors import OptionsError, UnknownComponentError
from copl.records import Comparisons, NodeEmbeddings, PreferenceData, ResponseTable, UserTable
from copl.runs.recipe import DEFAULTS


def run(module: str, *arguments: str, out: Path) -> None:
    """Run a benchmark as its command does."""
    main = importlib.import_module(f"benchmarks.{module}").main
    main([*arguments, "--threads", "1", "--out", str(out)])


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.slow
@pytest.mark.usefixtures("cells_here")
def test_the_table_of_encoders_is_made_and_finished_fits_are_kept(tmp_path: Path) -> None:
    out = tmp_path / "encoders.md"
    given = ["--cases", "none", "--case", "mine:num_groups=3,num_train=5", "--seeds", "1", "--scale", "0.01"]
    given += ["--encoders", "mf", "--set", "mf.num_steps=9"]
    run("encoders", *given, out=out)
    table = out.read_text(encoding="utf-8")
    assert "| encoder | mine |" in table
    assert "100 users in 3 groups, 5 training comparisons each, 300 pairs" in table
    assert "`mf`: with num_steps = 9" in table
    kept = records(out.with_suffix(".jsonl"))
    assert [record["cell"]["what"] for record in kept] == ["limits", "fit"]
    fit = kept[1]["result"]
    assert 0 < fit["all"] <= 1
    assert fit["peak_mib"] >= fit["start_mib"] > 0
    run("encoders", *given, out=out)
    assert records(out.with_suffix(".jsonl")) == kept
    assert out.read_text(encoding="utf-8").splitlines()[8:] == table.splitlines()[8:]


@pytest.mark.slow
@pytest.mark.usefixtures("cells_here")
def test_the_tables_of_speed_and_size_are_made(tmp_path: Path) -> None:
    speed, size = tmp_path / "speed.md", tmp_path / "size.md"
    small = [
        "--set",
        "num_epochs=1",
        "--set",
        "embedding_dim=4",
        "--runs",
        "1",
        "--scale",
        "0.01",
        "--step-scale",
        "0.01",
    ]
    run("encoder_speed", *small, "--steps", "1", "--dim", "8", "--layers", "2", out=speed)
    table = speed.read_text(encoding="utf-8")
    assert "Failed" not in table
    assert "published recipe" in table
    assert "times as fast" in table
    run("encoder_scale", "--encoder", "mf", "--set", "num_steps=3", "--sizes", "60,120", out=size)
    rows = [line for line in size.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    assert [row.split("|")[1:4] for row in rows[2:]] == [[" 60 ", " 120 ", " 960 "], [" 120 ", " 240 ", " 1,920 "]]


def test_the_first_case_is_the_one_of_the_methods() -> None:
    options = options_of(CASES["2x7"])
    assert (options.num_seen_users, options.num_pairs - options.num_cold_pairs) == (10_000, 27_000)
    assert (options.num_groups, options.num_train, options.controversial_share) == (2, 7, 0.5)
    assert options_of(CASES["3x11"], scale=0.1).num_pairs == 900


def test_an_entrant_is_an_encoder_with_a_preset_and_options() -> None:
    one = entrant("gcf:paper", {"num_epochs": "5"})
    assert (one.encoder, one.options["embedding_dim"], one.options["num_epochs"]) == ("gcf", 512, 5)
    assert one.options["patience"] == 2
    with pytest.raises(OptionsError, match="did you mean 'paper'"):
        entrant("gcf:papre", {})
    with pytest.raises(UnknownComponentError, match="unknown encoder 'gfc'"):
        entrant("gfc", {})


def test_accuracy_counts_ties_and_unknown_responses_half() -> None:
    # the second user and the last response are not embedded
    data = PreferenceData(
        "toy",
        UserTable.ungrouped(["a", "b"]),
        ResponseTable(["p"] * 4, ["0", "1", "2", "3"]),
        {"test": Comparisons([0, 0, 1, 0], [0, 1, 0, 3], [1, 0, 2, 2], controversial=np.array([1, 1, 0, 0]))},
    )
    embeddings = NodeEmbeddings(
        ("a",),
        data.responses.keys[:3],
        torch.tensor([[1.0, 0.0]]),
        torch.tensor([[2.0, 0.0], [1.0, 5.0], [0.0, 0.0]]),
        torch.tensor([0.0, 0.0, 0.0]),
        Comparisons.empty(),
    )
    # margins 1, -1, 0 (nothing is known of the user), 0
    assert accuracies(embeddings, data) == {"all": 0.5, "controversial": 0.5, "common": 0.5}
    biased = attrs.evolve(embeddings, response_bias=torch.tensor([0.5, 0.0, -0.5]))
    # margins 1.5, -1.5, 1, 0.5
    assert accuracies(biased, data) == {"all": 0.75, "controversial": 0.5, "common": 1.0}


DEFAULT = DEFAULTS["encoder"]


def _study() -> tuple[Study, Findings]:
    study = Study(
        {"2x7": attrs.asdict(options_of(CASES["2x7"]))}, [Entrant("mf", {}, ""), Entrant(DEFAULT, {}, "")], [0, 1]
    )
    found = Findings()
    for seed in study.seeds:
        found.limits["2x7", seed] = {"consensus": 0.7, "mixture": 0.89, "limit": 0.9, "asked": 10, "digest": "x"}
        costs = {"wall_s": 1.0, "cpu_s": 2.0, "peak_mib": 300.0, "controversial": 0.7, "common": 0.9}
        found.fits["2x7", "mf", seed] = {"all": 0.8 + 0.02 * seed, **costs}
    found.fits["2x7", DEFAULT, 0] = {"all": 0.9, **costs}
    found.fits["2x7", DEFAULT, 1] = {"error": "not finished after 1 s"}
    return study, found


def test_headroom_and_its_table_by_hand() -> None:
    study, found = _study()
    assert headroom(found, "2x7", "mf", 0) == pytest.approx(0.5)
    assert math.isnan(headroom(found, "2x7", DEFAULT, 1))
    text = report(study, found, "command", threads=1)
    # .5 and .6: mean .55, standard error .05, Student's t of one degree of freedom 12.706
    assert "| mf | 0.550 ± 0.635 |" in text
    assert text.index(f"| **{DEFAULT}** | 1.000 |") < text.index("| mf | 0.550")
    assert f"{DEFAULT}, seed 1: not finished after 1 s" in text


def test_means_have_intervals_from_two_seeds_on() -> None:
    assert mean_of([0.5], ".2f") == "0.50"
    assert mean_of([0.5, float("nan")], ".2f") == "0.50"
    assert mean_of([], ".2f") == "-"


def test_growth_is_an_exponent() -> None:
    def cell(seconds: float, mib: float) -> dict[str, Any]:
        return {"fitting": {"cpu_s": seconds, "peak_mib": 300 + mib}, "making": {"start_mib": 300}}

    assert growth(cell(2, 10), cell(20, 1000), 10, "cpu_s") == "1.00"
    assert growth(cell(2, 10), cell(20, 1000), 10, "peak_mib") == "2.00"


def test_memory_is_that_of_the_block() -> None:
    with measure() as first:
        held = np.ones(8_000_000)  # 61 MiB
    del held
    with measure() as second:
        pass
    assert first.peak_mib - first.start_mib > 55
    assert second.peak_mib < first.peak_mib
    assert first.wall_s > 0


def test_a_line_cut_short_is_no_result_and_a_failure_is_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "cells.jsonl"
    lines = [{"cell": {"a": 1}, "result": {"x": 2}}, {"cell": {"a": 2}, "result": {"error": "killed"}}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"cell": {"a": 3}, "resu', encoding="utf-8")
    cells = Cells(path)
    assert cells.get({"a": 1}) == {"x": 2}
    assert cells.get({"a": 2}) is None
    assert cells.get({"a": 3}) is None


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ('{"answer": 42}', {"answer": 42}),
        (
            "{",
            {
                "error": "json.decoder.JSONDecodeError: Expecting property name enclosed in double quotes: "
                "line 1 column 2 (char 1)"
            },
        ),
    ],
)
def test_a_cell_in_a_process_of_its_own_gives_its_result_or_its_last_line(text: str, result: dict[str, Any]) -> None:
    assert in_own_process("json:loads", {"s": text}, threads=1) == result


def test_a_cell_that_takes_too_long_is_ended() -> None:
    assert in_own_process("json:loads", {"s": "{}"}, threads=1, timeout=0.01) == {"error": "not finished after 0.01 s"}


def test_a_fit_has_an_accuracy_from_when_its_log_shows_it() -> None:
    records = [
        {"elapsed_s": 1.0, "precision 1, accuracy": 0.6, "loss": 9.0},
        {"elapsed_s": 2.0, "validation_accuracy": 0.5},
        {"elapsed_s": 3.0, "validation_accuracy": 0.7},
    ]
    fit = {"curve": curve_of(records), "wall_s": 4.0}
    assert fit["curve"] == [(1.0, 0.6), (3.0, 0.7)]
    assert [seconds_to(fit, accuracy) for accuracy in (0.55, 0.65, 0.75)] == [1.0, 3.0, 4.0]
