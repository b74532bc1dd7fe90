"""Users who are forgotten leave neither name nor text behind, however they are called."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from urllib.parse import quote

import attrs
import pytest

from copl.data.dataset import load_dataset, save_dataset
from copl.data.forgetting import forget_users
from copl.errors import DataError, quoted
from copl.records import PreferenceData
from tests.data.test_living import made, random_rows, said

NAMES = (
    "Zo\u00eb",
    "a/b c?d=%e",
    'O\'Brien "Jr"',
    "back\\slash",
    "\u0915\u094d\u200d\u0937",
    "\U0001f469\u200d\U0001f467",
    "long " * 40 + "name",
    "4711",
    "-",
)


def test_a_forgotten_user_leaves_no_byte(tmp_path: Path) -> None:
    rows = random_rows(300)
    secret = {
        "user_id": "ann-of-the-hill",
        "prompt": "Where is my key?",
        "chosen": "Under the mat.",
        "rejected": "No idea.",
    }
    odd = {**secret, "user_id": "ann-of-the-hill\u200b", "prompt": rows[0]["prompt"], "chosen": rows[0]["chosen"]}
    data = made([*rows[:150], secret, odd, *rows[150:]])
    left = forget_users(data, ["ann-of-the-hill"])
    save_dataset(data, tmp_path / "before")
    save_dataset(left, tmp_path / "after")
    assert "ann-of-the-hill" in (tmp_path / "before" / "dataset.json").read_text()  # as an example in a note
    for path in (tmp_path / "after").iterdir():
        for word in (b"ann-of-the-hill", b"Where is my key", b"Under the mat", b"No idea"):
            assert word not in path.read_bytes()
    again = load_dataset(tmp_path / "after")
    assert said(again) == {key: name for key, name in said(data).items() if key[0] != "ann-of-the-hill"}
    assert not {"Under the mat.", "No idea."} & set(again.responses.texts)
    assert rows[0]["chosen"] in again.responses.texts  # others have judged it, too
    assert "1 user was forgotten; other counts than that of what is kept are of before." in again.provenance["notes"]


def test_findings_that_name_a_forgotten_user_go() -> None:
    data = made(random_rows(100))
    entry = {"severity": "info", "what": "users who nearly always pick the same side", "count": 2, "advice": "none"}
    findings = [{**entry, "where": "workers 7, user 3"}, {**entry, "where": "worker 4"}]
    data = PreferenceData(data.name, data.users, data.responses, data.splits, {**data.provenance, "findings": findings})
    assert forget_users(data, ["user 3"]).provenance["findings"] == findings[1:]
    other = next(user for user in data.users.ids if user not in ("user 3", "user 7", "user 4"))
    assert forget_users(data, [other]).provenance["findings"] == findings


def test_numbers_in_notes_are_no_names() -> None:
    data = made([{"user_id": user, "prompt": f"p {user}", "chosen": "a", "rejected": "b"} for user in ("1", "2")])
    notes = ["211 comparisons were dropped.", "user '1' said it all.", "user 12 did not."]
    data = PreferenceData(data.name, data.users, data.responses, data.splits, {**data.provenance, "notes": notes})
    assert forget_users(data, ["1"]).provenance["notes"][:-1] == [notes[0], notes[2]]


def test_what_was_left_out_stays_counted() -> None:
    data = made([{"user_id": user, "prompt": f"p {user}", "chosen": "a", "rejected": "b"} for user in ("ann", "ben")])
    records = [{"count": 3, "what": "rows", "reason": reason} for reason in ("empty", "of ann, such as she writes")]
    whole = attrs.evolve(data, provenance={**data.provenance, "left_out": records})
    assert forget_users(whole, ["ann"]).provenance["left_out"] == records[:1]


def test_users_that_cannot_be_forgotten() -> None:
    data = made([{"user_id": "u", "prompt": "p", "chosen": "a", "rejected": "b"}])
    with pytest.raises(DataError, match=r"data set 'example': no user 'uu' \(did you mean 'u'\?\)"):
        forget_users(data, ["uu"])
    with pytest.raises(DataError, match="without them nothing is left to train on"):
        forget_users(data, ["u"])


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_found_however_it_is_written(name: str, tmp_path: Path) -> None:
    twin = f"{name}2"
    rows = [{"user_id": user, "prompt": f"p {n}", "chosen": "a", "rejected": f"{n}, said user number {place}"}
            for place, user in enumerate((name, twin, "other")) for n in range(3)]  # fmt: skip
    data = made(rows)
    entry = {"severity": "info", "what": "users who nearly always pick the same side", "count": 2, "advice": "none"}
    written = (quoted(name), json.dumps(name), unicodedata.normalize("NFD", name), f"of {name}, who", quote(name, ""))
    kept = [f"user {quoted(twin)} is fine.", "9 rows were left out: empty."]
    provenance = {
        **data.provenance,
        "notes": [*kept, *(f"user {one} said so" for one in written)],
        "findings": [{**entry, "where": f"worker {one}"} for one in (*written, "somebody")],
        "options": {"path": f"/logs/{name}.jsonl", "columns": {name: "x", "y": "z"}, "unseen_fraction": 0.2},
    }
    left = forget_users(attrs.evolve(data, name=name, provenance=provenance), [name])
    assert left.name == data.provenance["source"]
    assert left.provenance["notes"][:-1] == kept
    assert [one["where"] for one in left.provenance["findings"]] == ["worker somebody"]
    assert left.provenance["options"] == {"columns": {"y": "z"}, "unseen_fraction": 0.2}
    assert list(left.users.ids) == [twin, "other"]
    save_dataset(left, tmp_path / "left")
    texts = {**json.loads((tmp_path / "left" / "dataset.json").read_text()), "counts": 0, "files": 0}
    assert said(load_dataset(tmp_path / "left")) == {at: part for at, part in said(data).items() if at[0] != name}
    assert "said user number 0" not in json.dumps([texts, *left.responses.texts])
