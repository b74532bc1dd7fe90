from __future__ import annotations

import inspect
import pickle

import pytest

from copl import errors
from copl.errors import CoplError, DataError, OptionsError, quoted, suggest

SUBCLASSES = [
    value
    for _, value in inspect.getmembers(errors, inspect.isclass)
    if issubclass(value, Exception) and not issubclass(value, Warning) and value is not CoplError
]


def test_one_text_is_one_fault() -> None:
    assert CoplError("row 3: empty text").faults == ("row 3: empty text",)


def test_faults_are_kept_apart_and_printed_one_a_line() -> None:
    error = DataError(f"row {row}: empty text" for row in (1, 2))
    assert error.faults == ("row 1: empty text", "row 2: empty text")
    assert str(error) == "row 1: empty text\nrow 2: empty text"


@pytest.mark.parametrize("subclass", SUBCLASSES)
def test_every_error_is_a_copl_error_and_crosses_processes_whole(subclass: type[CoplError]) -> None:
    error = subclass(["first", "second"])
    assert isinstance(error, CoplError), "an error in copl.errors must derive from CoplError"
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is subclass
    assert copy.faults == ("first", "second")


def test_the_closest_word_is_suggested() -> None:
    assert suggest("num_layer", ["num_layers", "embedding_dim"]) == " (did you mean 'num_layers'?)"


def test_nothing_is_suggested_when_nothing_is_close() -> None:
    assert suggest("zebra", ["num_layers", "embedding_dim"]) == ""
    assert suggest("zebra", []) == ""


def test_options_error_is_caught_as_copl_error() -> None:
    with pytest.raises(CoplError, match="no such"):
        raise OptionsError("no such option")


def test_what_is_quoted_breaks_no_line_and_fills_no_screen() -> None:
    (fault,) = CoplError("row\n3\r\u2028: \x1b[31m" + "x" * 1_000_000 + "; do this").faults
    assert fault.startswith("row\\n3\\r\\u2028: \\x1b[31mxxx")
    assert fault.endswith("xxx; do this")
    assert len(fault) == 2000
    assert CoplError("ä 日本語 👩‍👩‍👧").faults == ("ä 日本語 👩‍👩‍👧",)
    assert len(quoted([["x" * 1000] * 1000] * 1000)) == 200
