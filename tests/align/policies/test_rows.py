"""Personal preference rows: which pairs become some, and how they are written."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from copl import Model
from copl.align.policies import extra
from copl.align.policies.rows import RowOptions, plain_prompt, preference_rows, write_rows
from copl.data.chat import messages_of
from copl.errors import DataError
from copl.records.answers import AnswerRequests, CandidateRewards

EVERYTHING = RowOptions(near=0.0, pairs=10)


def made(texts: Sequence[Sequence[str]], rewards: Sequence[Sequence[float]], options: RowOptions = EVERYTHING) -> Any:
    requests = AnswerRequests(["ann"], [f"prompt {n}" for n in range(len(texts))], texts)
    personal = [np.array([values], dtype=np.float64) for values in rewards]
    worth = CandidateRewards(tuple(personal), tuple(table[0] for table in personal))
    return preference_rows(requests, worth, [True], options, {"kind": "ranked"})


def pairs(rows: Any) -> list[tuple[str, str]]:
    return [(row.chosen, row.rejected) for row in rows.rows]


def test_best_stands_against_worst_and_no_text_twice() -> None:
    rows = made([["a", "bb", "ccc", "dddd", "e!"]], [[1.0, 5.0, 3.0, 4.0, 2.0]])
    assert pairs(rows) == [("bb", "a"), ("dddd", "e!")]
    assert [row.margin for row in rows.rows] == [4.0, 2.0]
    assert rows.rows[0].provenance == {"kind": "ranked", "rewards": [5.0, 1.0], "places": [1, 0], "num_candidates": 5}
    assert pairs(made([["a", "b", "c", "d"]], [[1.0, 2.0, 3.0, 4.0]], RowOptions(pairs=1, near=0.0))) == [("d", "a")]


def test_near_ties_and_equal_texts_are_left_out() -> None:
    rows = made([["a", "b", "c", "d"]], [[0.0, 1.0, 1.1, 3.0]], RowOptions(near=0.5))
    assert pairs(rows) == [("d", "a")]
    assert rows.num_near == 1
    rows = made([["Same.", " same. ", "other"]], [[2.0, 1.0, 1.5]])
    assert pairs(rows) == [("Same.", "other")]
    assert made([["a", "b"]], [[1.0, 1.0]]).num_near == 1
    assert made([["alone"]], [[1.0]]).rows == ()


def test_a_text_that_answers_two_prompts_is_in_one_row() -> None:
    rows = made([["a", "b"], ["a", "c"], ["d", "c"]], [[2.0, 1.0], [2.0, 1.0], [2.0, 1.0]])
    assert pairs(rows) == [("a", "b"), ("d", "c")]
    assert rows.num_repeated == 1


def test_lengths_are_balanced_where_asked_for() -> None:
    texts = [[f"long long {n}", f"s{n}"] for n in range(4)]
    worth = [[1.0, 0.0], [3.0, 0.0], [2.0, 0.0], [0.0, 1.0]]
    rows = made(texts, worth, RowOptions(near=0.0, balance=True))
    assert [row.longer for row in rows.rows] == [1, -1]
    assert rows.rows[0].margin == 3.0
    assert rows.num_unbalanced == 2


def test_users_nobody_knows_have_no_rows() -> None:
    requests = AnswerRequests(["ann", "bob"], ["p"], [["a", "b"]])
    worth = CandidateRewards((np.array([[1.0, 0.0], [0.0, 1.0]]),), (np.zeros(2),))
    rows = preference_rows(requests, worth, [False, True], EVERYTHING, {})
    assert [(row.user_id, row.chosen) for row in rows.rows] == [("bob", "b")]
    assert rows.num_unknown == 1


@given(st.lists(st.lists(st.tuples(st.text("ab ", min_size=1), st.floats(-3, 3)), min_size=1), min_size=1))
def test_rows_are_always_what_they_say(candidates: list[list[tuple[str, float]]]) -> None:
    texts = [[f"x{text}" for text, _ in some] for some in candidates]
    rows = made(texts, [[value for _, value in some] for some in candidates], RowOptions(near=0.3, balance=True))
    used = [text.split() for row in rows.rows for text in (row.chosen, row.rejected)]
    assert len({"".join(words) for words in used}) == len(used)
    assert all(row.margin > 0 for row in rows.rows)


def test_rows_are_what_trl_reads(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = made([["a", "b"], ["c", "d"]], [[1.0, 0.0], [0.0, 2.0]])
    write_rows(tmp_path / "rows.jsonl", rows.rows)
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert lines[1] == {
        "prompt": [{"role": "user", "content": "prompt 1"}],
        "chosen": [{"role": "assistant", "content": "d"}],
        "rejected": [{"role": "assistant", "content": "c"}],
        "user_id": "ann",
        "margin": 2.0,
        "provenance": {"kind": "ranked", "rewards": [2.0, 0.0], "places": [1, 0], "num_candidates": 2},
    }
    assert datasets.Dataset.from_json(str(tmp_path / "rows.jsonl"), cache_dir=str(tmp_path)).column_names[:3] == [
        "prompt",
        "chosen",
        "rejected",
    ]
    with pytest.raises(DataError, match=r"ends in \.jsonl"):
        write_rows(tmp_path / "rows.csv", rows.rows)
    with pytest.raises(DataError, match="no rows to write"):
        write_rows(tmp_path / "none.jsonl", [])
    assert not (tmp_path / "none.jsonl").exists()


@pytest.mark.filterwarnings("ignore")  # of other packages
def test_trl_trains_a_step_on_them(tiny_model: Path, tmp_path: Path) -> None:
    trl, datasets = extra.trl(), pytest.importorskip("datasets")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    write_rows(tmp_path / "rows.jsonl", made([["a", "b"], ["c", "d"]], [[1.0, 0.0], [0.0, 2.0]]).rows)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.chat_template = "{% for turn in messages %}{{ turn['role'] }}: {{ turn['content'] }}\n{% endfor %}"
    options = {"max_steps": 1, "use_cpu": True, "bf16": False, "report_to": [], "save_strategy": "no"}
    trainer = trl.DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(tiny_model),
        args=trl.DPOConfig(output_dir=str(tmp_path / "out"), logging_steps=1, disable_tqdm=True, **options),
        train_dataset=datasets.Dataset.from_json(str(tmp_path / "rows.jsonl"), cache_dir=str(tmp_path)),
        processing_class=tokenizer,
    )
    trainer.train()
    losses = [record["loss"] for record in trainer.state.log_history if "loss" in record]
    assert losses == [pytest.approx(math.log(2), abs=1e-3)]  # policy and reference are still the same


def test_a_conversation_is_asked_in_turns() -> None:
    assert plain_prompt(messages_of("Tea?")) == "Human: Tea?\n\nAssistant:"
    chat = '[{"role":"system","content":"Be kind."},{"role":"user","content":"Tea?"}]'
    assert plain_prompt(messages_of(chat)) == "System: Be kind.\n\nHuman: Tea?\n\nAssistant:"


def test_copl_align_writes_rows(
    run_copl: Callable[..., tuple[int, str, str]], trained_run: Path, small_data: Path, tmp_path: Path
) -> None:
    from copl.data.dataset import load_dataset

    model = Model.open(trained_run)
    user = next(iter(model.method.seen_users()))
    prompts, rows = tmp_path / "prompts.txt", tmp_path / "rows.jsonl"
    asked = list(dict.fromkeys(load_dataset(small_data).responses.prompts))[:6]
    prompts.write_text("\n".join(asked))
    arguments = (
        "align",
        trained_run,
        prompts,
        "--user",
        user,
        "--user",
        "nobody",
        "--num",
        6,
        "--generator",
        "facets",
        "--aligner",
        "dpo",
    )
    code, _, said = run_copl(*arguments, "--rows", rows, "--set", "aligner.near=0")
    assert code == 0, said
    assert "users nobody knows" in said
    lines = [json.loads(line) for line in rows.read_text().splitlines()]
    assert len(lines) > 6
    for line in lines:
        chosen, rejected = line["chosen"][0]["content"], line["rejected"][0]["content"]
        rewards = model.score(user, line["prompt"], [chosen, rejected])
        assert rewards[0] - rewards[1] == pytest.approx(line["margin"], abs=1e-5)
        assert line["margin"] > 0
        assert line["provenance"]["run"] == model.fingerprint
    code, _, said = run_copl(*arguments)
    assert (code, "name a file for answers by --out, or one for rows by --rows" in said) == (2, True)
    code, _, said = run_copl(*arguments[:-1], "best-of-n", "--rows", rows)
    assert (code, "makes no rows; take --aligner dpo or mixture-dpo" in said) == (2, True)
