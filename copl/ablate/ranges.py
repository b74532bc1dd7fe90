"""What a search goes through: ranges of options, the budget of trials, and how a study asks for them.

[search]
num_trials = 8                                    # of each variant on each data set; the first is the recipe itself
seed = 1000                                       # of the runs, and of the data where that is drawn
[search.ranges.vpl]                               # of a variant, beside those its components declare
"method.kl_weight" = { low = 1e-4, high = 1e-2, log = true }
"method.width" = [32, 64, 128]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, TypeVar, final

import numpy as np
from attrs import Factory, field, frozen
from attrs.validators import ge, le

from copl.errors import OptionsError
from copl.options import option, parse_options
from copl.plugins import Range

MOST_RUNS = 10_000
"""Seeds or trials of one recipe; more are a slip of the pen."""

T = TypeVar("T")

Choices: TypeAlias = "Range | tuple[Any, ...]"
"""What an option may be: an interval, or some values."""


@final
@frozen
class Search:
    """What a study asks of a search.

    Attributes:
        num_trials: recipes tried of each variant on each data set, the one as it stands among them.
        seed: of all trials, and of the drawing of data sets that are made for each seed.
        ranges: by variant, by ``section.option``.
    """

    num_trials: int
    seed: int = 1000
    ranges: Mapping[str, Mapping[str, Choices]] = field(factory=dict)


@final
@frozen
class _SearchTable:
    """The table ``[search]``."""

    num_trials: int = option(help="recipes tried of each variant", validator=[ge(1), le(MOST_RUNS)])
    seed: int = option(1000, help="seed of all trials", validator=ge(0))
    ranges: dict[str, Any] = option(Factory(dict), help="tables by the names of variants")


def parsed(options: type[T], values: Mapping[str, object], where: str, faults: list[str]) -> T | None:
    """Return a table of a study as its class; None where it is none, and what is wrong is added to the faults."""
    try:
        return parse_options(options, values, where=where)
    except OptionsError as error:
        faults += error.faults
        return None


def read_search(table: Mapping[str, object], faults: list[str]) -> Search | None:
    """Read the table ``[search]`` of a study; None where it is none."""
    search = parsed(_SearchTable, table, "search", faults)
    if search is None:
        return None
    ranges = {name: _read_ranges(name, values, faults) for name, values in search.ranges.items()}
    return Search(search.num_trials, search.seed, ranges)


def _read_ranges(variant: str, values: object, faults: list[str]) -> dict[str, Choices]:
    if not isinstance(values, Mapping):
        faults.append(f"search.ranges.{variant}: must be a table, such as [search.ranges.vpl]")
        return {}
    flat: dict[str, object] = {}
    for key, value in values.items():
        is_table = isinstance(value, Mapping) and not set(value) & {"low", "high"}
        flat |= {f"{key}.{option}": inner for option, inner in value.items()} if is_table else {key: value}
    ranges: dict[str, Choices] = {}
    for key, value in flat.items():
        where = f"search.ranges.{variant}: {key}"
        if key.count(".") != 1 or not all(key.split(".")):
            faults.append(f"{where}: expected section.option, such as method.learning_rate")
        elif isinstance(value, list) and value:
            ranges[key] = tuple(value)
        elif isinstance(value, Mapping):
            interval = parsed(Range, value, where, faults)
            ranges |= {} if interval is None else {key: interval}
        else:
            faults.append(f"{where}: expected a list of values, or low and high, got {value!r}")
    return ranges


def draw(choices: Choices, like: object, generator: np.random.Generator) -> object:
    """Return one value: of some values any, of an interval a number, whole where `like`, the present value, is."""
    if not isinstance(choices, Range):
        return choices[int(generator.integers(len(choices)))]
    low, high = (float(np.log(end)) if choices.log else end for end in (choices.low, choices.high))
    drawn = float(generator.uniform(low, high))
    value = float(np.exp(drawn)) if choices.log else drawn
    value = min(max(value, choices.low), choices.high)
    return round(value) if isinstance(like, int) and not isinstance(like, bool) else float(f"{value:.4g}")


def ends(choices: Choices) -> Sequence[object]:
    """Return the values that have to be fit for all others to be."""
    return (choices.low, choices.high) if isinstance(choices, Range) else choices
