from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path

import pytest

from copl.data.dataset import load_dataset
from copl.model import Model
from copl.runs.explaining import load_reasons
from copl.runs.results import evaluation_of

RunCopl = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def run(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the graph alone, and its data beside it."""
    from typer.testing import CliRunner

    from copl.cli import application

    root = tmp_path_factory.mktemp("explained")
    shutil.copytree(small_data, root / "data")
    arguments = ["train", str(root / "data"), "--out", str(root / "run"), "--method", "graph", "--encoder", "mf"]
    outcome = CliRunner().invoke(application(), arguments)
    assert outcome.exit_code == 0, outcome.output
    return root


def test_a_score_is_explained_in_parts_that_add_up(run: Path, run_copl: RunCopl) -> None:
    data = load_dataset(run / "data")
    train = data.splits["train"]
    user = data.users.ids[int(train.user[0])]
    code, shown, err = run_copl("explain", str(run / "run"), "--user", user, "--json")
    assert code == 0, err
    told = json.loads(shown)
    model = Model.open(run / "run")
    first, second = model.score(user, told["prompt"], [told["response"], told["against"]])
    assert told["score"] == pytest.approx(first - second, abs=1e-5)
    assert sum(part["amount"] for part in told["parts"]) == pytest.approx(told["score"], abs=1e-6)
    own = [part for part in told["parts"] if part["source"] == "own answer"]
    assert {part["chosen"] for part in own} <= set(data.responses.texts)
    assert len(own) == told["num_answers"] == int((train.user == train.user[0]).sum())
    code, shown, _ = run_copl("explain", str(run / "run"), "--user", user)
    assert code == 0
    assert "the user's own answers" in shown
    assert "how sure" in shown


def test_a_response_is_explained_against_the_average_one(run: Path) -> None:
    model = Model.open(run / "run")
    data = load_dataset(run / "data")
    train = data.splits["train"]
    row = int(train.chosen[0])
    user, prompt, text = data.users.ids[int(train.user[0])], data.responses.prompts[row], data.responses.texts[row]
    reasons = model.explain(user, prompt, text)
    assert reasons.against is None
    assert reasons.score == pytest.approx(model.score(user, prompt, [text])[0], abs=1e-5)


def test_newcomers_are_explained_by_what_they_say(run: Path, tmp_path: Path, run_copl: RunCopl) -> None:
    data = load_dataset(run / "data")
    train = data.splits["train"]
    rows = [
        {"user_id": "new", "prompt": data.responses.prompts[c], "chosen": data.responses.texts[c],
         "rejected": data.responses.texts[r]}
        for c, r in zip(train.chosen[:5].tolist(), train.rejected[:5].tolist(), strict=True)
    ]  # fmt: skip
    (tmp_path / "s.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    first = rows[0]
    code, shown, err = run_copl(
        "explain", str(run / "run"), "--user", "new", "--support", str(tmp_path / "s.jsonl"), "--prompt",
        first["prompt"], "--response", first["chosen"], "--against", first["rejected"], "--json",
    )  # fmt: skip
    assert code == 0, err
    told = json.loads(shown)
    assert told["num_answers"] == 5
    assert next(part["amount"] for part in told["parts"] if part["chosen"] == first["chosen"]) > 0
    named = ("--user", "new", "--support", tmp_path / "s.jsonl", "--json")
    code, shown, err = run_copl("explain", run / "run", *named)  # the first of what the newcomer has compared
    assert (code, json.loads(shown)) == (0, told), err


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (("--user", "nobody"), "no user 'nobody' in the data"),
        (("--user", "seen-0000", "--prompt", "p"), "give --prompt and --response together"),
        (("--user", "seen-0000", "--against", "p"), "give --prompt and --response together"),
        (("--user", "seen-0000", "--prompt", " ", "--response", "r"), "prompt: empty text"),
        (
            ("--user", "seen-0000", "--prompt", "p", "--response", "r", "--against", " r"),
            "the two responses are the same text",
        ),
    ],
)
def test_mistakes_are_a_line(run: Path, run_copl: RunCopl, arguments: tuple[str, ...], fault: str) -> None:
    code, shown, err = run_copl("explain", str(run / "run"), *arguments)
    assert (code, shown, fault in err) == (2, "", True)


def test_texts_that_are_gone_are_said_to_be(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "run", tmp_path / "run")
    model = Model.open(tmp_path / "run")
    data = load_dataset(run / "data")
    train = data.splits["train"]
    user = data.users.ids[int(train.user[0])]
    (run / "data").rename(run / "elsewhere")
    try:
        reasons = model.explain(user, "p", "some text")
    finally:
        (run / "elsewhere").rename(run / "data")
    assert {part.chosen for part in reasons.parts if part.source == "own answer"} == {
        "a text that is not in the data any more"
    }


def test_the_report_says_why_in_numbers_that_add_up(small_run: Path) -> None:
    """Two users who judged a pair otherwise: what makes the score of each, and the score is the model's."""
    reasons = load_reasons(evaluation_of(small_run))
    assert len({one.user for one in reasons}) == len(reasons) == 2
    model = Model.open(small_run)
    data = load_dataset(model.run.data_directory)
    newcomers = model.adapt(data.split("support"))
    for one in reasons:
        first, second = model.score(one.user, one.prompt, [one.response, str(one.against)], adapted=newcomers)
        assert one.score == pytest.approx(first - second, abs=1e-5)
        assert one.score > 0  # what the user wants, and the model knew
        assert sum(part.amount for part in one.parts) == pytest.approx(one.score, abs=1e-5)
        lines = one.lines(num_shown=2)
        assert sum(line.amount for line in lines if not line.is_detail) == pytest.approx(one.score, abs=1e-5)
        place = next(n for n, line in enumerate(lines) if line.words == one.words["own answer"])
        below = [line.amount for line in takewhile(lambda line: line.is_detail, lines[place + 1 :])]
        assert sum(below) == pytest.approx(lines[place].amount, abs=1e-6)
    assert (reasons[0].response, reasons[0].against) == (reasons[1].against, reasons[1].response)
    page = (small_run / "report.html").read_text(encoding="utf-8")
    assert "<h2>Why</h2>" in page
    assert page.count("score, made of:") == 2
    for one in reasons:
        assert f"{one.score:+.3f}" in page


def test_of_thumbs_to_two_prompts_one_is_explained_until_there_is_a_comparison(
    run: Path, run_copl: RunCopl, tmp_path: Path
) -> None:
    said = tmp_path / "said.jsonl"
    thumbs = [("Tea?", "Yes.", "up"), ("Coffee?", "No.", "down")]
    rows = [{"user_id": "new", "prompt": p, "response": text, "thumb": thumb} for p, text, thumb in thumbs]
    said.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    code, shown, err = run_copl("explain", str(run / "run"), "--user", "new", "--support", said, "--json")
    assert code == 0, err
    told = json.loads(shown)
    assert [told[name] for name in ("prompt", "response", "against")] == ["Tea?", "Yes.", None]
    rows.append({"user_id": "new", "prompt": "Coffee?", "response": "Please.", "thumb": "up"})
    said.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    code, shown, err = run_copl("explain", str(run / "run"), "--user", "new", "--support", said, "--json")
    assert code == 0, err
    told = json.loads(shown)
    assert [told[name] for name in ("prompt", "response", "against")] == ["Coffee?", "Please.", "No."]
