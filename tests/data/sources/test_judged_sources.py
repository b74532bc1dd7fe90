"""Sources of comparisons that people made: PRISM, HH-RLHF, Chatbot Arena."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from copl.data.chat import encode_messages
from copl.data.checking.checks import check
from copl.data.sources.chatbot_arena import ChatbotArenaOptions, ChatbotArenaSource
from copl.data.sources.hh_rlhf import HhRlhfOptions, HhRlhfSource
from copl.data.sources.prism import PrismOptions, PrismSource
from copl.errors import DataError
from copl.records import PreferenceData
from tests.data.published import arena_row, utterance, write_copy, write_lines, write_parquet
from tests.data.sources.exports import notes as notes_of

ALL_IN_TRAIN = {"test_fraction": 0.0, "validation_fraction": 0.0, "cold_fraction": 0.0, "unseen_fraction": 0.0}


def pairs(data: PreferenceData, *splits: str) -> list[tuple[str, str, str, str]]:
    found = []
    for name in splits or tuple(data.present()):
        part = data.splits[name]
        for user, chosen, rejected in zip(*(c.tolist() for c in (part.user, part.chosen, part.rejected)), strict=True):
            assert data.responses.prompts[chosen] == data.responses.prompts[rejected]
            texts = data.responses.texts
            found.append((data.users.ids[user], data.responses.prompts[chosen], texts[chosen], texts[rejected]))
    return sorted(found)


UTTERANCES = [
    utterance("user1", "c1", 0, "Hi", "a", 90, True),
    utterance("user1", "c1", 0, "Hi", "b", 60, False),
    utterance("user1", "c1", 0, "Hi", "c", 58, False),
    utterance("user1", "c1", 1, "More", "d", 10, False),
    utterance("user1", "c1", 1, "More", "e", 20, True),
    utterance("user1", "c2", 0, "Again", "f", 50, True),
    utterance("user1", "c2", 0, "Again", "", 10, False),
]
LATER = encode_messages(
    [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "a"}, {"role": "user", "content": "More"}]
)


def prism(path: Path, **options: Any) -> PreferenceData:
    return PrismSource(PrismOptions(path=path, **{**ALL_IN_TRAIN, **options})).load(seed=0)


def test_prism_by_choice_and_by_score(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "utterances.jsonl", UTTERANCES)
    chosen = [("user1", "Hi", "a", "b"), ("user1", "Hi", "a", "c"), ("user1", LATER, "e", "d")]
    assert pairs(prism(path)) == chosen
    assert pairs(prism(path, turns="first")) == chosen[:2]
    scored = [*chosen[:2], ("user1", "Hi", "b", "c"), chosen[2]]
    assert pairs(prism(path, preference="score", margin=2)) == scored
    assert pairs(prism(path, preference="score", margin=3)) == chosen
    assert pairs(prism(path, preference="score", margin=30.0)) == chosen[:2]
    assert prism(path).provenance["counts"]["answers"] == 7
    assert "1 comparisons were left out: with an empty text." in notes_of(prism(path))


def test_prism_shares_no_response_between_users_and_says_so(tmp_path: Path) -> None:
    data = PrismSource(PrismOptions(**{**write_copy("prism", tmp_path), "path": tmp_path})).load(seed=0)
    (finding,) = [found for found in check(data) if "nobody has a response in common" in found.what]
    seen = set(data.split("train").comparisons.user.tolist())
    assert (finding.severity, finding.count) == ("warning", len(seen))
    assert data.provenance["split"] == "response"


def test_prism_in_csv_and_its_faults(tmp_path: Path) -> None:
    rows = ["user_id,conversation_id,turn,user_prompt,model_response,score,if_chosen"]
    rows += [f"u,c{n},0,q{n},{text},{score},{chosen}" for n in range(2) for text, score, chosen in
             (("a", "9", "True"), ("b", "1", "false"))]  # fmt: skip
    path = tmp_path / "utterances.csv"
    path.write_text("\n".join(rows) + "\n")
    assert pairs(prism(path)) == [("u", "q0", "a", "b"), ("u", "q1", "a", "b")]
    path.write_text("\n".join(rows).replace("True", "perhaps") + "\n")
    with pytest.raises(DataError, match="line 2: turn and score are numbers, if_chosen is true or false"):
        prism(path)


def test_hh_rlhf_deals_two_groups_to_users(tmp_path: Path) -> None:
    options = HhRlhfOptions(**{**write_copy("hh-rlhf", tmp_path), "path": tmp_path, "unseen_fraction": 0.0})
    data = HhRlhfSource(options).load(seed=0)
    groups = dict(zip(data.users.ids, data.users.groups, strict=True))
    assert {user.partition("-")[0] for user in groups} == {"helpful", "harmless"} == set(groups.values())
    assert len(groups) == 14  # 70 comparisons of each group, ten to a user
    for user, prompt, chosen, rejected in pairs(data):
        number = prompt.removesuffix("?").rpartition(" ")[2]
        assert prompt == f"A {groups[user]} question {number}?"
        assert (chosen, rejected) == (f"A good answer to {number}.", f"A bad one to {number}.")
    cold = {prompt.removesuffix("?").rpartition(" ")[2] for _, prompt, _, _ in pairs(data, "cold")}
    assert cold == {str(n) for n in range(60, 70)}  # the published test part
    assert not [found for found in check(data) if found.severity == "error"]


def test_hh_rlhf_of_several_turns(tmp_path: Path) -> None:
    opening = "\n\nHuman: One?\n\nAssistant: Yes.\n\nHuman: Two?\n\nAssistant:"
    rows = [{"chosen": f"{opening} Good {n}.", "rejected": f"{opening} Bad {n}."} for n in range(4)]
    rows.append({"chosen": f"{opening} Good.", "rejected": "\n\nHuman: Other?\n\nAssistant: Bad."})
    for group in ("helpful", "harmless"):
        write_lines(tmp_path / f"{group}-base" / "train.jsonl.gz", rows)
    data = HhRlhfSource(HhRlhfOptions(path=tmp_path, **ALL_IN_TRAIN)).load(seed=0)
    messages = [("user", "One?"), ("assistant", "Yes."), ("user", "Two?")]
    prompt = encode_messages([{"role": role, "content": content} for role, content in messages])
    assert {found[1:3] for found in pairs(data)} == {(prompt, f"Good {n}.") for n in range(4)}
    assert "2 comparisons were left out: whose two transcripts differ before the last answer." in notes_of(data)
    write_lines(tmp_path / "helpful-base" / "train.jsonl.gz", [{"chosen": "text", "rejected": "text"}])
    with pytest.raises(DataError, match="line 1: expected transcripts of 'Human:' and 'Assistant:'"):
        HhRlhfSource(HhRlhfOptions(path=tmp_path)).load(seed=0)


def arena(path: Path, **options: Any) -> PreferenceData:
    return ChatbotArenaSource(ChatbotArenaOptions(path=path, **{**ALL_IN_TRAIN, **options})).load(seed=0)


def test_chatbot_arena_by_judge(tmp_path: Path) -> None:
    longer = arena_row("j1", "q4", "a", "b", "model_b")
    longer["conversation_a"] += [{"role": "user", "content": "more"}, {"role": "assistant", "content": "c"}]
    rows = [
        arena_row("j1", "q1", "a", "b", "model_a"),
        arena_row("j1", "q2", "a", "b", "model_b"),
        arena_row("j1", "q3", "a", "b", "tie"),
        arena_row("j1", "q3", "a", "b", "tie (bothbad)"),
        arena_row("j1", "q5", "a", "a", "model_a"),
        arena_row("j2", "q1", "a", "b", "model_a"),
        arena_row("j3", "q1", "a", "b", "model_b", language="German"),
        arena_row("j3", "q2", "a", "b", "model_b", language="German"),
        longer,
    ]
    path = write_parquet(tmp_path / "train.parquet", rows)
    mine = [("j1", "q1", "a", "b"), ("j1", "q2", "b", "a")]
    theirs = [("j3", "q1", "b", "a"), ("j3", "q2", "b", "a")]
    data = arena(path)
    assert pairs(data) == mine + theirs
    counts = {name: data.provenance["counts"][name] for name in ("judgements", "ties", "decisive", "judges")}
    assert counts == {"judgements": 9, "ties": 2, "decisive": 7, "judges": 3}
    assert data.provenance["positions"] == {"judgements": 6, "first": 3}
    assert pairs(arena(path, language="English")) == mine
    assert ("j1", "q4", "b", "a\n\nHuman: more\n\nAssistant: c") in pairs(arena(path, conversations="all"))
    assert ("j2", "q1", "a", "b") in pairs(arena(path, min_comparisons=1))


def test_chatbot_arena_names_judges_who_pick_a_side(tmp_path: Path) -> None:
    rows = [arena_row("biased", f"q{n}", "a", "b", "model_a") for n in range(40)]
    rows += [arena_row("fair", f"q{n}", "a", "b", "model_b" if n % 2 else "model_a") for n in range(40)]
    path = write_lines(tmp_path / "a.jsonl", rows)
    data = arena(path)
    assert data.users.ids == ("fair",)
    (found,) = [f for f in check(data) if "nearly always pick the same side" in f.what]
    assert (found.severity, found.where, found.count) == ("info", "judges biased", 1)
    (rule,) = [f for f in check(data) if f.what.startswith("the response shown first wins")]
    assert (rule.what, rule.count) == ("the response shown first wins 75%", 80)
    kept = arena(path, drop_one_sided=False)
    assert set(kept.users.ids) == {"biased", "fair"}
    assert [f.severity for f in check(kept) if "same side" in f.what] == ["warning"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"winner": "left"}, "winner: 'left'; expected model_a, model_b or a tie"),
        ({"conversation_b": "text"}, "conversation_b: expected a list of messages"),
        ({"conversation_a": [{"role": "user", "content": "q"}]}, "conversation_a: expected a list of messages"),
    ],
)
def test_faults_of_chatbot_arena(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{**arena_row("j", "q", "a", "b", "model_a"), **change}])
    with pytest.raises(DataError, match=f"line 1: {message}"):
        arena(path)
    with pytest.raises(DataError, match="no comparison is left of what was read"):
        arena(write_lines(path, [arena_row("j", "q", "a", "b", "tie")]))
