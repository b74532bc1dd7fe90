"""The benchmarks of adaptation at tiny sizes: that the commands run, keep what is finished and write their tables."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks import adapt_accuracy, adapt_questions, adapt_speed
from benchmarks.adapt_data import PLANTED, first_of_each, make, planted_options
from benchmarks.planted_cases import CASES, options_of
from copl.data.sources.planted import generate
from copl.plugins import load

SMALL = ["--sets", "planted 2 x 7", "--seeds", "1", "--encoder", "mf", "--scale", "0.02"]


@pytest.mark.slow
@pytest.mark.usefixtures("cells_here")
def test_the_tables_of_accuracy_and_questions_are_made_and_cells_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapt_accuracy, "code_digest", lambda *places: "as it is")  # may be edited meanwhile
    out, fits = tmp_path / "accuracy.md", tmp_path / "fits"
    given = [*SMALL, "--fits", str(fits), "--out", str(out)]
    adapt_accuracy.main(given)
    table = out.read_text(encoding="utf-8")
    for name in load().registry("adapter").names():
        assert f"| {name} " in table
    assert "with 7 comparisons, as share of the seen users' accuracy" in table
    kept = out.with_suffix(".jsonl").read_text(encoding="utf-8")
    adapt_accuracy.main(given)
    assert out.with_suffix(".jsonl").read_text(encoding="utf-8") == kept
    assert len(list(fits.iterdir())) == 1
    questions = tmp_path / "questions.md"
    adapt_questions.main([*SMALL, "--fits", str(fits), "--out", str(questions)])
    assert "informative ones to the same accuracy" in questions.read_text(encoding="utf-8")
    assert len(list(fits.iterdir())) == 1  # the same embeddings serve both


def test_the_table_of_times_is_made(tmp_path: Path) -> None:
    out = tmp_path / "speed.md"
    adapt_speed.main(["--scale", "0.01", "--repeats", "1", "--out", str(out)])
    table = out.read_text(encoding="utf-8")
    assert table.count("| empirical ") == table.count("| dense two-hop ") == 2


def test_the_dense_two_hop_is_the_sparse_one() -> None:
    support, trained = adapt_speed.problem(20, 2000, 8, seed=1)
    dense = adapt_speed.dense_two_hop(support, trained)
    sparse = load().registry("adapter").create("two-hop", {"response_bias": False}).adapt(support, trained)
    near = np.array(sparse.how) == "two-hop"
    assert near.sum() > 10
    np.testing.assert_allclose(dense[near], sparse.embeddings[near], atol=1e-5)


@pytest.mark.parametrize("name", PLANTED)
def test_the_seen_users_of_a_planted_set_are_those_that_encoders_are_measured_on(name: str) -> None:
    data = make(name, 1, 0.01)
    graph, _ = generate(options_of(CASES[PLANTED[name]], 0.01), 1)
    assert data.responses.keys == graph.responses.keys
    assert data.users.ids[: len(graph.users)] == graph.users.ids
    assert data.users.groups[: len(graph.users)] == graph.users.groups
    for split in ("train", "validation", "test"):
        ours, theirs = data.splits[split], graph.splits[split]
        for column in ("user", "chosen", "rejected", "controversial"):
            np.testing.assert_array_equal(getattr(ours, column), getattr(theirs, column))


@pytest.mark.parametrize("name", PLANTED)
def test_unseen_users_of_a_planted_set_give_sixteen_comparisons_and_are_judged_on_trained_pairs(name: str) -> None:
    options = planted_options(name)
    assert (options.num_seen_users, options.num_unseen_users) == (10_000, 1_000)
    assert (options.num_pairs, options.num_cold_pairs) == (30_000, 3_000)
    data = make(name, 0, 0.01)
    support, heldout = data.splits["support"], data.splits["heldout"]
    unseen, given = np.unique(support.user, return_counts=True)
    assert len(unseen) == 10
    assert given.tolist() == [16] * 10
    assert np.unique(heldout.user).tolist() == unseen.tolist()
    pairs = {name: rows.chosen // 2 for name, rows in data.splits.items()}
    assert len(np.unique(np.concatenate(list(pairs.values())))) <= 270  # a tenth of 300 pairs is never compared
    for user in unseen:
        assert not set(pairs["support"][support.user == user]) & set(pairs["heldout"][heldout.user == user])


def test_first_comparisons_are_of_each_user() -> None:
    support = make("planted 2 x 7", 0, 0.01).split("support")
    few = first_of_each(support, 3)
    assert np.bincount(few.comparisons.user)[few.comparisons.user].tolist() == [3] * len(few)
    assert len(few) == 3 * len(np.unique(support.comparisons.user))


def test_needed_questions_by_hand() -> None:
    curve = [0.5, 0.6, 0.55, 0.8]
    assert adapt_questions.needed(curve, 0.5) == 0.0
    assert adapt_questions.needed(curve, 0.55) == pytest.approx(0.5)
    assert adapt_questions.needed(curve, 0.7) == pytest.approx(2.5)
    assert math.isinf(adapt_questions.needed(curve, 0.9))


def test_an_interval_by_hand() -> None:
    # standard error 0.1 / sqrt(2), and Student's t of one degree of freedom is 12.706
    assert adapt_accuracy.interval([0.8, 0.9]) == f"0.850 ± {12.706 * 0.05:.3f}"
    assert adapt_accuracy.interval([0.5]) == "0.500 (1 seed)"
