"""Our own JSON: what is written is read; whatever else lies there is a line with file, key and what was expected."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from copl.errors import CoplError, DataError, RunError
from copl.system.documents import parse_document, read_document, to_json, write_document


@attrs.frozen
class Inner:
    count: int
    share: float = 0.0


@attrs.frozen
class Outer:
    format: int
    name: str
    done: bool
    ids: tuple[str, ...]
    inner: Inner
    by_name: Mapping[str, Inner] = attrs.field(factory=dict)
    maybe: str | None = None
    value: float | int | str = 0
    anything: Mapping[str, Any] = attrs.field(factory=dict)

    def __attrs_post_init__(self) -> None:
        if len(set(self.ids)) != len(self.ids):
            raise ValueError("ids are not unique")


WHOLE = Outer(1, "ä", True, ("a", "b"), Inner(3, 0.5), {"x": Inner(1)}, None, "text", {"deep": [{"er": None}]})
PLAIN: dict[str, Any] = json.loads(to_json(WHOLE))
ADVICE = "make it again"


def _read(path: Path, content: object) -> Outer:
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return read_document(path, Outer, advice=ADVICE, version={"format": 1})


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "new" / "d.json"
    write_document(path, WHOLE)
    assert read_document(path, Outer, advice=ADVICE) == WHOLE
    assert parse_document("[1, 2]", tuple[int, ...], where="here", advice=ADVICE) == (1, 2)  # type: ignore[arg-type]


def test_a_number_that_is_not_finite_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_document(tmp_path / "d.json", {"a": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_a_whole_number_is_a_number_and_unknown_keys_are_left_alone(tmp_path: Path) -> None:
    changed = {**PLAIN, "inner": {"count": 3, "share": 1}, "of a later version": [None]}
    assert _read(tmp_path / "d", changed).inner.share == 1.0


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"name": 3}, "name: expected text, got 3"),
        ({"name": None}, "name: expected text, got nothing"),
        ({"name": ["a"]}, "name: expected text, got ['a']"),
        ({"done": 1}, "done: expected true or false, got 1"),
        ({"ids": "ab"}, "ids: expected a list, got 'ab'"),
        ({"ids": {"a": 1}}, "ids: expected a list, got {'a': 1}"),
        ({"ids": ["a", 2]}, "ids[1]: expected text, got 2"),
        ({"ids": ["a", "a"]}, "ids are not unique"),
        ({"inner": []}, "inner: expected a table of values, got []"),
        ({"inner": None}, "inner: expected a table of values, got nothing"),
        ({"inner": {}}, "inner.count: missing"),
        ({"inner": {"count": True}}, "inner.count: expected a whole number, got True"),
        ({"inner": {"count": 1.0}}, "inner.count: expected a whole number, got 1.0"),
        ({"inner": {"count": 1, "share": "x"}}, "inner.share: expected a number, got 'x'"),
        ({"by_name": {"x": 1}}, "by_name['x']: expected a table of values, got 1"),
        ({"by_name": [1]}, "by_name: expected a table of values, got [1]"),
        ({"maybe": 1}, "maybe: "),
        ({"value": [1]}, "value: "),
        ({"anything": 1}, "anything: expected a table of values, got 1"),
        ({"format": 2}, "format is 2, this version of copl reads 1"),
        ({"format": "1"}, "format is '1', this version of copl reads 1"),
        ({"format": True}, "format is True, this version of copl reads 1"),
    ],
)
def test_a_wrong_value_is_a_line_with_its_key(changes: dict[str, Any], fault: str, tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    with pytest.raises(RunError) as caught:
        _read(path, {**PLAIN, **changes})
    (line,) = caught.value.faults
    assert line.startswith(f"{path}: {fault}")
    assert line.endswith(f"; {ADVICE}")


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "not JSON: expecting value at line 1, column 1"),
        (b"{", "not JSON: expecting property name enclosed in double quotes at line 1, column 2"),
        (b'{"format": 1, "name": "\xff"}', "not text in UTF-8"),
        (b"\xff\xfe{}", "not text in UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": ' * 100_000, "nested too deeply"),
        (b'{"anything": NaN}', "NaN is no number"),
        (b'{"anything": [-Infinity]}', "-Infinity is no number"),
        (b'{"anything": 1e999}', "1e999 is no number"),
        (b'{"anything": ' + b"9" * 5000 + b"}", "a whole number of 5000 digits"),
        (b'{"anything": -9223372036854775809}', "a whole number of 19 digits"),
        (b'{"name": "\\ud800"}', "not text in UTF-8"),
    ],
)
def test_what_is_no_json_of_ours_is_damaged(content: bytes, fault: str, tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    with pytest.raises(RunError) as caught:
        _read(path, content)
    assert caught.value.faults == (f"{path}: damaged: {fault}; {ADVICE}",)


@pytest.mark.parametrize("content", [b"null", b"[]", b'"text"', b"3", b"{}"])
def test_json_of_another_shape_has_no_version(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=f"format is nothing, this version of copl reads 1; {ADVICE}"):
        _read(tmp_path / "d.json", content)


def test_an_absent_file_is_missing_and_the_error_is_the_callers(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"absent: missing; {ADVICE}"):
        read_document(tmp_path / "absent", Outer, advice=ADVICE, error=DataError)
    with pytest.raises(RunError, match="not a file"):
        read_document(tmp_path, Outer, advice=ADVICE)


def test_a_huge_value_is_quoted_shortly_and_on_one_line(tmp_path: Path) -> None:
    with pytest.raises(RunError) as caught:
        _read(tmp_path / "d.json", {**PLAIN, "done": "line\n\x1b[31m" * 100_000})
    (line,) = caught.value.faults
    assert len(line) < 400
    assert "\n" not in line
    assert "\x1b" not in line


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(sorted(PLAIN)), JSON)
def test_any_value_anywhere_is_read_or_refused(key: str, value: Any) -> None:
    content = json.dumps({**PLAIN, key: value})
    try:
        parsed = parse_document(content, Outer, where="here", advice=ADVICE, version={"format": 1})
    except CoplError as error:
        faults = error.faults
    else:
        faults = ()
        assert json.loads(to_json(parsed))[key] == value
    assert all(fault.startswith("here: ") and "\n" not in fault for fault in faults)


@given(st.binary(max_size=40))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    with pytest.raises(CoplError, match=r"^here: "):
        parse_document(content, Outer, where="here", advice=ADVICE)
