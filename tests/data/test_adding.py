from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from copl.data.adding import add_said
from copl.data.checking.checks import check
from copl.data.dataset import dataset_fingerprint, load_dataset
from copl.data.making.collected import Collected, CollectedOptions
from copl.data.making.mixed import collect_rows
from copl.data.making.origin import Origin
from copl.data.reading.table import table_of_objects
from copl.records import SPLITS, Comparisons, PreferenceData
from copl.records.judgements import RATING, THUMB, TIE, Judgements

RunCopl = Callable[..., tuple[int, str, str]]
Row = dict[str, Any]


def thumbs(count: int, seed: int) -> list[Row]:
    rng = np.random.default_rng(seed)
    return [
        {"user_id": f"u{rng.integers(10)}", "prompt": f"p{rng.integers(12)}", "response": f"r{seed}-{n}",
         "thumb": int(rng.integers(2))} for n in range(count)
    ]  # fmt: skip


def written(path: Path, rows: list[Row]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def ran(run_copl: RunCopl, *arguments: str) -> str:
    code, shown, err = run_copl(*arguments)
    assert code == 0, err
    return shown


def test_rows_of_every_kind_are_added_where_their_users_are(tmp_path: Path, run_copl: RunCopl) -> None:
    source = written(tmp_path / "old.jsonl", thumbs(300, 0))
    ran(run_copl, "data", "make", "thumbs", "--set", f"path={source}", "--set", "unseen_fraction=0.3", "--out",
        str(tmp_path / "one"))  # fmt: skip
    before = load_dataset(tmp_path / "one")
    seen = before.users.ids[int(before.judgements["train"].user[0])]
    warm = before.responses.prompts[int(before.judgements["train"].response[0])]
    texts = [f"new {n}" for n in range(5)]
    base = {"user_id": seen, "prompt": warm}
    new: list[Row] = [
        *thumbs(60, 1),
        {**base, "response": texts[0], "rating": 3},
        {**base, "response_a": texts[1], "response_b": texts[2], "winner": "tie"},
        {**base, "chosen": texts[3], "rejected": texts[4]},
        {"user_id": "newcomer", "prompt": warm, "response": texts[0], "thumb": "up"},
    ]
    file = written(tmp_path / "new.jsonl", new)
    ran(run_copl, "data", "add", str(tmp_path / "one"), file, "--out", str(tmp_path / "two"))
    after = load_dataset(tmp_path / "two")
    assert not [found for found in check(after) if found.severity == "error"]
    for split, part in before.splits.items():
        assert len(after.splits[split]) >= len(part)
    judged = after.judgements["train"]
    assert {RATING, THUMB, TIE} <= set(judged.kind.tolist())
    roles = {name: {after.users.ids[row] for row in part.user.tolist()} for name, part in after.judgements.items()}
    old = {name: {before.users.ids[row] for row in part.user.tolist()} for name, part in before.judgements.items()}
    assert not roles["train"] & roles["support"]
    assert all(old[name] <= roles[name] for name in old)
    # twice the same changes nothing
    ran(run_copl, "data", "add", str(tmp_path / "two"), file, "--out", str(tmp_path / "three"))
    assert dataset_fingerprint(tmp_path / "two") == dataset_fingerprint(tmp_path / "three")


def test_a_new_word_takes_the_place_of_the_old_one(tmp_path: Path, run_copl: RunCopl) -> None:
    rows = thumbs(200, 0)
    source = written(tmp_path / "old.jsonl", rows)
    ran(run_copl, "data", "make", "thumbs", "--set", f"path={source}", "--out", str(tmp_path / "one"))
    before = load_dataset(tmp_path / "one")
    judged = before.judgements["train"]
    text, user = before.responses.texts[int(judged.response[0])], before.users.ids[int(judged.user[0])]
    prompt = before.responses.prompts[int(judged.response[0])]
    turned = {"user_id": user, "prompt": prompt, "response": text, "thumb": int(judged.value[0] < 0)}
    file = written(tmp_path / "new.jsonl", [turned])
    ran(run_copl, "data", "add", str(tmp_path / "one"), file, "--out", str(tmp_path / "two"))
    after = load_dataset(tmp_path / "two")
    now = after.judgements["train"]
    row = next(
        n for n in range(len(now))
        if after.responses.texts[now.response[n]] == text and after.users.ids[now.user[n]] == user
    )  # fmt: skip
    assert now.value[row] == -judged.value[0]
    assert len(now) == len(judged)
    held = before.splits["test"]
    if len(held):
        user, row = before.users.ids[int(held.user[0])], int(held.chosen[0])
        leak = {"user_id": user, "prompt": before.responses.prompts[row], "response": before.responses.texts[row]}
        file = written(tmp_path / "leak.jsonl", [{**leak, "thumb": 1}])
        ran(run_copl, "data", "add", str(tmp_path / "one"), file, "--out", str(tmp_path / "none"))
        assert dataset_fingerprint(tmp_path / "one") == dataset_fingerprint(tmp_path / "none")


def test_what_is_not_used_is_told(tmp_path: Path, run_copl: RunCopl) -> None:
    rows = thumbs(60, 0)
    source = written(tmp_path / "old.jsonl", rows)
    ran(run_copl, "data", "make", "thumbs", "--set", f"path={source}", "--out", str(tmp_path / "one"))

    def added(row: Row, *options: str) -> tuple[int, str]:
        file = written(tmp_path / "new.jsonl", [row])
        code, _, err = run_copl(
            "data", "add", tmp_path / "one", file, "--out", tmp_path / "two", "--overwrite", *options
        )
        return code, err

    code, err = added({**rows[0], "tools": "search"})
    assert code == 0
    assert "1 judgements of new.jsonl were left out: there already." in err
    assert "Column 'tools' is not part of the row schema and was not read." in err
    pair = {"user_id": "u0", "prompt": "p0", "chosen": "yes", "rejected": "no"}
    save = added(pair)
    ran(run_copl, "data", "add", str(tmp_path / "one"), str(tmp_path / "new.jsonl"), "--out", str(tmp_path / "three"))
    code, _, err = run_copl("data", "add", tmp_path / "three", tmp_path / "new.jsonl", "--out", tmp_path / "four")
    assert (save[0], code) == (0, 0)
    assert "1 of new.jsonl were left out: there already." in err
    # what would be passed over in silence is refused
    for row, options, told in (
        ({**rows[0], "split": "test"}, (), "rows of every kind go where their users are"),
        (rows[0], ("--set", "contradictions=drop"), "contradictions is for comparisons alone"),
        ({"user_id": "u0", "prompt": "p0", "response": "r", "thum": 1}, (), "(did you mean 'thumb'?)"),
        (
            {"user_id": "u0", "prompt": "p0", "reponse": "r", "thumb": 1},
            (),
            "missing (did you mean 'reponse'?)",
        ),
    ):
        code, err = added(row, *options)
        assert (code, told in err) == (2, True), err


def test_a_comparison_decides_a_tie(tmp_path: Path, run_copl: RunCopl) -> None:
    tie = {"response_a": "a", "response_b": "b", "winner": "tie"}
    rows: list[Row] = [{"user_id": user, "prompt": "p", **tie} for user in ("u", "v")]
    source = written(tmp_path / "old.jsonl", rows)
    options = ("--set", "unseen_fraction=0", "--set", "cold_fraction=0", "--set", f"path={source}")
    ran(run_copl, "data", "make", "jsonl", *options, "--out", str(tmp_path / "one"))
    file = written(tmp_path / "new.jsonl", [{"user_id": "u", "prompt": "p", "chosen": "b", "rejected": "a"}])
    ran(run_copl, "data", "add", str(tmp_path / "one"), file, "--out", str(tmp_path / "two"))
    after = load_dataset(tmp_path / "two")
    assert everything(after) == {
        ("u", ("p", "b"), ("p", "a")): "train",
        (TIE, "v", ("p", "a"), ("p", "b"), 0.0): "train",
    }
    ran(run_copl, "data", "add", str(tmp_path / "two"), source, "--out", str(tmp_path / "three"))
    assert everything(load_dataset(tmp_path / "three")) == everything(load_dataset(tmp_path / "one"))


def anything(rng: np.random.Generator, count: int, *, prompts: int, timed: bool) -> list[Row]:
    """Rows of every kind; of single responses all users but one say different things."""
    rows: list[Row] = []
    for _ in range(count):
        user, prompt = int(rng.integers(7)), int(rng.integers(prompts))
        base: Row = {"user_id": f"u{user}", "prompt": f"p{prompt}"}
        if timed:
            base["timestamp"] = 1_700_000_000 + int(rng.integers(1000))
        one, other = (f"r{text}" for text in rng.permutation(12)[:2])
        kind = rng.integers(6)
        if kind < 2:
            row = {"response": one, "thumb": 1 if user == 0 else int(rng.integers(2))}
        elif kind == 2:
            row = {"response": one, "rating": float(rng.choice([1e-300, 1.0, 2.0, 1e300]))}
        elif kind == 3:
            row = {"response_a": one, "response_b": other, "winner": str(rng.choice(["tie", "both_bad"]))}
        else:
            row = {"chosen": one, "rejected": other}
        rows.append({**base, **row})
    return rows


def everything(data: PreferenceData) -> dict[tuple[Any, ...], str]:
    """The split of all that users said."""
    texts, ids, heard = list(zip(data.responses.prompts, data.responses.texts, strict=True)), data.users.ids, {}
    for split, part in data.splits.items():
        for user, chosen, rejected in zip(part.user, part.chosen, part.rejected, strict=True):
            heard[ids[user], texts[chosen], texts[rejected]] = split
    for split, judged in data.judgements.items():
        for kind, user, *ends, value in zip(judged.kind, judged.user, judged.response, judged.other, judged.value,
                                            strict=True):  # fmt: skip
            heard[int(kind), ids[user], *(texts[end] for end in ends if end >= 0), float(value)] = split
    return heard


@given(st.integers(0, 10_000), st.sampled_from([1, 3, 9]), st.sampled_from(["pair", "time"]))
@settings(max_examples=15)
def test_what_is_given_again_changes_nothing(seed: int, prompts: int, strategy: str) -> None:
    rng = np.random.default_rng(seed)
    rows, more = (anything(rng, 120, prompts=prompts, timed=strategy == "time") for _ in range(2))
    options = CollectedOptions(path=Path("x"), strategy=strategy, unseen_fraction=0.3, support=2, eval_pairs_per_user=3)

    def collected(given: list[Row]) -> Collected:
        return collect_rows(table_of_objects("rows", given, list(range(len(given))), "row"), {})[0]

    origin = Origin("jsonl", "", "", "")
    data = collected(rows).data(options, origin, where=Path("rows.jsonl"), eval_pairs=3, seed=seed)
    assert not [found for found in check(data) if found.what == "chosen and rejected are the same response"]
    before, again = everything(data), add_said(data, collected(rows).as_set(), name="again")
    assert before.items() <= everything(again).items()
    # by time, who has compared something late alone may be there only by what they said otherwise
    assert strategy == "time" or everything(again) == before
    assert everything(add_said(again, collected(rows).as_set(), name="again")) == everything(again)
    roles = {split: {key[1] if isinstance(key[0], int) else key[0] for key, own in before.items() if own == split}
             for split in SPLITS}  # fmt: skip
    assert not (roles["support"] | roles["heldout"]) & (roles["train"] | roles["test"] | roles["validation"])
    grown = add_said(data, collected(more).as_set(), name="more")
    after = everything(grown)
    said_otherwise = {key for key in before if key not in after}
    moved = {key for key in before if key in after and before[key] != after[key]}
    # what is said again later counts from then on, so that by time it may come to lie in a later split
    in_time = ("support", "train", "validation", "heldout", "test")
    assert all(strategy == "time" and in_time.index(before[key]) < in_time.index(after[key]) for key in moved)
    assert len(said_otherwise) < len(before)
    assert everything(add_said(grown, collected(more).as_set(), name="more")) == after


@given(st.integers(0, 10_000), st.sampled_from([1, 3, 9]), st.sampled_from(["pair", "response"]))
@settings(max_examples=8)
def test_nobody_is_judged_by_what_was_learnt_of_them_in_another_way(seed: int, prompts: int, strategy: str) -> None:
    """Whoever compares two responses and rates both, or gives them thumbs, says the same twice."""
    rows = anything(np.random.default_rng(seed), 250, prompts=prompts, timed=False)
    rows = [{**row, **({"rating": row["rating"] % 3} if "rating" in row else {})} for row in rows]
    options = CollectedOptions(path=Path("x"), strategy=strategy, unseen_fraction=0.3)
    collected = collect_rows(table_of_objects("rows", rows, list(range(len(rows))), "row"), {})[0]
    data = collected.data(options, Origin("jsonl", "", "", ""), where=Path("rows.jsonl"), seed=seed)
    assert not [found for found in check(data) if found.severity == "error"]
    for judging, learnt in {"validation": "train", "test": "train", "heldout": "support"}.items():
        by = {(user, end) for user, *ends in zip(*columns(data, judging), strict=True) for end in ends}
        said = data.judgements.get(learnt, Judgements.empty())
        of_one = said.take(~said.is_of_two)
        assert not by & set(zip(of_one.user.tolist(), of_one.response.tolist(), strict=True))
        if strategy == "response":
            assert not by & {(user, end) for user, *ends in zip(*columns(data, learnt), strict=True) for end in ends}
            of_two = said.take(said.is_of_two)
            for end in (of_two.response, of_two.other):
                assert not by & set(zip(of_two.user.tolist(), end.tolist(), strict=True))


@given(st.integers(0, 10_000), st.sampled_from([1, 3, 9]), st.sampled_from(["pair", "response"]), st.booleans())
@example(seed=0, prompts=3, strategy="response", timed=True)  # is judged by ratings and learnt from on one prompt
@settings(max_examples=8)
def test_added_or_made_of_all_the_last_word_counts_and_nothing_leaks(
    seed: int, prompts: int, strategy: str, timed: bool
) -> None:
    """Which opinions are judged by may differ, since what is there does not move; what users say now may not."""
    rng = np.random.default_rng(seed)
    rows, more = (anything(rng, 120, prompts=prompts, timed=timed) for _ in range(2))
    options = CollectedOptions(path=Path("x"), strategy=strategy, unseen_fraction=0.3, support=2)
    origin = Origin("jsonl", "", "", "")

    def collected(given: list[Row]) -> Collected:
        return collect_rows(table_of_objects("rows", given, list(range(len(given))), "row"), {})[0]

    data = collected(rows).data(options, origin, where=Path("rows.jsonl"), seed=seed)
    grown = add_said(data, collected(more).as_set(), name="more")
    whole = collected([*rows, *more]).data(options, origin, where=Path("rows.jsonl"), seed=seed)
    assert not [finding for finding in check(grown) if finding.severity == "error"]
    added, made = (last_words(one) for one in (grown, whole))
    assert {subject: said for subject, said in added.items() if subject in made} == {
        subject: said for subject, said in made.items() if subject in added
    }


def last_words(data: PreferenceData) -> dict[tuple[Any, ...], Any]:
    """What is learnt of each thumb, rating, pair and tie."""
    words: dict[tuple[Any, ...], Any] = {}
    for key, split in everything(data).items():
        if split not in ("train", "support"):
            continue
        if not isinstance(key[0], int):
            user, chosen, rejected = key
            words["pair", user, frozenset((chosen, rejected))] = chosen
        elif key[0] in (THUMB, RATING):
            words[key[0], *key[1:3]] = key[3]
        else:
            words["pair", key[1], frozenset(key[2:4])] = key[0]
    return words


def columns(data: PreferenceData, split: str) -> tuple[list[int], ...]:
    part = data.splits.get(split, Comparisons.empty())
    return part.user.tolist(), part.chosen.tolist(), part.rejected.tolist()


def test_what_is_said_again_later_or_with_another_weight_counts_from_then_on() -> None:
    def collected(*rows: Row) -> Collected:
        whole = [{"user_id": "u", "prompt": "p", **row} for row in rows]
        return collect_rows(table_of_objects("rows", whole, list(range(len(whole))), "row"), {})[0]

    tie = {"response_a": "a", "response_b": "b", "winner": "tie", "timestamp": 100}
    thumb = {"response": "c", "thumb": "up", "timestamp": 100}
    plain = CollectedOptions(
        path=Path("x"), unseen_fraction=0.0, cold_fraction=0.0, test_fraction=0.0, validation_fraction=0.0
    )
    data = collected(tie, thumb).data(plain, Origin("jsonl", "", "", ""), where=Path("x"), seed=0)
    later = add_said(data, collected({**tie, "timestamp": 300}, {**thumb, "weight": 2}).as_set(), name="later")
    judged = later.judgements["train"]
    said = sorted(zip(judged.time.tolist(), judged.weight.tolist(), strict=True))
    assert said == [(100.0, 2.0), (300.0, 1.0)]
    assert add_said(later, collected({**tie, "timestamp": 200}).as_set(), name="earlier") is later
