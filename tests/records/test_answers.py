"""Records of candidates and answers refuse what cannot be."""

from __future__ import annotations

import pytest

from copl.records.answers import Answer, AnswerRequests


def test_requests_need_a_candidate_to_each_prompt() -> None:
    assert len(AnswerRequests(["a", "b"], ["?", "!"], [["x"], ["y", "z"]])) == 4
    with pytest.raises(ValueError, match="2 prompts but candidates to 1"):
        AnswerRequests(["a"], ["?", "!"], [["x"]])
    with pytest.raises(ValueError, match="no candidate to prompt 2"):
        AnswerRequests(["a"], ["?", "!"], [["x"], []])


def test_an_answer_is_one_of_its_candidates() -> None:
    assert Answer("a", "?", ["x", "y"], 1, "x").shown == "y"
    with pytest.raises(ValueError, match="choice 2 of 2 candidates"):
        Answer("a", "?", ["x", "y"], 2, "x")
    with pytest.raises(ValueError, match="1 rewards of 2 candidates"):
        Answer("a", "?", ["x", "y"], 1, "x", rewards=[0.5])
