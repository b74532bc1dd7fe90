from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from copl.data.checking.checks import check
from copl.data.sources.ultrafeedback_p import ASPECTS, TYPES, UltraFeedbackOptions, UltraFeedbackSource
from copl.errors import DataError
from copl.records import PreferenceData
from tests.data.published import ultrafeedback_rows, write_lines, write_parquet

Pair = tuple[str, str, Sequence[int | str], str, Sequence[int | str]]

# Ratings of either side on helpfulness, honesty, instruction following, truthfulness; then who prefers the first side:
# types 8, 4, 2, 1; "?" where they rate alike and chance decides.
LABELLED: dict[str, tuple[Sequence[int | str], Sequence[int | str], str]] = {
    "only 8": ([5, 1, 2, 3], [4, 2, 3, 4], "1000"),
    "only 4": ([1, 5, 1, 1], [2, 4, 2, 5], "0100"),
    "only 2": ([1, 1, 4, 1], [5, 5, 3, 5], "0010"),
    "only 1": ([2, 3, 4, 5], [3, 4, 5, 1], "0001"),
    "8 and 4": ([5, 5, 1, 1], [1, 1, 5, 5], "1100"),
    "all but 8": ([1, 5, 5, 5], [5, 4, 4, 4], "0111"),
    "tie of 8": ([3, 5, 1, 5], [3, 1, 5, 1], "?101"),
    "tie of 1": ([5, 1, 5, 2], [1, 5, 1, 2], "101?"),
}
ALIKE: dict[str, tuple[Sequence[int | str], Sequence[int | str]]] = {
    "all prefer the first": ([5, 5, 5, 5], [1, 2, 3, 4]),
    "all prefer the second": ([1, 1, 1, 1], [5, 2, 2, 2]),
}
REFUSED: dict[str, tuple[Sequence[int | str], Sequence[int | str]]] = {
    "first N/A": ([5, "N/A", 1, 1], [1, 1, 5, 5]),
    "second N/A": ([5, 5, 1, 1], [1, 1, 5, "N/A"]),
}


def pair(prompt: str, first: Sequence[int | str], second: Sequence[int | str]) -> Pair:
    return prompt, f"first to {prompt}", first, f"second to {prompt}", second


def load(directory: Path, pairs: Sequence[Pair], seed: int = 0, **options: Any) -> PreferenceData:
    rated, binarised = ultrafeedback_rows(pairs)
    sizes = {"num_users": 40, "num_unseen_users": 8, "num_context": 4, "num_heldout": 1, "heldout_prompts": 0.2}
    source = UltraFeedbackSource(
        UltraFeedbackOptions(
            path=write_lines(directory / "rated.jsonl", rated),
            binarized=write_parquet(directory / "binarised.parquet", binarised),
            **{"variant": "P-4", **sizes, **options},
        )
    )
    return source.load(seed=seed)


def answers(data: PreferenceData) -> dict[tuple[str, str], set[bool]]:
    """By group and prompt, whether the first side was preferred."""
    found: dict[tuple[str, str], set[bool]] = {}
    for name in data.present():
        part = data.splits[name]
        for user, chosen, rejected in zip(*(c.tolist() for c in (part.user, part.chosen, part.rejected)), strict=True):
            group = str(data.users.groups[user]).partition(" ")[0]
            prompt = data.responses.prompts[chosen]
            texts = {data.responses.texts[chosen], data.responses.texts[rejected]}
            assert texts == {f"first to {prompt}", f"second to {prompt}"}
            found.setdefault((group, prompt), set()).add(data.responses.texts[chosen].startswith("first"))
    return found


ALL = [
    *(pair(prompt, *sides[:2]) for prompt, sides in LABELLED.items()),
    *(pair(prompt, *sides) for prompt, sides in {**ALIKE, **REFUSED}.items()),
    ("same", "same text", [5, 1, 1, 1], "same text", [5, 1, 1, 1]),
    ("empty", "", [5, 1, 1, 1], "not empty", [1, 5, 1, 1]),
]


def test_every_type_answers_as_derived_by_hand(tmp_path: Path) -> None:
    data = load(tmp_path, ALL)
    found = answers(data)
    assert {prompt for _, prompt in found} == set(LABELLED)
    for prompt, (_, _, expected) in LABELLED.items():
        for kind, answer in zip(TYPES, expected, strict=True):
            if answer == "?":
                assert len(found[kind, prompt]) == 1  # chance decides once for all users of the type
            else:
                assert found[kind, prompt] == {answer == "1"}, (kind, prompt)
    counts = data.provenance["counts"]
    assert counts["pairs rated N/A"] == 2
    assert counts["pairs all four types agree"] == 2
    assert counts["pairs between equal completions"] == counts["pairs with an empty completion"] == 1
    assert counts["pairs"] == len(LABELLED)
    groups = {f"{kind} {aspect}": 12 for kind, aspect in zip(TYPES, ASPECTS, strict=True)}
    assert {group: data.users.groups.count(group) for group in groups} == groups


def test_ties_go_either_way_with_the_seed(tmp_path: Path) -> None:
    outcomes = {frozenset(answers(load(tmp_path, ALL, seed=seed))["8", "tie of 8"]) for seed in range(8)}
    assert outcomes == {frozenset({True}), frozenset({False})}


def test_a_tie_can_make_a_pair_controversial(tmp_path: Path) -> None:
    tied = pair("tied", [5, 5, 5, 3], [1, 1, 1, 3])
    kept = {"tied" in load(tmp_path, [*ALL, tied], seed=seed, num_users=400).responses.prompts for seed in range(8)}
    assert kept == {True, False}


def test_p_2_has_two_types_on_the_pairs_of_all_four(tmp_path: Path) -> None:
    data = load(tmp_path, ALL, variant="P-2")
    assert {group for group in data.users.groups if group} == {"8 helpfulness", "4 honesty"}
    # On "8 and 4" and "only 2" the two types agree, but not all four do: the pairs stay.
    assert set(data.responses.prompts) == set(LABELLED)
    for name in data.present():
        part = data.splits[name]
        for chosen, mark in zip(part.chosen.tolist(), part.controversial.tolist(), strict=True):
            prompt = data.responses.prompts[chosen]
            if not prompt.startswith("tie"):
                expected = LABELLED[prompt][2]
                assert mark == (expected[0] != expected[1]), prompt


def test_pairs_all_agree_on_can_be_kept(tmp_path: Path) -> None:
    data = load(tmp_path, ALL, controversial_only=False, num_users=400)
    assert set(data.responses.prompts) == {*LABELLED, *ALIKE}


def many(count: int) -> list[Pair]:
    return [pair(f"prompt {n}", [5, 1, 5, 1], [1, 5, 1, 5]) for n in range(count)]


def per_user(data: PreferenceData, split: str) -> list[int]:
    part = data.split(split).comparisons
    return np.bincount(part.user, minlength=len(data.users)).tolist()


def test_everybody_gives_as_many_comparisons_as_the_paper_has(tmp_path: Path) -> None:
    for variant, size in (("P-2", 8), ("P-4", 16)):
        data = load(tmp_path, many(200), variant=variant, num_context=None, num_heldout=15, heldout_prompts=0.1)
        assert per_user(data, "train") == [size - 1] * 40 + [0] * 8
        assert per_user(data, "validation") == [1] * 40 + [0] * 8
        assert per_user(data, "cold") == [15] * 40 + [0] * 8
        assert per_user(data, "support") == [0] * 40 + [size] * 8
        assert per_user(data, "heldout") == [0] * 40 + [15] * 8
        assert data.provenance["counts"]["held-out pairs"] == 20
        assert data.provenance["options"]["num_context"] == size
        assert len(data.split("test")) == 0
        trained = set(data.split("train").comparisons.chosen.tolist())
        assert not trained & set(data.split("cold").comparisons.chosen.tolist())
        assert not [finding for finding in check(data) if finding.severity == "error"]


def test_context_sizes_of_avg(tmp_path: Path) -> None:
    data = load(tmp_path, many(100), context="AVG", num_context=4, num_users=700, num_unseen_users=70)
    train, validation = (np.array(per_user(data, name)[:700]) for name in ("train", "validation"))
    # 1 to 7 in all, each equally often; from 4 on the last is for validation.
    sizes = np.bincount(train + validation, minlength=8)
    assert sizes[0] == 0
    assert len(sizes) == 8
    assert sizes[1:].min() > 60
    assert ((train + validation >= 4) == (validation == 1)).all()
    assert validation.max() == 1
    assert set(per_user(data, "support")[700:]) == {1, 2, 3, 4, 5, 6, 7}


def test_questions_on_trained_prompts_can_be_held_out(tmp_path: Path) -> None:
    data = load(tmp_path, many(60), num_test=5)
    assert per_user(data, "test")[:40] == [5] * 40
    assert not [finding for finding in check(data) if finding.severity == "error"]


def test_unseen_users_can_be_judged_on_trained_prompts(tmp_path: Path) -> None:
    data = load(tmp_path, many(60), unseen_judged_on="trained", num_heldout=5)
    assert per_user(data, "heldout") == [0] * 40 + [5] * 8
    heldout, cold = (set(data.split(name).comparisons.chosen.tolist()) for name in ("heldout", "cold"))
    assert not heldout & cold
    assert not [finding for finding in check(data) if finding.severity == "error"]
    with pytest.raises(DataError, match="trained pairs are left, a user is to be asked about 14"):
        load(tmp_path, many(14), unseen_judged_on="trained", num_heldout=10, heldout_prompts=0.8)


def test_too_long_texts_are_left_out(tmp_path: Path) -> None:
    # "Human: " and "\n\nAssistant: " are 20 characters, the prompt is 8, so 12 are left of 10 tokens at 4 characters.
    pairs = [("12345678", "first 789012", [5, 1, 5, 1], "second", [1, 5, 1, 5])]
    pairs += [("abcdefgh", "first 7890123", [5, 1, 5, 1], "second", [1, 5, 1, 5])]
    pairs += [(f"q {n}", "first", [5, 1, 5, 1], "second", [1, 5, 1, 5]) for n in range(20)]
    sizes = {"num_context": 2, "num_users": 200}
    data = load(tmp_path, pairs, max_tokens=10, **sizes)
    assert {"12345678", "abcdefgh"} & set(data.responses.prompts) == {"12345678"}
    assert data.provenance["counts"]["pairs too long"] == 1
    assert "abcdefgh" in load(tmp_path, pairs, max_tokens=None, **sizes).responses.prompts


def test_lengths_are_counted_by_a_tokenizer(tmp_path: Path) -> None:
    words = Tokenizer(WordLevel({"?": 0}, unk_token="?"))
    words.pre_tokenizer = Whitespace()
    words.save(str(tmp_path / "tokenizer.json"))
    # Human : prompt 1 Assistant : first to prompt 1, so ten tokens in short texts and eleven in the long one.
    pairs = [*many(20), ("prompt 20", "first of all 20 !", [5, 1, 5, 1], "second", [1, 5, 1, 5])]
    for place in (tmp_path, tmp_path / "tokenizer.json"):
        assert load(tmp_path, pairs, tokenizer=place, max_tokens=11).provenance["counts"]["pairs too long"] == 0
        assert load(tmp_path, pairs, tokenizer=place, max_tokens=10).provenance["counts"]["pairs too long"] == 1
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match="not a tokenizer"):
        load(tmp_path, pairs, tokenizer=tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(DataError, match="no such file; name a tokenizer"):
        load(tmp_path, pairs, tokenizer=tmp_path)


def test_the_same_seed_gives_the_same_data(tmp_path: Path) -> None:
    one, two, other = (load(tmp_path, many(60), seed=seed) for seed in (1, 1, 2))
    assert one.digest(*one.splits) == two.digest(*two.splits) != other.digest(*other.splits)


def test_a_prompt_asked_twice_is_joined_with_the_row_that_has_its_answers(tmp_path: Path) -> None:
    rated, binarised = ultrafeedback_rows([*many(10), ("prompt 3", "a third", [1, 5, 1, 1], "a fourth", [5, 1, 1, 1])])
    options = UltraFeedbackOptions(
        path=write_lines(tmp_path / "r.jsonl", rated),
        binarized=write_lines(tmp_path / "b.jsonl", [*binarised, binarised[0]]),
        num_context=2,
        num_heldout=1,
    )
    data = UltraFeedbackSource(options).load(seed=0)
    assert data.provenance["counts"]["pairs joined"] == 11
    assert data.provenance["counts"]["pairs repeated"] == 1


def test_faults(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="0 trained pairs are left, a user is to be asked about 4"):
        load(tmp_path, many(1))
    with pytest.raises(
        DataError, match=r"2 held-out pairs are left, a user is to be asked about 50; lower num_heldout"
    ):
        load(tmp_path, many(10), num_heldout=50)
    rated, binarised = ultrafeedback_rows(many(3))
    write_lines(tmp_path / "rated.jsonl", rated)
    for wrong, message in (
        ({**binarised[0], "chosen": "text"}, r"b.jsonl: line 1: chosen: expected two messages"),
        ({**binarised[0], "prompt": "unknown"}, "no pair of the binarised data set was found"),
        ({"question": "q"}, "no column 'prompt'"),
    ):
        path = write_lines(tmp_path / "b.jsonl", [wrong])
        source = UltraFeedbackSource(UltraFeedbackOptions(path=tmp_path / "rated.jsonl", binarized=path))
        with pytest.raises(DataError, match=message):
            source.load(seed=0)
    write_lines(tmp_path / "rated.jsonl", [{**rated[0], "completions": [{"text": "t"}]}])
    path = write_lines(tmp_path / "b.jsonl", binarised)
    with pytest.raises(DataError, match=r"rated.jsonl: line 1: completions"):
        UltraFeedbackSource(UltraFeedbackOptions(path=tmp_path / "rated.jsonl", binarized=path)).load(seed=0)
