from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from copl.data.canonical import ValueFaultError, alike, canonical_id, canonical_text, text_fault

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@pytest.mark.parametrize(
    "text",
    [
        "Zoë is in.",
        " Zoë is in. ",
        "Zoë is in.\n",
        "Zoë is in.\r\n",
        "\ufeffZoë is in.",
        "Zoë is in.\u200b",
        "Zoë\u00a0is in.",
        "Zoë is\u202fin.\u00a0",
        "Z\u200bo\u00adë is in.",
        "Zoe\u0308 is in.",
        "\u200eZoë is in.\u200f",
        "Zoë is in.\u200d",
    ],
)
def test_what_reads_the_same_is_the_same(text: str) -> None:
    assert canonical_text(text) == canonical_id(text) == "Zoë is in."


@pytest.mark.parametrize(
    "text", ["zoë", "Zoe", "Zoë!", "def f():\n    return 1", "a\n\nb", "a  b", "a\tb", "👩\u200d🌾"]
)
def test_what_can_be_seen_stays(text: str) -> None:
    assert canonical_text(text) == text


def test_line_breaks_are_of_one_kind() -> None:
    assert canonical_text("a\r\nb\rc\u2028d\u0085e") == "a\nb\nc\nd\ne"


def test_an_id_is_one_line_with_single_spaces() -> None:
    assert canonical_id("Ann \u00a0 Lee\n") == canonical_id("Ann\nLee") == "Ann Lee"


@given(ANY_TEXT)
def test_the_one_spelling_is_its_own(text: str) -> None:
    assert canonical_text(canonical_text(text)) == canonical_text(text)
    assert canonical_id(canonical_id(text)) == canonical_id(text)


@given(ANY_TEXT, st.sampled_from(["NFC", "NFD"]), st.sampled_from(["", " ", "\u00a0", "\n", "\u200b"]))
def test_form_and_surroundings_make_no_difference(text: str, form: str, around: str) -> None:
    other = around + unicodedata.normalize(form, text) + around  # type: ignore[arg-type]  # one of the literals
    assert canonical_text(other) == canonical_text(text)


@pytest.mark.parametrize("value", [7, np.int64(7), np.uint8(7), "7", " 7", np.str_("7")])
def test_whole_numbers_are_known_by_their_digits(value: object) -> None:
    assert canonical_id(value) == "7"


def test_digits_are_not_changed() -> None:
    assert canonical_id("007") == "007"
    assert canonical_id(10**25) == str(10**25)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (True, "a truth value"),
        (7.0, "7.0"),
        (None, "nothing"),
        (["a"], "a list"),
        ({}, "an object"),
        (b"a", "bytes"),
    ],
)
def test_what_is_neither_text_nor_whole_is_refused(value: object, kind: str) -> None:
    with pytest.raises(ValueFaultError, match=f"expected text or a whole number, got {kind}"):
        canonical_id(value)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("Yes.", None),
        ("", "empty"),
        (" \u00a0\u200b\n", "empty"),
        ("a\0b", "NUL"),
        ("a\ud800b", "surrogate"),
    ],
)
def test_what_cannot_be_kept_is_said(text: str, fault: str | None) -> None:
    said = text_fault(text)
    assert said is None if fault is None else said is not None and fault in said


@pytest.mark.parametrize("other", ["ann lee", "ANN LEE", "Ann  Lee", "AnnLee", "\uff21nn Lee", "Ann\u200cLee"])
def test_names_that_look_alike(other: str) -> None:
    assert alike(other) == alike("Ann Lee")


def test_names_that_do_not() -> None:
    assert len(set(map(alike, ("ann", "anna", "ännchen", "ann-lee", "ann1")))) == 5
