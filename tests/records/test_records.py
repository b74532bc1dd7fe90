from __future__ import annotations

import numpy as np
import pytest
import torch
from attrs.exceptions import FrozenInstanceError
from hypothesis import given
from hypothesis import strategies as st

from copl.records import (
    SPLITS,
    Comparisons,
    ComparisonSet,
    NodeEmbeddings,
    PreferenceData,
    PreferenceGraph,
    ResponseTable,
    UserTable,
    response_key,
)
from copl.records.judgements import THUMB, TIE, Judgements


def some_comparisons() -> Comparisons:
    return Comparisons([0, 1, 1], [0, 1, 2], [1, 2, 0], weight=[1, 0.5, 2], controversial=[1, 0, -1])


def test_a_response_key_depends_on_prompt_and_text_and_on_where_one_ends() -> None:
    assert response_key("a", "b") == response_key("a", "b")
    assert len({response_key("a", "b"), response_key("b", "a"), response_key("ab", ""), response_key("", "ab")}) == 4
    assert len(response_key("a", "b")) == 32


@given(st.text(max_size=5), st.text(max_size=5))
def test_any_text_has_a_key_even_a_lone_surrogate(prompt: str, text: str) -> None:
    assert len(response_key(prompt, text + "\ud800")) == 32


def test_rows_of_users_and_responses() -> None:
    users = UserTable(["b", "a"], [None, "x"])
    assert (len(users), users.ids, users.rows) == (2, ("b", "a"), {"b": 0, "a": 1})
    assert UserTable.ungrouped(["u"]).groups == (None,)
    responses = ResponseTable(["p", "p"], ["one", "two"])
    assert responses.rows == {response_key("p", "one"): 0, response_key("p", "two"): 1}


def test_tables_that_contradict_themselves_are_refused() -> None:
    with pytest.raises(ValueError, match="not unique"):
        UserTable.ungrouped(["a", "a"])
    with pytest.raises(ValueError, match="2 user ids but 1 groups"):
        UserTable(["a", "b"], [None])
    with pytest.raises(ValueError, match="1 prompts but 2 texts"):
        ResponseTable(["p"], ["one", "two"])


def test_comparisons_have_defaults_and_one_length() -> None:
    comparisons = Comparisons([0, 1], [1, 0], [0, 1])
    assert comparisons.weight.tolist() == [1.0, 1.0]
    assert comparisons.controversial.tolist() == [-1, -1]
    assert comparisons.user.dtype == np.int64
    with pytest.raises(ValueError, match=r"differ in length: \[1, 2\]"):
        Comparisons([0, 1], [1, 0], [0])


@pytest.mark.parametrize("rows", [[0.5], [True], ["0"]])
def test_rows_that_are_not_whole_numbers_are_refused_rather_than_cut(rows: list[object]) -> None:
    with pytest.raises(TypeError, match="rows are whole numbers"):
        Comparisons(rows, [1], [0])


def test_rows_are_arrays_that_torch_takes() -> None:
    comparisons = Comparisons(np.array([0])[::-1], np.array([0, 1])[::-1][:1], [0])
    assert torch.from_numpy(comparisons.user).tolist() == [0]
    assert torch.from_numpy(comparisons.chosen).tolist() == [1]


def test_take_and_concat_keep_all_columns() -> None:
    taken = some_comparisons().take(np.array([2, 0]))
    assert taken.user.tolist() == [1, 0]
    assert taken.chosen.tolist() == [2, 0]
    assert taken.rejected.tolist() == [0, 1]
    assert taken.weight.tolist() == [2.0, 1.0]
    assert taken.controversial.tolist() == [-1, 1]
    masked = some_comparisons().take(np.array([False, True, False]))
    joined = Comparisons.concat([taken, masked])
    assert joined.weight.tolist() == [2.0, 1.0, 0.5]
    assert joined.controversial.dtype == np.int8
    assert len(Comparisons.concat([])) == len(Comparisons.empty()) == 0
    assert len(Comparisons.empty().take(np.array([], dtype=np.int64))) == 0


def test_comparisons_of_rows_that_are_not_kept_are_left_out() -> None:
    rows = Comparisons([0, 1, 1, 0], [0, 1, 2, 2], [1, 2, 0, 0], [1.0, 2.0, 3.0, 4.0])
    kept = rows.within(np.array([-1, 0]), np.array([0, -1, 1]))  # without the first user and the second response
    assert (kept.user.tolist(), kept.chosen.tolist(), kept.rejected.tolist()) == ([0], [1], [0])
    assert kept.weight.tolist() == [3.0]


def test_a_data_set_gives_an_empty_split_where_it_has_none() -> None:
    data = PreferenceData(
        "toy",
        UserTable.ungrouped(["a", "b"]),
        ResponseTable(["p"] * 3, ["x", "y", "z"]),
        {"heldout": some_comparisons(), "train": some_comparisons(), "test": Comparisons.empty()},
    )
    assert list(data.present()) == ["train", "heldout"]
    assert isinstance(data.split("cold"), ComparisonSet)
    assert len(data.split("cold")) == 0
    assert len(data.split("train")) == 3
    assert next(iter(SPLITS)) == "train"


def test_graph_and_embeddings_know_their_sizes() -> None:
    graph = PreferenceGraph(("a", "b"), ("x", "y", "z"), some_comparisons())
    assert (graph.num_users, graph.num_responses, len(graph.validation)) == (2, 3, 0)
    embeddings = NodeEmbeddings(
        graph.user_ids,
        graph.response_keys,
        torch.zeros(2, 4),
        torch.zeros(3, 4),
        torch.zeros(3),
        graph.comparisons,
    )
    assert embeddings.dim == 4
    assert embeddings.user_rows == {"a": 0, "b": 1}
    assert embeddings.response_rows["z"] == 2


def test_records_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        some_comparisons().user = np.zeros(3)  # type: ignore[misc]


def test_responses_are_taken_in_the_order_asked_for() -> None:
    table = ResponseTable(["p", "q", "r"], ["x", "y", "z"])
    taken = table.take(np.array([2, 0]))
    assert (taken.prompts, taken.texts) == (("r", "p"), ("z", "x"))


def test_what_one_user_says_is_taken_out_with_its_judgements() -> None:
    users = UserTable(["a", "b", "c"], [None, "x", None])
    responses = ResponseTable(["p"] * 4, ["0", "1", "2", "3"])
    judged = Judgements([THUMB] * 3, [1, 0, 1], [0, 1, 2], [-1] * 3, [1.0, 1.0, -1.0])
    given = Comparisons([0, 1], [0, 2], [1, 3], time=[5.0, 7.0])
    said = PreferenceData("x", users, responses, {"train": given}, {}, {"train": judged}).split("train")
    assert said.speakers == ("a", "b")
    assert (said.given.chosen.tolist(), len(said)) == ([0, 2], 3)
    own = said.of_user("b")
    assert (own.users.ids, own.users.groups) == (("b",), ("x",))
    assert (own.comparisons.user.tolist(), own.comparisons.chosen.tolist()) == ([0, 0], [2, 0])  # and what is implied
    assert (own.given.time.tolist(), own.num_given) == ([7.0], 1)
    assert (own.judgements.user.tolist(), own.judgements.response.tolist()) == ([0, 0], [0, 2])
    for name in ("c", "nobody"):
        assert said.of_user(name).says_nothing
        assert said.of_user(name).users.ids == (name,)
    some = said.take(np.array([False, True, True]))
    assert (some.given.chosen.tolist(), len(some), len(some.judgements)) == ([2], 2, 3)


def test_only_what_a_person_could_have_said_is_told_apart() -> None:
    users, responses = UserTable.ungrouped(["a", "b"]), ResponseTable(["p", "p", "q", "q"], ["0", "1", "2", "3"])
    judged = Judgements([THUMB] * 3 + [TIE], [0] * 4, [0, 1, 2, 2], [-1, -1, -1, 3], [1.0, -1.0, -1.0, 0.0])
    given = Comparisons([1, 1, 0], [2, 0, 3], [3, 1, 2])
    said = PreferenceData("x", users, responses, {"train": given}, {}, {"train": judged}).split("train")
    rows = said.comparisons
    implied = {*zip(rows.user.tolist(), rows.chosen.tolist(), rows.rejected.tolist(), strict=True)}
    assert {(0, 0, 2), (0, 2, 3), (0, 3, 2)} <= implied  # thumbs to two prompts, and a tie in both directions
    kept = said.take(said.told_apart)
    rows = kept.comparisons
    told = [*zip(rows.user.tolist(), rows.chosen.tolist(), rows.rejected.tolist(), strict=True)]
    assert told == [(1, 2, 3), (1, 0, 1), (0, 0, 1)]  # of a pair that a user called better and alike nothing is told
    assert kept.num_given == 2
    assert said.of_user("nobody").told_apart.tolist() == []
