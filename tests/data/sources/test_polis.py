from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from copl.data.checking.checks import check
from copl.data.sources.polis.export import ABSENT, read_export
from copl.data.sources.polis.source import PolisOptions, PolisSource
from copl.errors import DataError
from copl.records import PreferenceData

SHARED = Path(__file__).resolve().parents[3] / "../shared/data/polis"

real = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared Polis exports are not here")


def export(directory: Path, votes: Sequence[Sequence[str]], moderated: Sequence[int] = (), **summary: str) -> Path:
    """Write an export; participant u is named p<u>, statement s has id s + 10."""
    directory.mkdir(exist_ok=True)
    num = len(votes[0])
    with (directory / "comments.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["timestamp", "comment-id", "author-id", "agrees", "disagrees", "moderated", "comment-body"])
        for s in reversed(range(num)):
            writer.writerow([0, s + 10, 0, 0, 0, -1 if s in moderated else 1, f"Statement, number {s}"])
    with (directory / "participants-votes.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["participant", "group-id", "n-comments", "n-votes", "n-agree", "n-disagree", *range(10, num + 10)]
        )
        for u, row in enumerate(votes):
            cells = list(row)
            group = "" if u == 0 else str(u % 2)
            writer.writerow([f"p{u}", group, 0, len(cells), cells.count("1"), cells.count("-1"), *cells])
    with (directory / "summary.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("url", "https://example.org/c"), *summary.items()])
    return directory


def load(path: Path, seed: int = 0, **options: Any) -> PreferenceData:
    return PolisSource(PolisOptions(path=path, **options)).load(seed=seed)


def random_export(directory: Path, users: int = 40, statements: int = 30) -> Path:
    rng = np.random.default_rng(0)
    votes = rng.choice(["1", "-1", "0", ""], p=[0.4, 0.3, 0.1, 0.2], size=(users, statements))
    return export(directory, votes.tolist(), topic="Parks", **{"conversation-description": "What now?"})


def pairs(data: PreferenceData, name: str) -> list[tuple[str, str, str]]:
    part, texts = data.splits[name], data.responses.texts
    rows = zip(part.user.tolist(), part.chosen.tolist(), part.rejected.tolist(), strict=True)
    return sorted((data.users.ids[u], texts[c], texts[r]) for u, c, r in rows)


ALL = {"test_fraction": 0.0, "validation_fraction": 0.0, "cold_fraction": 0.0, "unseen_fraction": 0.0}


def test_an_agreed_statement_is_preferred_to_a_disagreed_one(tmp_path: Path) -> None:
    path = export(tmp_path / "c", [["1", "-1", "0", "-1"], ["1", "1", "0", ""], ["-1", "1", "", ""]])
    data = load(path, **ALL)
    assert pairs(data, "train") == [
        ("p0", "Statement, number 0", "Statement, number 1"),
        ("p0", "Statement, number 0", "Statement, number 3"),
        ("p2", "Statement, number 1", "Statement, number 0"),
    ]
    assert data.users.groups == (None, "0")
    assert "1 of 3 participants never agreed" in data.provenance["notes"][0]


@pytest.mark.parametrize("prefix", ["", "2026-03-01-r8xyz-", "town_hall_", "r8xyz."])
def test_an_export_as_it_is_made_today(tmp_path: Path, prefix: str) -> None:
    votes = [["1", "-1", "0", "-1"], ["1", "1", "0", ""], ["-1", "1", "", ""]]
    old = load(export(tmp_path / "old", votes, topic="Parks"), use_passes=True, **ALL)
    new = export(tmp_path / "new", votes, topic="Parks")
    table = (new / "participants-votes.csv").read_text()
    (new / "participants-votes.csv").unlink()
    spelt = table.replace(",0,1,-1,0,-1", ",0,1.0,-1.0,-0.0,-1.0").replace(",0,4,1,2,", ",0,4,1.0,2.0,")
    (new / "participant-votes.csv").write_text(spelt)
    for name in ("comments.csv", "participant-votes.csv", "summary.csv"):
        (new / name).rename(new / f"{prefix}{name}")
    (new / f"{prefix}comment-groups.csv").write_text("comment-id\n")
    data = load(new, use_passes=True, **ALL)
    assert data.digest(*data.splits) == old.digest(*old.splits)
    assert data.users.groups == old.users.groups


def test_two_exports_in_a_directory_are_not_mixed(tmp_path: Path) -> None:
    path = export(tmp_path / "c", [["1", "-1"]])
    for name in ("a-comments.csv", "b-comments.csv"):
        (path / name).write_text((path / "comments.csv").read_text())
    assert len(load(path, **ALL).users) == 1  # the file of the very name is meant
    (path / "comments.csv").unlink()
    with pytest.raises(DataError, match=r"holds a-comments.csv, b-comments.csv; keep one export in a directory"):
        load(path)


def test_passes_stand_in_the_middle_when_asked(tmp_path: Path) -> None:
    path = export(tmp_path / "c", [["1", "-1", "0", ""]])
    assert len(load(path, **ALL).splits["train"]) == 1
    assert pairs(load(path, use_passes=True, **ALL), "train") == [
        ("p0", "Statement, number 0", "Statement, number 1"),
        ("p0", "Statement, number 0", "Statement, number 2"),
        ("p0", "Statement, number 2", "Statement, number 1"),
    ]


def test_moderated_statements_are_left_out_unless_kept(tmp_path: Path) -> None:
    path = export(tmp_path / "c", [["1", "-1", "-1"]], moderated=[1])
    data = load(path, **ALL)
    assert pairs(data, "train") == [("p0", "Statement, number 0", "Statement, number 2")]
    assert data.provenance["counts"]["moderated_out"] == 1
    assert len(load(path, keep_moderated=True, **ALL).splits["train"]) == 2


def test_no_two_splits_of_a_participant_share_a_statement(tmp_path: Path) -> None:
    path = random_export(tmp_path / "c")
    for seed in range(3):
        data = load(path, seed, support=3, pairs_per_user=50, eval_pairs_per_user=6)
        assert not [finding for finding in check(data) if finding.severity == "error"]
        assert set(data.present()) == {"train", "validation", "test", "cold", "support", "heldout"}
        for name, part in data.splits.items():
            limit = {"train": 50, "support": 3}.get(name, 6)
            assert np.bincount(part.user).max() <= limit
            rows = list(zip(part.user.tolist(), part.chosen.tolist(), part.rejected.tolist(), strict=True))
            assert len(set(rows)) == len(rows)
        assert len(set(data.splits["heldout"].user.tolist())) == 8
        cold = {*data.splits["cold"].chosen.tolist(), *data.splits["cold"].rejected.tolist()}
        assert len(cold) <= 6


def test_the_same_seed_gives_the_same_data(tmp_path: Path) -> None:
    path = random_export(tmp_path / "c")
    first, again, other = load(path, 1), load(path, 1), load(path, 2)
    assert all(pairs(first, name) == pairs(again, name) for name in first.present())
    assert pairs(first, "train") != pairs(other, "train")


def test_every_comparison_agrees_with_the_votes(tmp_path: Path) -> None:
    path = random_export(tmp_path / "c")
    conversation = read_export(path)
    row = {name: place for place, name in enumerate(conversation.participants)}
    column = {text: place for place, text in enumerate(conversation.statements)}
    data = load(path, use_passes=True)
    for name in data.present():
        for user, chosen, rejected in pairs(data, name):
            above, below = (
                conversation.votes[row[user], column[chosen]],
                conversation.votes[row[user], column[rejected]],
            )
            assert ABSENT not in (above, below)
            assert above > below


def test_controversial_pairs_are_those_on_which_participants_split(tmp_path: Path) -> None:
    # Of those who voted differently on statements 0 and 1, two put 1 first and four put 0 first: a third.
    # On 0 and 2 all six agree. On 1 and 2, two say so: too few to tell.
    votes = [["1", "-1", "-1"]] * 4 + [["-1", "1", ""]] * 2 + [["1", "", "-1"]] * 2
    data = load(export(tmp_path / "c", votes), **ALL)
    part, texts = data.splits["train"], data.responses.texts
    marks = {
        frozenset((texts[c][-1], texts[r][-1])): mark
        for c, r, mark in zip(part.chosen.tolist(), part.rejected.tolist(), part.controversial.tolist(), strict=True)
    }
    assert marks == {frozenset("01"): 1, frozenset("02"): 0}
    few = load(export(tmp_path / "d", votes[:1] + votes[4:5]), **ALL)
    assert few.splits["train"].controversial.tolist() == [-1, -1, -1]


def test_the_prompt_tells_topic_and_description(tmp_path: Path) -> None:
    path = export(tmp_path / "c", [["1", "-1"]], topic="Parks.", **{"conversation-description": "What now?\n\nMore."})
    prompt = load(path, **ALL).responses.prompts[0]
    assert prompt == 'In a public conversation about "Parks", people were told: What now? A participant stated:'
    assert load(path, prompt="Say something.", **ALL).responses.prompts == ("Say something.",) * 2
    long = export(tmp_path / "d", [["1", "-1"]], **{"conversation-description": "A sentence of words. " * 40})
    prompt = load(long, **ALL).responses.prompts[0]
    assert len(prompt) < 400
    assert prompt.endswith("words. A participant stated:")


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_faults_of_an_export(tmp_path: Path) -> None:
    path = export(tmp_path / "c", [["1", "-1", "-1"], ["-1", "1", "0"]])
    votes, comments = path / "participants-votes.csv", path / "comments.csv"
    original = votes.read_text()

    def fault() -> str:
        with pytest.raises(DataError) as caught:
            load(path)
        return str(caught.value)

    edit(votes, "p0,,0,3,1,2,1,-1,-1", "p0,,0,3,1,2,1,2,x")
    (path / "summary.csv").unlink()
    assert fault().splitlines() == [
        f"{votes}: line 2: statement 11: '2' is no vote; expected 1, 0, -1 or nothing",
        f"{votes}: line 2: statement 12: 'x' is no vote; expected 1, 0, -1 or nothing",
    ]
    votes.write_text(original)
    edit(votes, "p0,,0,3,1,2,1,-1,-1", "p0,,0,3,2,1,1,-1,-1")
    assert "reverse the signs" in fault()
    votes.write_text(original)
    edit(votes, "p0,,0,3,1,2,1,-1,-1", "p0,,0,3,1,1,1,-1,-1")
    assert "do not match the votes of 1 of 2 participants" in fault()
    votes.write_text(original.rstrip()[:-2])
    assert "line 3: 8 values where the header has 9 columns" in fault()
    votes.write_text(original.replace("group-id", "group"))
    assert "no column 'group-id'" in fault()
    votes.write_text(original.replace("p1", "p0"))
    assert "twice" in fault()
    votes.unlink()
    comments.unlink()
    assert [line.rpartition(": ")[2] for line in fault().splitlines()] == ["no such file"] * 2
    with pytest.raises(DataError, match="no such directory"):
        load(tmp_path / "none")


def test_statements_without_use_are_left_out(tmp_path: Path) -> None:
    path = export(tmp_path / "c", [["1", "-1", "-1", "-1", "-1"]])
    edit(path / "comments.csv", ',"Statement, number 1"', ",  ")
    edit(path / "comments.csv", "Statement, number 2", "Statement,  number 0")
    edit(path / "comments.csv", "0,13,", "0,99,")
    data = load(path, **ALL)
    assert pairs(data, "train") == [("p0", "Statement, number 0", "Statement, number 4")]
    assert len([note for note in data.provenance["notes"] if note.startswith("1 statements")]) == 3


@real
@pytest.mark.parametrize(
    ("name", "participants", "statements", "moderated"),
    [
        ("american-assembly.bowling-green", 2031, 607, 289),
        ("ssis.land-bank-farmland.2rumnecbeh.2021-08-01", 404, 192, 101),
        ("scoop-hivemind.taxes", 334, 91, 57),
    ],
)
def test_real_conversations(name: str, participants: int, statements: int, moderated: int) -> None:
    data = load(SHARED / name)
    counts = data.provenance["counts"]
    assert (counts["participants"], counts["statements"], counts["moderated_out"]) == (
        participants,
        statements,
        moderated,
    )
    assert counts["cold_statements"] == round(statements * 0.2)
    assert not [finding for finding in check(data) if finding.severity == "error"]
    assert set(data.present()) == {"train", "validation", "test", "cold", "support", "heldout"}
    assert "CC BY 4.0" in data.provenance["attribution"]
    assert {"0", "1"} <= set(data.users.groups)
