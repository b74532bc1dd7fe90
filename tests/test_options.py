from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any, Literal

import attrs
import pytest
import tomlkit
from attrs import validators
from hypothesis import given, settings
from hypothesis import strategies as st

from copl.errors import OptionsError, quoted
from copl.options import OptionInfo, describe_options, option, options_to_dict, parse_options, values_before


@attrs.frozen
class Everything:
    num_layers: int = option(2, help="number of layers", validator=validators.ge(1))
    learning_rate: float = option(0.01, help="step size", validator=validators.gt(0.0))
    normalise: bool = option(True, help="divide by the degrees")
    label: str = option("plain", help="shown in tables")
    folder: Path = option(Path("data"), help="where the files lie")
    loss: Literal["bpr", "hinge"] = option("bpr", help="loss")
    seeds: tuple[int, ...] = option((1, 2), help="seeds")
    names: dict[str, str] = option(attrs.Factory(dict), help="names by key")
    limit: int | None = option(None, help="at most so many")
    patience: int | None = option(5, help="epochs without progress; none never stops")


@attrs.frozen
class Required:
    path: Path = option(help="the file to read")
    column: str | None = option(None, help="column to read")


@attrs.frozen
class Ordered:
    low: int = option(0, help="lower end")
    high: int = option(1, help="upper end")

    def __attrs_post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"low ({self.low}) must not exceed high ({self.high})")


@attrs.frozen
class Tables:
    base: dict[str, Any] = option(attrs.Factory(dict), help="values of all")
    rows: tuple[dict[str, Any], ...] = option((), help="a table each")


@attrs.frozen
class Grown:
    width: int = option(4, help="width", before=6)
    depth: int = option(1, help="depth")


def faults(values: dict[str, Any], options: type = Everything) -> tuple[str, ...]:
    with pytest.raises(OptionsError) as caught:
        parse_options(options, values, where="encoder.x")
    return caught.value.faults


def test_nothing_given_gives_the_defaults() -> None:
    assert parse_options(Everything, {}, where="x") == Everything()


def test_tables_of_files_are_taken_as_they_are() -> None:
    base, rows = {"a": {"b": [1, None]}}, [{"x": 1}, {}]
    assert parse_options(Tables, {"base": base, "rows": rows}, where="x") == Tables(base, tuple(rows))
    assert faults({"base": "a=1", "rows": [{}, 3]}, Tables) == (
        "encoder.x.base: expected table, got 'a=1'",
        "encoder.x.rows: expected list of table, got [{}, 3]",
    )


def test_an_option_says_what_held_before_there_was_it() -> None:
    assert values_before(Grown) == {"width": 6}
    assert parse_options(Grown, {}, where="x") == Grown(width=4, depth=1)
    assert [info.help for info in describe_options(Grown)] == ["width", "depth"]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("num_layers", 3, 3),
        ("num_layers", "3", 3),
        ("num_layers", 3.0, 3),
        ("num_layers", "1_000", 1000),
        ("learning_rate", 1, 1.0),
        ("learning_rate", "1e-3", 0.001),
        ("normalise", False, False),
        ("normalise", "off", False),
        ("normalise", "Yes", True),
        ("normalise", "0", False),
        ("label", "a b", "a b"),
        ("folder", "a/b", Path("a/b")),
        ("folder", Path("a"), Path("a")),
        ("loss", "hinge", "hinge"),
        ("seeds", "4, 5", (4, 5)),
        ("seeds", [4, 5], (4, 5)),
        ("seeds", "", ()),
        ("names", {"a": "b"}, {"a": "b"}),
        ("names", "a=b, c=d=e", {"a": "b", "c": "d=e"}),
        ("limit", "none", None),
        ("limit", None, None),
        ("limit", "7", 7),
        ("patience", "none", None),
    ],
)
def test_text_and_toml_values_become_the_options_type(name: str, value: Any, expected: Any) -> None:
    parsed = getattr(parse_options(Everything, {name: value}, where="x"), name)
    assert parsed == expected
    assert type(parsed) is type(expected)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("num_layers", "three", "int"),
        ("num_layers", 2.5, "int"),
        ("num_layers", "2.5", "int"),
        ("num_layers", True, "int"),
        ("num_layers", None, "int"),
        ("num_layers", float("inf"), "int"),
        ("learning_rate", "nan", "float"),
        ("learning_rate", float("nan"), "float"),
        ("learning_rate", 10**400, "float"),
        ("learning_rate", True, "float"),
        ("learning_rate", [0.1], "float"),
        ("normalise", "maybe", "bool"),
        ("normalise", 1, "bool"),
        ("label", 3, "text"),
        ("folder", 3, "path"),
        ("loss", "bp", "bpr | hinge"),
        ("seeds", "1,x", "list of int"),
        ("seeds", 1, "list of int"),
        ("names", "a", "table of text"),
        ("names", {"a": 1}, "table of text"),
        ("names", ["a"], "table of text"),
        ("limit", "some", "int | none"),
    ],
)
def test_a_wrong_type_names_the_option_what_is_expected_and_what_came(name: str, value: Any, expected: str) -> None:
    assert faults({name: value}) == (f"encoder.x.{name}: expected {expected}, got {quoted(value)}",)


def test_all_faults_are_reported_at_once() -> None:
    found = faults({"num_layer": 3, "learning_rate": "fast", "num_layers": 0, "loss": "mse", "seeds": "1"})
    assert len(found) == 4
    assert found[0].startswith("encoder.x: unknown option 'num_layer' (did you mean 'num_layers'?); it has num_layers")
    assert {fault.split(":")[0] for fault in found[1:]} == {
        "encoder.x.learning_rate",
        "encoder.x.num_layers",
        "encoder.x.loss",
    }


def test_an_unknown_option_of_a_component_without_options() -> None:
    @attrs.frozen
    class Nothing:
        pass

    assert faults({"a": 1}, Nothing) == ("encoder.x: unknown option 'a'; it has no options",)


@pytest.mark.parametrize(
    ("validator", "value", "expected"),
    [
        (validators.ge(1), 0, "encoder.x.size: must be >= 1: 0"),
        (validators.lt(1), 1, "encoder.x.size: must be < 1: 1"),
        (validators.and_(validators.ge(1), validators.le(3)), 4, "encoder.x.size: must be <= 3: 4"),
        (validators.in_((1, 2)), 3, "encoder.x.size: must be in (1, 2) (got 3)"),
        (validators.instance_of(str), 3, "encoder.x.size: must be <class 'str'>"),
    ],
)
def test_messages_of_validators_are_readable(validator: Any, value: int, expected: str) -> None:
    options = attrs.make_class("Sized", {"size": option(1, help="size", validator=validator)}, frozen=True)
    options.__annotations__ = {"size": int}
    (fault,) = faults({"size": value}, options)
    assert fault.startswith(expected)
    assert "Attribute(" not in fault


def test_a_required_option_that_is_missing_shows_its_help() -> None:
    assert faults({}, Required) == ("encoder.x: option 'path' is required: the file to read",)
    assert parse_options(Required, {"path": "a.csv"}, where="x").path == Path("a.csv")


def test_a_rule_across_options_is_one_fault() -> None:
    assert faults({"low": 3, "high": "2"}, Ordered) == ("encoder.x: low (3) must not exceed high (2)",)


def test_describe_options_shows_type_default_and_help() -> None:
    infos = {info.name: info for info in describe_options(Everything)}
    assert list(infos) == [field.name for field in attrs.fields(Everything)]
    assert infos["num_layers"] == OptionInfo("num_layers", "int", "2", "number of layers", required=False)
    assert infos["normalise"].default == "true"
    assert infos["folder"].default == "data"
    assert infos["loss"].type == "bpr | hinge"
    assert infos["seeds"].type == "list of int"
    assert infos["names"].default == "{}"
    assert (infos["limit"].type, infos["limit"].default) == ("int | none", "none")
    assert describe_options(Required)[0] == OptionInfo("path", "path", "", "the file to read", required=True)


def test_an_option_that_is_none_against_its_default_is_written_down() -> None:
    plain = options_to_dict(Everything(patience=None))
    assert plain["patience"] == "none"
    assert "limit" not in plain


texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8)


@settings(max_examples=60)
@given(
    st.builds(
        Everything,
        num_layers=st.integers(1, 2**40),
        learning_rate=st.floats(1e-300, 1e300),
        normalise=st.booleans(),
        label=texts,
        folder=texts.map(Path),
        loss=st.sampled_from(["bpr", "hinge"]),
        seeds=st.lists(st.integers(-(2**40), 2**40), max_size=4).map(tuple),
        names=st.dictionaries(texts, texts, max_size=3),
        limit=st.none() | st.integers(-5, 5),
        patience=st.none() | st.integers(-5, 5),
    )
)
def test_plain_values_written_as_toml_or_json_give_the_same_options_back(options: Everything) -> None:
    plain = options_to_dict(options)
    assert parse_options(Everything, plain, where="x") == options
    assert parse_options(Everything, json.loads(json.dumps(plain)), where="x") == options
    assert parse_options(Everything, tomllib.loads(tomlkit.dumps(plain)), where="x") == options


@settings(max_examples=40)
@given(st.integers(1, 10**9), st.floats(1e-9, 1e9), st.booleans(), st.lists(st.integers(0, 99), max_size=4))
def test_the_text_of_a_value_means_the_value(layers: int, rate: float, normalise: bool, seeds: list[int]) -> None:
    typed = {"num_layers": layers, "learning_rate": rate, "normalise": normalise, "seeds": seeds}
    text = {**{name: str(value) for name, value in typed.items()}, "seeds": ",".join(map(str, seeds))}
    assert parse_options(Everything, text, where="x") == parse_options(Everything, typed, where="x")
