from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from copl.data.checking.checks import check
from copl.data.dataset import dataset_fingerprint, load_dataset, save_dataset
from copl.data.forgetting import forget_users
from copl.data.living import AddOptions, add_rows
from copl.data.reading.rows import Rows, parse_rows
from copl.data.reading.table import table_of_objects
from copl.data.sources.tables import RowOptions, data_of_rows
from copl.errors import DataError
from copl.records import PreferenceData

RunCopl = Callable[..., tuple[int, str, str]]
Row = dict[str, Any]

NO_REPEATS = RowOptions(duplicates="drop", contradictions="keep")
KEEP = AddOptions(contradictions="keep")


def random_rows(count: int, seed: int = 0, users: int = 30, prompts: int = 40) -> list[Row]:
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        one, other = rng.permutation(4)[:2]
        prompt = f"prompt {rng.integers(prompts)}"
        rows.append({"user_id": f"user {rng.integers(users)}", "prompt": prompt, "chosen": f"{prompt}, answer {one}",
                     "rejected": f"{prompt}, answer {other}"})  # fmt: skip
    return rows


def read(rows: list[Row]) -> Rows:
    return parse_rows(table_of_objects("new.jsonl", rows, list(range(1, len(rows) + 1)), "line"))


def made(rows: list[Row], options: RowOptions = NO_REPEATS) -> PreferenceData:
    return data_of_rows(read(rows), options, source="jsonl", name="example", seed=5)


def added(data: PreferenceData, rows: list[Row], options: AddOptions = KEEP) -> PreferenceData:
    return add_rows(data, read(rows), options, name="new.jsonl")


def said(data: PreferenceData, *users: str) -> dict[tuple[str, str, str], str]:
    """The split of each comparison: user, chosen and rejected text."""
    table = data.responses
    return {
        (data.users.ids[user], table.texts[chosen], table.texts[rejected]): name
        for name, part in data.splits.items()
        for user, chosen, rejected in zip(part.user.tolist(), part.chosen.tolist(), part.rejected.tolist(), strict=True)
        if not users or data.users.ids[user] in users
    }


@pytest.mark.parametrize("strategy", ["pair", "response"])
def test_adding_rows_is_making_the_data_set_of_all(strategy: Any) -> None:
    rows = random_rows(900)
    options = RowOptions(duplicates="drop", contradictions="keep", strategy=strategy, unseen_fraction=0.2)
    before = made(rows[:600], options)
    after = added(before, rows[600:])
    assert said(before).items() <= said(after).items()
    at_once = said(made(rows, options))
    if strategy == "response":  # support that goes beyond its limit is lost, and then not known of its user
        unseen = {key[0] for key, name in said(after).items() if name in ("support", "heldout")}
        after = forget_users(after, sorted(unseen))
        at_once = {key: name for key, name in at_once.items() if key[0] not in unseen}
    assert said(after).items() <= at_once.items()
    # what is missing had been dropped before, when less was known of its user
    missing = at_once.keys() - said(after).keys()
    assert len(missing) < 20
    assert missing <= {(row["user_id"], row["chosen"], row["rejected"]) for row in rows[:600]}
    assert not [finding for finding in check(after) if finding.severity == "error"]


def test_adding_the_same_twice_changes_nothing(tmp_path: Path) -> None:
    rows = random_rows(500)
    once = added(made(rows[:300]), rows[250:])
    save_dataset(once, tmp_path / "once")
    save_dataset(added(load_dataset(tmp_path / "once"), rows[100:]), tmp_path / "twice")
    assert dataset_fingerprint(tmp_path / "once") == dataset_fingerprint(tmp_path / "twice")
    for name in ("dataset.json", "comparisons.parquet", "users.parquet", "responses.parquet"):
        assert (tmp_path / "once" / name).read_bytes() == (tmp_path / "twice" / name).read_bytes()


def test_what_was_added_is_noted() -> None:
    rows = random_rows(300)
    data = made(rows[:200])
    more = added(data, [*rows[100:], {**random_rows(1, seed=9)[0], "topic": "x"}])
    count = len(said(more)) - len(said(data))
    assert f"{count} comparisons were added from new.jsonl." in more.provenance["notes"]
    assert "Column 'topic' is not part of the row schema and was not read." in more.provenance["notes"]
    assert more.provenance["counts"]["kept"] == len(said(more))


def test_rows_may_name_their_splits() -> None:
    data = made(random_rows(300))
    seen = next(iter(said(data)))[0]
    row = {"user_id": seen, "prompt": "new", "chosen": "a", "rejected": "b"}
    stranger = {**row, "user_id": "stranger", "chosen": "c"}
    more = added(data, [{**row, "split": "test"}, {**stranger, "split": "support"}])
    assert said(more)[seen, "a", "b"] == "test"
    assert said(more, "stranger") == {("stranger", "c", "b"): "support"}
    with pytest.raises(
        DataError, match=rf"new.jsonl: line 1: split: user '{seen}' is unseen here and seen in the data"
    ):
        added(data, [{**row, "split": "heldout"}])


def test_contradictions_are_faults_unless_asked_for() -> None:
    row = {"user_id": "u", "prompt": "p", "chosen": "a", "rejected": "b"}
    data = made([row])
    against = {**row, "chosen": "b", "rejected": "a"}
    new = [{**row, "prompt": "q"}, {**against, "prompt": "q"}, against]
    with pytest.raises(DataError) as caught:
        added(data, new, AddOptions())
    assert caught.value.faults == (
        "new.jsonl: line 2: user 'u' contradicts line 1; remove one, or set contradictions=keep (or drop)",
        "new.jsonl: line 3: user 'u' contradicts the data set; remove one, or set contradictions=keep (or drop)",
    )
    for policy, count in (("drop", 2), ("keep", 4)):
        grown = added(data, new, AddOptions(contradictions=policy))  # type: ignore[arg-type]  # one of the literals
        assert sum(map(len, grown.splits.values())) == count


def test_a_user_keeps_one_group() -> None:
    row = {"user_id": "u", "prompt": "p", "chosen": "a", "rejected": "b"}
    data = made([row])
    known = added(data, [{**row, "group": "g"}])
    assert known.users.groups == ("g",)
    with pytest.raises(DataError, match=r"new\.jsonl: user 'u' is in group 'h' here and in 'g' before"):
        added(known, [{**row, "prompt": "q", "group": "h"}])


def test_other_data_sets_can_grow_too(small_data: Path) -> None:
    data = load_dataset(small_data)
    prompt = data.responses.prompts[int(data.splits["train"].chosen[0])]
    rows = [{"user_id": f"new {n}", "prompt": prompt, "chosen": "Hot.", "rejected": f"Cold {n}."}
            for n in range(40)]  # fmt: skip
    more = added(data, rows)
    assert said(data).items() <= said(more).items()
    assert {name for key, name in said(more).items() if key[0].startswith("new")} == {"train", "support"}


def test_the_commands(run_copl: RunCopl, tmp_path: Path) -> None:
    rows = random_rows(400)
    for name, part in (("old", rows[:300]), ("new", rows[200:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    policy = ["--set", "contradictions=keep", "--set", "duplicates=drop"]
    make = ("data", "make", "jsonl", "--set", f"path={tmp_path / 'old.jsonl'}", *policy)
    assert run_copl(*make, "--out", tmp_path / "a")[0] == 0
    add = ("data", "add", tmp_path / "a", tmp_path / "new.jsonl", "--out", tmp_path / "b")
    code, _, err = run_copl(*add)
    assert (code, "contradicts" in err) == (2, True)
    assert not (tmp_path / "b").exists()
    code, out, err = run_copl(*add, *policy[:2], "--json")
    assert code == 0, err
    assert f"of 200 comparisons were added; {len(said(load_dataset(tmp_path / 'b')))} in all" in err
    assert json.loads(out)["name"] == "old"
    assert run_copl(*add, *policy[:2])[0] == 2  # it is there already
    forget = ("data", "forget", tmp_path / "b", "--user", " user 3", "--user", "user 4", "--out", tmp_path / "c")
    assert run_copl(*forget)[0] == 0
    assert not {"user 3", "user 4"} & set(load_dataset(tmp_path / "c").users.ids)
    code, _, err = run_copl(*forget[:-1], tmp_path / "b", "--overwrite")
    assert code == 0, err
    assert dataset_fingerprint(tmp_path / "b") == dataset_fingerprint(tmp_path / "c")
    assert run_copl(*add[:-1], tmp_path / "d", "--set", "colums=a=b")[0] == 2


def test_the_later_of_two_answers_counts() -> None:
    rows = [{**row, "timestamp": 100 + n} for n, row in enumerate(random_rows(200))]
    options = RowOptions(unseen_fraction=0.0, cold_fraction=0.0)
    data = made(rows, options)
    row = rows[-1]
    key = row["user_id"], row["chosen"], row["rejected"]
    split = said(data)[key]
    turned = {**row, "chosen": row["rejected"], "rejected": row["chosen"], "timestamp": 999}
    later = added(data, [turned], AddOptions())
    assert key not in said(later)
    assert said(later)[key[0], key[2], key[1]] == split
    assert said(added(later, [turned], AddOptions())) == said(later)
    # what was said before that is late to the party
    assert said(added(later, [row], AddOptions())) == said(later)
    earlier = added(data, [{**turned, "timestamp": 5}], AddOptions())
    assert said(earlier) == said(data)


def test_rows_added_to_a_split_by_time_need_a_time() -> None:
    rows = [{**row, "timestamp": 100 + n} for n, row in enumerate(random_rows(200))]
    data = made(rows, RowOptions(strategy="time"))
    assert data.provenance["split"] == "time"
    with pytest.raises(DataError, match="line 1: timestamp: missing; strategy=time needs"):
        added(data, [{**rows[0], "prompt": "new", "timestamp": None}])
    seen = data.users.ids[int(data.splits["train"].user[0])]
    more = added(data, [{**rows[0], "prompt": "new", "timestamp": 10_000, "user_id": seen}])
    assert set(said(more).items()) - set(said(data).items()) <= {
        ((seen, rows[0]["chosen"], rows[0]["rejected"]), name) for name in ("test", "cold")
    }
