"""Files of the published CoPL code, and pickles that are none."""

from __future__ import annotations

import builtins
import collections
import datetime
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from copl.data.checking.checks import check
from copl.data.reading.plain_pickle import read_plain_pickle
from copl.data.sources.reference_pickle import ReferencePickleOptions, ReferencePickleSource
from copl.errors import DataError
from copl.records import PreferenceData
from tests.data.published import reference_pair


def dump(path: Path, value: Any, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


def load(path: Path, **options: Any) -> PreferenceData:
    return ReferencePickleSource(ReferencePickleOptions(path=path, **options)).load(seed=0)


def rows_of(data: PreferenceData, name: str) -> list[tuple[str, str, str, str]]:
    table, part = data.responses, data.split(name).comparisons
    return [
        (data.users.ids[user], table.prompts[chosen], table.texts[chosen], table.texts[rejected])
        for user, chosen, rejected in zip(*(c.tolist() for c in (part.user, part.chosen, part.rejected)), strict=True)
    ]


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_a_file_of_the_published_code(tmp_path: Path, protocol: int) -> None:
    data = load(dump(tmp_path / "UF-P-2.pkl", reference_pair(num_users=4), protocol))
    assert data.name == "UF-P-2"
    assert data.users.ids == ("0", "1", "2", "3")
    assert data.users.groups == ("8", "4", "8", "4")
    assert rows_of(data, "train")[:3] == [("0", f"Question {n}?", "Answer 0.", "Answer 1.") for n in range(3)]
    assert rows_of(data, "validation")[0] == ("0", "Question 3?", "Answer 0.", "Answer 1.")
    assert [row[1] for row in rows_of(data, "cold")[:2]] == ["Question 4?", "Question 5?"]
    assert not [found for found in check(data) if found.severity == "error"]


def test_unseen_users_of_a_second_file(tmp_path: Path) -> None:
    total, users = reference_pair(num_users=2)
    unseen = [{**users[0], "user": 0}]
    path = dump(tmp_path / "a.pkl", (total, users))
    for held in (unseen, (total, unseen)):
        data = load(path, unseen_path=dump(tmp_path / "unseen.pkl", held))
        assert data.users.ids == ("0", "1", "unseen-0")
        assert len(rows_of(data, "support")) == 4  # context and context_unseen
        assert [row[0] for row in rows_of(data, "heldout")] == ["unseen-0"] * 2


def test_other_texts_of_the_published_code(tmp_path: Path) -> None:
    summaries = {n: {"full_text": f"Human: A post. Assistant: Summary {n}."} for n in range(2)}
    users = [{"user": 0, "user_type": 8, "context": [(1, 0)], "context_unseen": [], "target": []}]
    data = load(dump(tmp_path / "TLDR.pkl", (summaries, users)))
    assert rows_of(data, "train") == [("0", "A post.", "Summary 1.", "Summary 0.")]
    bare = {n: {"text": f"Response {n}", "score": np.arange(4.0)} for n in range(2)}
    data = load(dump(tmp_path / "PLM.pkl", (bare, [{k: v for k, v in users[0].items() if k != "user_type"}])))
    assert rows_of(data, "train") == [("0", "", "Response 1", "Response 0")]
    assert data.users.groups == (None,)
    assert any("come without their prompt" in note for note in data.provenance["notes"])
    assert [found.what for found in check(data) if found.severity == "error"] == ["empty prompt"]


class _Runs:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> Any:
        return self._call


def test_nothing_a_pickle_names_is_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    for hostile, name in (
        (_Runs(os.system, f"touch {mark}"), r"(posix|nt).system"),
        (_Runs(builtins.exec, f"open({str(mark)!r}, 'w')"), "exec"),
        (_Runs(builtins.eval, "1"), "eval"),
        (_Runs(builtins.getattr, "os", "system"), "getattr"),
        (_Runs(os.path.expandvars, "$HOME"), "posixpath.expandvars|ntpath.expandvars"),
        (datetime.date(2020, 1, 1), "datetime.date"),
        (collections.OrderedDict(a=1), "collections.OrderedDict"),
        (_Runs(np.load, str(mark)), "numpy.load"),
        (complex(1, 2), "complex"),
        ({1, 2}, "set"),
    ):
        for protocol in (0, 2, 3):
            with pytest.raises(DataError, match=rf"refused: the pickle asks for .*({name})") as caught:
                read_plain_pickle(dump(tmp_path / "a.pkl", [hostile], protocol))
            assert len(caught.value.faults) == 1
    assert not mark.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no pickle",
        pickle.dumps(list(range(1000)))[:-50],
        b"\x80\x05\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",  # a frame of 2^63 bytes
        b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7fa.",  # a text as long
        b"\x80\x02P1\n.",
        b"\x80\x02K\x01Q.",  # an object kept outside the file
        b"\x80\x02\x82\x01.",  # an object of the registry of extensions
        b"\x80\x02cnumpy\ndtype\n)\x81K\x01b.R.",
        b"\x80\x02}K\x01R.",
        b"\x80\x02cnumpy.core.multiarray\nscalar\n(K\x01K\x02tR.",
    ],
)
def test_damaged_and_made_up_streams_are_data_errors(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.pkl"):
        load(path)


@settings(max_examples=200)
@given(st.binary(max_size=60), st.integers(0, 400))
def test_any_bytes_give_plain_values_or_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, place: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "noise.pkl"
    whole = pickle.dumps(reference_pair(num_users=1, num_texts=6), protocol=4)
    path.write_bytes(whole[:place] + noise + whole[place + len(noise) :])
    faults = []
    try:
        load(path)
    except DataError as error:
        faults = error.faults
    assert all("\n" not in fault for fault in faults)


TOTAL, USERS = reference_pair()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1, 2, 3], "expected a pair"),
        (({}, USERS), "expected responses by number first"),
        (({"a": {"full_text": "t"}}, USERS), "response 'a': expected a number"),
        (({1: {"text": 5}}, USERS), "response 1: expected a number and a dict with text"),
        ((TOTAL, {"user": 1}), "expected a list of users"),
        ((TOTAL, [{**USERS[0], "context": [(1, 99)]}]), "user 0: context: expected pairs of numbers"),
        ((TOTAL, [{**USERS[0], "target": [1]}]), "user 0: target: expected pairs of numbers"),
        ((TOTAL, [{**USERS[0], "user": [1]}]), "user 1 of the list: expected a number or text"),
        ((TOTAL, [USERS[0], USERS[0]]), "a user stands there twice"),
    ],
)
def test_another_structure_is_a_fault(tmp_path: Path, value: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(dump(tmp_path / "a.pkl", value))


def test_plain_values_come_back_as_they_were(tmp_path: Path) -> None:
    value = {"a": [1, 2.5, None, True, b"x", "ä"], (1, 2): {}, "big": 10**30}
    assert read_plain_pickle(dump(tmp_path / "a.pkl", value)) == value
    scalars = [np.str_("8"), np.int64(7), np.float32(0.5), np.bool_(True)]
    assert read_plain_pickle(dump(tmp_path / "a.pkl", scalars)) == ["8", 7, 0.5, True]
