"""``copl align``: a line an answer, the same after a kill; faults before anything is written."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from copl.align import conduct
from copl.align.aligners.best_of_n import BestOfN
from copl.data.dataset import load_dataset
from copl.model import Model
from copl.reward.quality import QualityReward

RunCopl = Callable[..., tuple[int, str, str]]
PROMPTS = ["Why does my bread not rise?", "How do I clean a keyboard?", "How do I choose a good password?"]


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text("\n\n".join(PROMPTS) + "\n", encoding="utf-8")
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def rows(path: Path, objects: Sequence[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in objects), encoding="utf-8")
    return path


@pytest.fixture
def align(run_copl: RunCopl, personal_run: Path, prompts: Path, tmp_path: Path) -> Callable[..., Any]:
    def run(*words: object, asked: Path = prompts, out: str = "out.jsonl", writer: str = "facets") -> Any:
        command = ["align", personal_run, asked, "--generator", writer, "--out", tmp_path / out, *words]
        code, _, err = run_copl(*command)
        return (code, err, lines(tmp_path / out)) if code == 0 else (code, err, None)

    return run


def test_each_user_gets_an_answer_to_each_prompt_with_the_rewards_of_the_model(
    align: Callable[..., Any], personal_run: Path
) -> None:
    code, err, answers = align("--user", "seen-0001", "--user", "seen-0000", "--user", "seen-0001", "--num", 4)
    assert code == 0, err
    assert [(a["prompt"], a["user_id"]) for a in answers] == [
        (p, u) for p in PROMPTS for u in ("seen-0001", "seen-0000")
    ]
    model = Model.open(personal_run)
    for answer in answers:
        own = model.score(answer["user_id"], answer["prompt"], answer["candidates"])
        assert len(set(answer["candidates"])) == 4
        assert answer["rewards"] == pytest.approx(own, abs=1e-5)
        assert answer["response"] == answer["candidates"][answer["choice"]] == answer["candidates"][int(np.argmax(own))]
        assert answer["confidence"] == pytest.approx(np.exp(max(own)) / np.exp(own).sum(), abs=1e-5)
        assert answer["user_known"] is True
        assert "note" not in answer


def test_a_stranger_gets_what_the_average_user_likes_and_it_says_so(
    align: Callable[..., Any], personal_run: Path
) -> None:
    code, err, answers = align("--user", "seen-000", "--user", "seen-0002")
    assert code == 0
    assert "user 'seen-000' is unknown" in err
    model = Model.open(personal_run)
    for stranger, known in zip(answers[::2], answers[1::2], strict=True):
        assert stranger["user_known"] is False
        assert "nothing is known of this user" in stranger["note"]
        assert stranger["response"] == stranger["unpersonalised"] == known["unpersonalised"]
        with pytest.warns(UserWarning, match="neither trained nor adapted"):
            average = model.score("nobody", stranger["prompt"], stranger["candidates"])
        assert stranger["choice"] == int(np.argmax(average))


def test_newcomers_come_from_a_file_or_are_adapted_on_the_spot(
    align: Callable[..., Any], run_copl: RunCopl, personal_run: Path, small_data: Path, tmp_path: Path
) -> None:
    assert run_copl("adapt", personal_run, small_data, "--out", tmp_path / "new.safetensors")[0] == 0
    code, _, answers = align("--users", tmp_path / "new.safetensors", "--user", "unseen-0003")
    assert code == 0
    assert {a["user_id"] for a in answers} == {"unseen-0003"}
    assert all(a["user_known"] for a in answers)
    code, _, all_of_them = align("--support", small_data, out="all.jsonl")
    assert len(all_of_them) == 10 * len(PROMPTS)
    assert [a for a in all_of_them if a["user_id"] == "unseen-0003"] == answers
    code, _, everybody = align("--everybody", "--aligner", "none", out="everybody.jsonl")
    assert len(everybody) == 40 * len(PROMPTS)


def test_a_newcomer_whose_words_tell_nothing_is_unknown_and_it_says_so(
    run_copl: RunCopl, small_run: Path, prompts: Path, tmp_path: Path
) -> None:
    """The run's method knows a response by training alone, and nobody has judged these."""
    said = {"prompt": PROMPTS[0], "chosen": "The yeast is old.", "rejected": "Bake it for longer."}
    support = rows(tmp_path / "support.jsonl", [{"user_id": "new", **said}])
    out, new = tmp_path / "out.jsonl", tmp_path / "new.safetensors"
    code, _, err = run_copl("align", small_run, prompts, "--generator", "facets", "--support", support, "--out", out)
    assert code == 0, err
    assert "3 are to users nobody knows" in err
    assert all(not answer["user_known"] and "nothing is known" in answer["note"] for answer in lines(out))
    assert run_copl("adapt", small_run, support, "--out", new)[0] == 0
    code, _, err = run_copl("score", small_run, out, "--users", new, "--out", tmp_path / "scores.jsonl")
    assert code == 0, err
    assert [row["user_known"] for row in lines(tmp_path / "scores.jsonl")] == [False] * 3


def test_a_quality_stands_beside_taste_in_answers_and_rows(
    align: Callable[..., Any],
    run_copl: RunCopl,
    personal_run: Path,
    prompts: Path,
    classifier: Callable[..., Path],
    tmp_path: Path,
) -> None:
    path = classifier("bert", 1)
    users = ("--user", "seen-0000", "--user", "seen-0001")
    code, err, answers = align(*users, "--quality", path, "--quality-weight", 0.5)
    assert code == 0, err
    model, quality = Model.open(personal_run), QualityReward(path, weight=0.5)
    for answer in answers:
        both = model.score(answer["user_id"], answer["prompt"], answer["candidates"], quality=quality)
        assert answer["rewards"] == pytest.approx(both, abs=1e-5)
        assert answer["choice"] == int(np.argmax(both))
    ranked = tmp_path / "rows.jsonl"
    words = ("--generator", "facets", "--aligner", "dpo", "--rows", ranked, "--set", "aligner.near=0")
    code, _, err = run_copl("align", personal_run, prompts, *words, *users, "--quality", path, "--quality-weight", 1e6)
    assert code == 0, err
    own = [[row["chosen"] for row in lines(ranked) if row["user_id"] == user] for user in users[1::2]]
    assert own[0] == own[1]  # taste no longer counts
    code, err, _ = align(*users, "--quality-weight", 1)
    assert (code, "--quality-weight belongs to a quality reward" in err) == (2, True)


def test_the_oracle_is_worth_most(align: Callable[..., Any], small_data: Path) -> None:
    from copl.align.truth import KnownTruth
    from copl.records.answers import AnswerRequests

    _, _, best = align("--everybody", "--aligner", "oracle", out="oracle.jsonl")
    truth = KnownTruth.of(load_dataset(small_data))
    for answer in best[::17]:
        asked = AnswerRequests([answer["user_id"]], [answer["prompt"]], [answer["candidates"]])
        assert answer["choice"] == int(np.argmax(truth.utilities(asked)[0][0]))


def test_what_was_written_can_be_the_candidates_of_another_run(align: Callable[..., Any], tmp_path: Path) -> None:
    _, _, first = align("--user", "seen-0000")
    code, err, again = align(
        "--user", "seen-0000", "--set", f"generator.path={tmp_path / 'out.jsonl'}", writer="table", out="again.jsonl"
    )
    assert code == 0, err
    assert "fewer than" not in err
    assert again == first
    few = ["--user", "seen-0000", "--num", 100, "--set", f"generator.path={tmp_path / 'out.jsonl'}"]
    code, err, few_answers = align(*few, writer="table", out="few.jsonl")
    assert code == 0, err
    assert f"generator 'table' has fewer than the 100 candidates of --num for {len(PROMPTS)} prompts" in err
    assert [answer["response"] for answer in few_answers] == [answer["response"] for answer in first]


def test_prompts_are_messages_or_rows_and_may_repeat(align: Callable[..., Any], tmp_path: Path) -> None:
    messages = [{"role": "user", "content": PROMPTS[0]}]
    asked = rows(tmp_path / "p.jsonl", [{"prompt": messages, "id": 7}, {"prompt": PROMPTS[0]}, {"prompt": PROMPTS[1]}])
    code, err, answers = align("--user", "seen-0000", asked=asked)
    assert code == 0, err
    assert [a["prompt"] for a in answers] == [PROMPTS[0], PROMPTS[0], PROMPTS[1]]
    assert answers[0] == answers[1]


class Interrupted:
    """Best of n that is interrupted at the second part."""

    calls = 0

    def __init__(self, options: Any) -> None:
        self._own = BestOfN(options)

    def answers(self, requests: Any, context: Any) -> Any:
        type(self).calls += 1
        if type(self).calls == 2:
            raise KeyboardInterrupt
        return self._own.answers(requests, context)


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from attrs import evolve

    from copl import plugins
    from copl.align.aligners import best_of_n

    (component,) = best_of_n.COMPONENTS
    Interrupted.calls = 0
    monkeypatch.setattr(best_of_n, "COMPONENTS", [evolve(component, build=Interrupted)])
    plugins.load.cache_clear()
    yield
    plugins.load.cache_clear()


def test_an_interrupted_run_goes_on_and_ends_with_the_same_bytes(
    align: Callable[..., Any], interrupted: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(conduct, "PROMPTS_AT_ONCE", 1)
    words = ("--user", "seen-0000", "--user", "unknown")
    code, err, _ = align(*words)
    assert code == 130
    assert "the same command goes on from there" in err
    assert not (tmp_path / "out.jsonl").exists()
    code, err, answers = align(*words)
    assert code == 0
    assert "wrote 6 answers" in err
    assert "2 of them from before; of the new ones" in err
    assert "2 are to users nobody knows" in err
    assert len(answers) == 6
    align(*words, out="at-once.jsonl")
    assert (tmp_path / "at-once.jsonl").read_bytes() == (tmp_path / "out.jsonl").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["at-once.jsonl", "out.jsonl", "prompts.txt"]


def test_what_was_begun_for_others_is_dropped_and_that_is_said(
    align: Callable[..., Any], interrupted: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conduct, "PROMPTS_AT_ONCE", 1)
    assert align("--user", "seen-0000")[0] == 130
    code, err, answers = align("--user", "unknown")
    assert (code, len(answers)) == (0, 3)
    assert "out.jsonl: 1 answers were begun there by another run, or for other prompts, users or settings" in err


@pytest.mark.parametrize(
    ("words", "faults"),
    [
        (["--num", 0, "--aligner", "best-of-m"], ["--num 0: at least one candidate", "unknown aligner 'best-of-m'"]),
        (["--set", "alignr.x=1", "--set", "aligner.x=1"], ["--set alignr: unknown section", "unknown option 'x'"]),
        (["--set", "nonsense"], ["--set nonsense: expected stage.key=value"]),
        (["--user", " "], ["--user: empty text"]),
        ([], ["nobody to answer: name users by --user"]),
        (["--users", "a", "--support", "b"], ["--users and --support: give one of them"]),
        (["--users", "no-such.safetensors"], ["no-such.safetensors: missing"]),
    ],
)
def test_faults_are_lines_and_nothing_is_written(
    words: list[object], faults: list[str], align: Callable[..., Any], tmp_path: Path
) -> None:
    code, err, _ = align(*words)
    assert code == 2
    assert len(err.splitlines()) == len(faults)
    for line, fault in zip(err.splitlines(), faults, strict=True):
        assert fault in line
    assert [path.name for path in tmp_path.iterdir()] == ["prompts.txt"]


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("p.txt", b"", "the file is empty"),
        ("p.txt", b" \n\n", "there are no prompts"),
        ("p.txt", b"fine\n\xff\xfe bad\n", "line 2: not text in UTF-8"),
        ("p.jsonl", b'{"promt": "x"}\n', "no column 'prompt' (did you mean 'promt'?)"),
        ("p.jsonl", b'{"prompt": []}\n', "line 1: prompt: the list of messages is empty"),
        ("p.csv", b"prompt\n", "there are no rows"),
        ("p.docx", b"x", "unknown kind of file '.docx'"),
        ("p.txt", b"What is love?\nWhy?\n", "is no prompt of the embedded corpus"),
    ],
)
def test_prompts_that_will_not_do(
    name: str, content: bytes, fault: str, align: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    code, err, _ = align("--user", "seen-0000", asked=path)
    assert code == 2
    assert fault in err
    assert not (tmp_path / "out.jsonl").exists()


def test_the_seed_is_that_of_the_recipe_and_everybody_are_those_the_method_knows(
    run_copl: RunCopl, small_data: Path, prompts: Path, tmp_path: Path
) -> None:
    def first_of(run: Path, *words: object) -> Any:
        out = tmp_path / "first.jsonl"
        command = ["align", run, prompts, "--generator", "facets", "--aligner", "none", "--out", out, *words]
        code, _, err = run_copl(*command)
        return [answer["response"] for answer in lines(out)] if code == 0 else err

    for method, words in (("graph", ["--encoder", "none"]), ("length", [])):
        code, _, err = run_copl(
            "train", small_data, "--out", tmp_path / method, "--method", method, "--seed", 3, *words
        )
        assert code == 0, err
    user = ["--user", "seen-0000"]
    assert first_of(tmp_path / "graph", *user) == first_of(tmp_path / "graph", *user, "--seed", 3)
    assert first_of(tmp_path / "graph", *user) != first_of(tmp_path / "graph", *user, "--seed", 0)
    assert "--everybody: the run's method knows no users" in first_of(tmp_path / "length", "--everybody")


def test_rows_need_two_candidates(align: Callable[..., Any], tmp_path: Path) -> None:
    code, err, _ = align("--user", "seen-0000", "--aligner", "dpo", "--rows", tmp_path / "rows.jsonl", "--num", 1)
    assert code == 2
    assert err.strip().endswith("--num 1: a row of --rows has two candidates; take at least --num 2")


def test_a_directory_is_no_output(align: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    code, err, _ = align("--user", "seen-0000", out="there")
    assert code == 2
    assert "there: is a directory; name a file" in err


def test_the_output_is_no_input(align: Callable[..., Any], prompts: Path) -> None:
    code, err, _ = align("--user", "seen-0000", out=prompts.name)
    assert code == 2
    assert "is what is read; choose another file" in err
    assert prompts.read_text(encoding="utf-8").startswith(PROMPTS[0])


def test_rows_and_answers_are_two_files(align: Callable[..., Any], tmp_path: Path) -> None:
    rows = tmp_path / "there" / ".." / "out.jsonl"
    code, err, _ = align("--user", "seen-0000", "--aligner", "dpo", "--rows", rows)
    assert code == 2
    assert "--out and --rows: both name" in err
    assert not (tmp_path / "out.jsonl").exists()
