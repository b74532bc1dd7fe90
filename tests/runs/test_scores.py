"""Rewards of many users, prompts and responses: alone, together, in parallel, on one scale, and beside a quality."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from copl import Model
from copl.data.dataset import load_dataset
from copl.data.requests import row_requests
from copl.errors import BackboneError, DataError, OptionsError, RunError
from copl.model import UnknownUserWarning
from copl.records import PreferenceData, ScoreRequests, UserTable
from copl.reward.calibration import fitted_weight
from copl.reward.quality import QualityReward
from copl.reward.reading import kept, steady
from copl.runs.reference import reference_of

if TYPE_CHECKING:
    import torch

PROMPTS = ["How do I boil an egg?", [{"role": "user", "content": "Tea?"}, {"role": "assistant", "content": "No."}]]
ANSWERS = [["Place the egg in cold water.", "Eight minutes.", "Why?"], ["Coffee then.", "A good walk."]]


@pytest.fixture(scope="module")
def model(trained_run: Path) -> Model:
    return Model.open(trained_run)


@pytest.fixture(scope="module")
def data(small_data: Path) -> PreferenceData:
    return load_dataset(small_data)


@pytest.fixture(scope="module")
def users(model: Model) -> list[str]:
    return list(model.method.seen_users())[:3]


def rows_of(users: list[str]) -> list[dict[str, Any]]:
    return [
        {"user_id": user, "prompt": prompt, "response": answer}
        for user in users
        for prompt, answers in zip(PROMPTS, ANSWERS, strict=True)
        for answer in answers
    ]


def test_rows_and_tables_have_the_scores_of_texts_asked_for_alone(
    model: Model, users: list[str], trained_run: Path
) -> None:
    together = model.score_many(rows_of(users))
    table = model.score_table(users, PROMPTS, ANSWERS)
    assert [part.shape for part in table] == [(3, 3), (3, 2)]
    assert np.concatenate([part[row] for row in range(3) for part in table]).tolist() == together
    alone = []
    for row in rows_of(users):
        fresh = Model.open(trained_run)  # nothing is remembered
        alone += fresh.score(row["user_id"], row["prompt"], [row["response"]])
    assert together == pytest.approx(alone, abs=1e-6)
    assert len(set(together)) > 10
    backwards = Model.open(trained_run).score_many(rows_of(users)[::-1])
    assert backwards[::-1] == pytest.approx(together, abs=1e-6)


def test_many_new_texts_are_each_read_once_whatever_fits_into_memory(
    trained_run: Path, users: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [" ".join(["How", "do", "I", "boil", "an", "egg"][: 1 + n % 6]) for n in range(20)]  # the model knows them
    rows = [
        {"user_id": users[0], "prompt": f"{n % 2 * 'Tea '}{word}", "response": f"{n}"} for n, word in enumerate(words)
    ]
    expected = Model.open(trained_run).score_many(rows)
    fresh = Model.open(trained_run)
    fresh.score(users[0], "Tea?", ["No."])  # the backbone is open and tried out
    reader = fresh.method.fitted[1].model.reader  # type: ignore[attr-defined]
    assert not fresh.method.fitted[1]._scorer._codes.zero  # type: ignore[attr-defined]
    read: list[int] = []
    embed = type(reader.backbone.model.get_input_embeddings()).forward

    def counting(module: Any, ids: torch.Tensor) -> torch.Tensor:
        read.append(int(ids.numel()))
        return embed(module, ids)

    monkeypatch.setattr(steady, "_WIDTH", 1)
    monkeypatch.setattr(steady, "_ROWS", 1)
    monkeypatch.setattr("copl.reward.reading.reader._TEXTS_AT_ONCE", 4)
    monkeypatch.setattr(kept, "_IN_MEMORY_BYTES", 4 * 30 * 16 * 4 + 4 * 400)  # hidden states of four texts
    monkeypatch.setattr(type(reader.backbone.model.get_input_embeddings()), "forward", counting)
    found = fresh.score_many(rows)
    lengths = reader.tokens(row_requests(rows).responses, np.arange(20)).lengths
    # the layers below the adapted ones once, prompts that are the same in a part together; the passes above those
    # layers, with adapters and without, start at embeddings that are thrown away
    assert 2 * lengths.sum() < sum(read) <= 3 * lengths.sum()
    assert found == pytest.approx(expected, abs=1e-5)
    assert sum(tensor.nbytes for tensor in reader._states._recent.values()) <= kept._IN_MEMORY_BYTES


def test_threads_get_the_scores_of_one_after_the_other(model: Model, users: list[str], trained_run: Path) -> None:
    shared, rows = Model.open(trained_run), rows_of(users)
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(shared.score, row["user_id"], row["prompt"], [row["response"]]) for row in rows * 3]
        found = [call.result()[0] for call in calls]
    assert found == pytest.approx(model.score_many(rows) * 3, abs=1e-6)


def test_nothing_asked_is_nothing_answered(model: Model, users: list[str]) -> None:
    assert model.score_many([]) == []
    assert model.score_many(iter(rows_of(users))) == model.score_many(rows_of(users))
    assert model.score_many([], calibrated=True) == []
    assert model.score_table([], PROMPTS, ANSWERS)[1].shape == (0, 2)
    assert model.score_table(users, [], []) == []
    assert [part.shape for part in model.score_table(users, PROMPTS, [[], ["Yes."]])] == [(3, 0), (3, 1)]


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda model: model.score_many([{"user_id": "a", "prompt": "p"}]), "no column 'response'"),
        (lambda model: model.score_many([{"user_id": "a", "prompt": "p", "response": 3}]), "row 1"),
        (lambda model: model.score_many({"user_id": "a"}), "a list of objects"),
        (lambda model: model.score_many(["a"]), "a list of objects"),
        (lambda model: model.score_many(None), "a list of objects"),
        (lambda model: model.score_table("ann", ["p"], [["r"]]), "a list of users"),
        (lambda model: model.score_table(["ann"], ["p"], [["r"], ["s"]]), "a list of responses for each"),
        (lambda model: model.score_table([None], ["p", ""], ["r", [float("nan")]]), "3 faults|user 1"),
    ],
)
def test_what_is_no_request_is_refused(model: Model, ask: Callable[[Model], Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        ask(model)


def test_unknown_users_are_warned_of_once(model: Model, users: list[str]) -> None:
    with pytest.warns(UnknownUserWarning, match="user 'n1', 'n2', 'n3' and 1 more is neither") as caught:
        rewards = model.score_many(rows_of(["n4", "n1", users[0], "n3", "n2"]))
    assert len(caught) == 1
    assert rewards[:5] == rewards[5:10]
    assert caught[0].filename == __file__


def test_on_one_scale_the_reference_has_mean_0_and_spread_1_to_everybody(model: Model, data: PreferenceData) -> None:
    everybody = UserTable.ungrouped([*model.method.seen_users(), "stranger"])
    reference = reference_of(model.run)
    count = len(reference)
    user, response = np.repeat(np.arange(len(everybody)), count), np.tile(np.arange(count), len(everybody))
    asked = ScoreRequests(everybody, reference, user, response)
    rewards = model.scores(asked, calibrated=True).reshape(len(everybody), count)
    np.testing.assert_allclose(rewards.mean(axis=1), 0.0, atol=1e-6)
    np.testing.assert_allclose(rewards.std(axis=1), 1.0, atol=1e-6)
    compared = data.split("train").comparisons
    trained = {data.responses.keys[row] for row in [*compared.chosen.tolist(), *compared.rejected.tolist()]}
    assert set(reference.keys) <= trained


def test_calibration_changes_no_ranking_and_no_score_by_its_company(model: Model, users: list[str]) -> None:
    rows = rows_of(users)
    plain, scaled = model.score_many(rows), model.score_many(rows, calibrated=True)
    for begin in range(0, len(rows), 5):
        assert np.argsort(plain[begin : begin + 5]).tolist() == np.argsort(scaled[begin : begin + 5]).tolist()
    alone = [model.score(row["user_id"], row["prompt"], [row["response"]], calibrated=True)[0] for row in rows]
    assert alone == pytest.approx(scaled, abs=1e-6)
    adapted = model.adapt([{"user_id": "new", "prompt": PROMPTS[0], "chosen": "Why?", "rejected": "Eight minutes."}])
    own = model.score("new", PROMPTS[0], ANSWERS[0], adapted=adapted, calibrated=True)
    assert np.argsort(own).tolist() == np.argsort(model.score("new", PROMPTS[0], ANSWERS[0], adapted=adapted)).tolist()


def test_a_run_of_an_earlier_version_says_how_to_get_a_reference(
    users: list[str], trained_run: Path, tmp_path: Path
) -> None:
    from copl.runs.sharing import save_portable

    save_portable(Model.open(trained_run).run, tmp_path / "copy")
    copied = Model.from_pretrained(tmp_path / "copy")
    assert len(copied.score_many(rows_of(users), calibrated=True)) == 15
    (tmp_path / "copy" / "reference.json").unlink()
    rows = rows_of(users)
    earlier = tmp_path / "earlier"
    shutil.copytree(trained_run, earlier)
    (earlier / "reference.json").unlink()  # its data are where they were
    assert Model.open(earlier).score_many(rows, calibrated=True) == copied.score_many(rows, calibrated=True)
    without = Model.open(tmp_path / "copy")
    with pytest.raises(RunError, match="`copl train` with the same --out adds them"):
        without.score_many(rows, calibrated=True)


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_quality_is_added_with_its_weight_and_ranks_alone_where_it_outweighs_taste(
    kind: str, model: Model, users: list[str], classifier: Callable[..., Path]
) -> None:
    quality = QualityReward(classifier(kind, 1), weight=2.0)
    personal = np.array(model.score_many(rows_of(users), calibrated=True))
    both = np.array(model.score_many(rows_of(users), calibrated=True, quality=quality))
    added = both - personal
    np.testing.assert_allclose(added[:5], added[5:10], atol=1e-9)  # the same for everybody
    doubled = np.array(model.score_many(rows_of(users), calibrated=True, quality=quality.weighted(4.0)))
    np.testing.assert_allclose(doubled - personal, 2 * added, atol=1e-9)
    assert np.ptp(added) > 0.1
    nothing = model.score_many(rows_of(users), quality=quality.weighted(0.0))
    assert nothing == model.score_many(rows_of(users))


def test_two_labels_give_log_odds_and_more_want_a_name(classifier: Callable[..., Path], model: Model) -> None:
    path = classifier("bert", 2)
    rows = np.arange(20)
    first, second = (QualityReward(path, label=place).scores(reference_of(model.run), rows) for place in (0, 1))
    np.testing.assert_allclose(first, -second, atol=1e-9)
    assert QualityReward(path).scores(reference_of(model.run), rows).tolist() == second.tolist()
    three = classifier("bert", 3)
    with pytest.raises(OptionsError, match="3 labels; name the one that is good: LABEL_0"):
        QualityReward(three)
    assert np.isfinite(QualityReward(three, label="LABEL_2").scores(reference_of(model.run), rows)).all()
    with pytest.raises(OptionsError, match="no label 'good'; it has LABEL_0"):
        QualityReward(three, label="good")


def test_what_is_no_classifier_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=r"no trained sequence classifier: it lacks score\.weight"):
        QualityReward(tiny_model)
    with pytest.raises(BackboneError, match="no complete model"):
        QualityReward(tmp_path)
    with pytest.raises(OptionsError, match="finite"):
        QualityReward(tiny_model, weight=float("nan"))


def test_the_weight_is_the_one_that_made_the_comparisons() -> None:
    rng = np.random.default_rng(0)
    personal, quality = rng.normal(size=(2, 20_000))
    flip = np.where(rng.random(20_000) < 1 / (1 + np.exp(-2 * (personal + 0.7 * quality))), 1.0, -1.0)
    assert fitted_weight(flip * personal, flip * quality) == pytest.approx(0.7, abs=0.05)
    assert fitted_weight(flip * personal, -flip * quality) == 0.0  # never against quality


def test_copl_score_takes_both(
    run_copl: Callable[..., tuple[int, str, str]],
    trained_run: Path,
    users: list[str],
    model: Model,
    classifier: Callable[..., Path],
    tmp_path: Path,
) -> None:
    import json

    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in rows_of(users)))
    path, out = classifier("bert", 1), tmp_path / "out.jsonl"

    def rewards(*arguments: object) -> list[float]:
        assert run_copl("score", trained_run, rows, "--out", out, *arguments)[0] == 0
        return [json.loads(line)["reward"] for line in out.read_text().splitlines()]

    expected = model.score_many(rows_of(users), calibrated=True, quality=QualityReward(path, weight=0.5))
    arguments = ("--calibrated", "--quality", path, "--quality-weight", 0.5)
    assert rewards(*arguments) == pytest.approx(expected, abs=1e-6)
    assert len(rewards("--quality", path)) == len(expected)  # the weight by the validation split
    code, _, error = run_copl("score", trained_run, rows, "--out", out, "--quality-weight", 1)
    assert (code, "--quality-weight belongs to a quality reward" in error) == (2, True)
