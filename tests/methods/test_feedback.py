"""Methods learn from ties, thumbs, ratings and times, from files to scores."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from copl.data.dataset import load_dataset
from copl.errors import DataError
from copl.model import Model

RunCopl = Callable[..., tuple[int, str, str]]


def liked(user: int, text: int) -> bool:
    """Users of even number like texts of even number, and the others the others."""
    return user % 2 == text % 2


def lines(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"path={path}"


def thumb_log(count: int = 1500) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    rows = []
    for n in range(count):
        user, text = int(rng.integers(30)), int(rng.integers(24))
        up = liked(user, text) != (rng.random() < 0.1)
        row = {"user_id": f"user {user}", "prompt": f"question {text}", "response": f"answer {text}", "thumb": int(up)}
        rows.append({**row, "timestamp": 1_700_000_000 + n})
    return rows


@pytest.fixture(scope="module")
def thumbs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data`, a log of thumbs, and `run`, trained on it, in which evidence is halved every day."""
    from typer.testing import CliRunner

    from copl.cli import application

    root = tmp_path_factory.mktemp("thumbs")
    options = ("--set", "cold_fraction=0", "--set", "unseen_fraction=0.2")
    source = lines(root / "t.jsonl", thumb_log())
    recipe = ("--method", "graph", "--encoder", "mf", "--set", "method.half_life=1", "--no-cache")
    for arguments in (
        ("data", "make", "thumbs", "--set", source, *options, "--out", str(root / "data")),
        ("train", str(root / "data"), "--out", str(root / "run"), *recipe),
    ):
        outcome = CliRunner().invoke(application(), arguments)
        assert outcome.exit_code == 0, outcome.output
    return root


def test_a_log_of_single_thumbs_is_enough(thumbs: Path, run_copl: RunCopl) -> None:
    """No prompt has two answers, and yet everybody's taste is learnt, and a newcomer's."""
    model = Model.open(thumbs / "run")
    data = load_dataset(thumbs / "data")
    seen = sorted({data.users.ids[row] for row in data.judgements["train"].user.tolist()})
    right = 0
    for user in seen:
        number = int(user.split()[1])
        scores = [float(model.score(user, f"question {t}", [f"answer {t}"])[0]) for t in range(24)]
        own = np.array([liked(number, t) for t in range(24)])
        right += np.mean(np.array(scores)[own]) > np.mean(np.array(scores)[~own])
    assert right == len(seen)
    code, shown, err = run_copl("evaluate", str(thumbs / "run"), "--json")
    assert code == 0, err
    accuracy = {m["split"]: m["value"] for m in json.loads(shown) if m["metric"] == "accuracy" and m["subset"] == "all"}
    assert accuracy["test"] > 0.75
    assert accuracy["heldout"] > 0.75


def test_a_half_life_is_chosen_where_tastes_turn(tmp_path: Path, run_copl: RunCopl) -> None:
    """Everybody likes the opposite since the middle of the log."""
    rng = np.random.default_rng(1)
    rows = []
    day = 86_400
    for n in range(1200):
        user = int(rng.integers(20))
        even, odd = int(rng.integers(10)) * 2, int(rng.integers(10)) * 2 + 1
        first = (user % 2 == 0) == (n < 600)
        texts = (even, odd) if first else (odd, even)
        row = {"user_id": f"u{user}", "prompt": "p", "chosen": f"answer {texts[0]}", "rejected": f"answer {texts[1]}"}
        rows.append({**row, "timestamp": 1_700_000_000 + n * day // 10})
    options = ("--set", "strategy=time", "--set", "cold_fraction=0", "--set", "unseen_fraction=0")
    source = lines(tmp_path / "r.jsonl", rows)
    code, _, err = run_copl("data", "make", "jsonl", "--set", source, *options, "--out", str(tmp_path / "data"))
    assert code == 0, err
    accuracy = {}
    for choose in ("false", "true"):
        run = tmp_path / choose
        recipe = ("--method", "graph", "--encoder", "spectral", "--set", f"method.choose_half_life={choose}")
        code, _, err = run_copl("train", str(tmp_path / "data"), "--out", str(run), *recipe)
        assert code == 0, err
        code, shown, err = run_copl("evaluate", str(run), "--json")
        assert code == 0, err
        accuracy[choose] = next(
            m["value"] for m in json.loads(shown)
            if (m["split"], m["subset"], m["metric"]) == ("test", "all", "accuracy")
        )  # fmt: skip
    assert accuracy["true"] > accuracy["false"]
    assert accuracy["true"] > 0.8
    chosen = json.loads((tmp_path / "true" / "recency" / "recency.json").read_text())
    assert chosen["half_life"] is not None
    assert len(chosen["losses"]) == 6


def test_a_half_life_given_and_chosen_is_a_fault(tmp_path: Path, run_copl: RunCopl) -> None:
    sets = ("--set", "method.half_life=3", "--set", "method.choose_half_life=true")
    code, _, err = run_copl("config", "show", "--method", "graph", *sets)
    assert (code, "leave one out" in err) == (2, True)


@pytest.mark.parametrize("days", ["0", "-1", "nan", "soon"])
def test_a_half_life_is_a_number_of_days(run_copl: RunCopl, days: str) -> None:
    code, _, err = run_copl("config", "show", "--method", "graph", "--set", f"method.half_life={days}")
    assert (code, "half_life" in err) == (2, True)


def test_a_newcomer_whose_thumbs_are_all_up_is_known(thumbs: Path) -> None:
    model = Model.open(thumbs / "run")
    rows = [
        {"user_id": name, "prompt": f"question {t}", "response": f"answer {t}", "thumb": "up"}
        for name, begin in (("even", 0), ("odd", 1)) for t in range(begin, 16, 2)
    ]  # fmt: skip
    adapted = model.adapt(rows)
    for name, own in (("even", 16), ("odd", 17)):
        other = 33 - own
        scores = [model.score(name, f"question {t}", [f"answer {t}"], adapted=adapted)[0] for t in (own, other)]
        assert scores[0] > scores[1]
    alone = model.adapt([row for row in rows if row["user_id"] == "even"])
    assert np.allclose(alone.embeddings[0], adapted.embeddings[adapted.user_ids.index("even")], atol=1e-6)
    online = model.online("even")
    for row in rows:
        if row["user_id"] == "even":
            online.thumb(row["prompt"], row["response"], up=True)
    assert np.allclose(alone.embeddings[0], online.adapted.embeddings[0], atol=1e-6)


def test_evidence_grows_old_however_it_comes(thumbs: Path) -> None:
    """A newcomer who turned ten days ago is, by a half-life of one day, who they are now: at once and one by one."""
    model = Model.open(thumbs / "run")
    rows = [
        {"user_id": "new", "prompt": f"question {t}", "response": f"answer {t}", "thumb": "up" if up else "down",
         "timestamp": 1_700_000_000 + day * 86_400}
        for day, own in ((0, 0), (10, 1)) for t in range(8 * own, 8 * own + 8) for up in [t % 2 == own]
    ]  # fmt: skip
    adapted, online = model.adapt(rows), model.online("new")
    for row in rows:
        online.add_rows([row])
    assert np.allclose(adapted.embeddings, online.adapted.embeddings, atol=1e-5)
    even, odd = (model.score("new", f"question {t}", [f"answer {t}"], adapted=adapted)[0] for t in (16, 17))
    assert odd > even
    told = [model.explain("new", "question 17", "answer 17", support=some) for some in (rows, rows[8:])]
    assert told[0].score == pytest.approx(odd, abs=1e-5)
    assert told[0].score == pytest.approx(told[1].score, abs=0.1)  # what was said before hardly counts


def test_what_others_say_explains_nobody(thumbs: Path) -> None:
    model = Model.open(thumbs / "run")
    user = sorted(model.method.seen_users())[0]
    asked = (user, "question 2", "answer 2")
    other = [{"user_id": "other", "prompt": "question 1", "response": "answer 1", "thumb": "up"}]
    mine = [{**other[0], "user_id": user}]
    assert model.explain(*asked, support=other) == model.explain(*asked)
    own = model.explain(*asked, support=[*other, *mine])
    assert own == model.explain(*asked, support=mine)
    assert own.num_answers == model.explain(*asked).num_answers + 1
    assert own.score == pytest.approx(model.score(*asked[:2], [asked[2]], adapted=model.adapt(mine))[0], abs=1e-5)


def test_everything_may_be_said_one_after_another(thumbs: Path) -> None:
    model = Model.open(thumbs / "run")
    user = model.online("new")
    user.rate("question 1", "answer 1", 5)
    user.rate("question 2", "answer 2", 1)
    user.add("question 3", chosen="answer 3", rejected="answer 4")
    user.tie("question 5", "answer 5", "answer 7")
    last = user.tie("question 5", "answer 6", "answer 8", both_bad=True)
    rows = [
        {"prompt": "question 1", "response": "answer 1", "rating": 5},
        {"prompt": "question 2", "response": "answer 2", "rating": 1},
        {"prompt": "question 3", "chosen": "answer 3", "rejected": "answer 4"},
        {"prompt": "question 5", "response_a": "answer 5", "response_b": "answer 7", "winner": "tie"},
        {"prompt": "question 5", "response_a": "answer 6", "response_b": "answer 8", "winner": "both_bad"},
    ]
    at_once = model.adapt([{"user_id": "new", **row} for row in rows])
    assert np.allclose(last.embeddings, at_once.embeddings, atol=1e-5)
    with pytest.raises(DataError, match="other"):
        user.add_rows([{"user_id": "other", **rows[0]}])
    with pytest.raises(DataError, match="rating"):
        user.rate("question 1", "answer 1", float("nan"))
    assert np.allclose(user.adapted.embeddings, at_once.embeddings, atol=1e-5)
