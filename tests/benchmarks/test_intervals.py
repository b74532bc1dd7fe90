"""The simulation of intervals: many trials at once say what one at a time does, and its two figures fit together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.intervals import Kept, Runs, Sampled, seeds, single
from benchmarks.intervals_at_once import crossed
from benchmarks.measured import Cells
from copl.evaluate.bootstrap import crossed_mean


@pytest.mark.parametrize("in_pairs", [False, True], ids=["prompts", "responses"])
@pytest.mark.parametrize("num_texts", [4, 90])
def test_many_trials_at_once_have_the_intervals_of_each(num_texts: int, *, in_pairs: bool) -> None:
    """Of 90 texts some are in no comparison. Values are spread, so that no resample is cut off at the highest."""
    rng = np.random.default_rng(num_texts)
    users = np.repeat(np.arange(12), 5)
    texts = rng.integers(num_texts, size=(20, 60))
    if in_pairs:
        texts = np.stack([texts, (texts + rng.integers(1, num_texts, size=texts.shape)) % num_texts], axis=2)
    values = rng.normal(size=(20, 60))
    values[:, :2] = -9.0, 9.0
    found = crossed(values, users, texts, seed=3, num_resamples=80)
    for trial in range(20):
        _, low, high = crossed_mean(values[trial], [users, texts[trial]], seed=3, num_resamples=80)
        assert (found.low[trial], found.high[trial]) == (pytest.approx(low), pytest.approx(high))


@pytest.mark.parametrize("anew", [False, True])
def test_a_difference_is_found_wherever_its_interval_leaves_out_zero(*, anew: bool) -> None:
    covers, false, reach = seeds(
        Runs(3, 0.05, anew), Sampled(20, 8, 0.08, 0.08, False), rng=np.random.default_rng(1), trials=60
    )
    assert covers + false == pytest.approx(1)
    assert covers > 0.8
    assert reach > 0


def test_intervals_over_users_alone_do_not_know_of_texts() -> None:
    covers, alone, _ = single(Sampled(60, 8, 0.0, 0.15, False), 0.65, rng=np.random.default_rng(2), trials=100)
    assert covers > 0.85 > alone


def test_a_finished_row_is_not_simulated_again(tmp_path: Path) -> None:
    asked = []

    def simulate() -> tuple[float, float, float]:
        asked.append("row")
        return 0.95, 0.05, 0.1234

    for _ in range(2):
        kept = Kept(Cells(tmp_path / "rows.jsonl"), 10, "code")
        assert [*kept.of(iter([(("a row",), simulate)]))] == [("a row", "95.0", "5.0", "0.123")]
    assert asked == ["row"]
    other = Kept(Cells(tmp_path / "rows.jsonl"), 10, "other code")
    assert len([*other.of(iter([(("a row",), simulate)]))]) == len(asked) - 1
