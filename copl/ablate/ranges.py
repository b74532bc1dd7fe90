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
from typing import Any, TypeAlias, final

import numpy as np
from attrs import field, frozen

from copl.errors import quoted, suggest
from copl.plugins import Range
from copl.runs.recipe import is_seed

MOST_RUNS = 10_000
"""Seeds or trials of one recipe; more are a slip of the pen."""

_KEYS = ("num_trials", "seed", "ranges")
_RANGE_KEYS = ("low", "high", "log")

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


def read_search(document: Mapping[str, Any], faults: list[str]) -> Search | None:
    """Read the table ``[search]`` of a study; None where it has none."""
    table = document.get("search")
    if table is None:
        return None
    if not isinstance(table, Mapping):
        faults.append("search must be a table, such as [search]")
        return None
    faults += [f"search: unknown key {key!r}{suggest(key, _KEYS)}" for key in table if key not in _KEYS]
    num_trials: Any = table.get("num_trials")
    seed, ranges = table.get("seed", 1000), table.get("ranges", {})
    if not is_seed(num_trials) or not 1 <= num_trials <= MOST_RUNS:
        faults.append(
            f"search: num_trials must be a whole number of at least 1 and at most {MOST_RUNS:,}, got "
            f"{quoted(num_trials)}"
        )
        num_trials = 1
    if not is_seed(seed):
        faults.append(f"search: seed must be a whole number from 0 up to 2^63 - 1, got {seed!r}")
        seed = 0
    if not isinstance(ranges, Mapping) or not all(isinstance(values, Mapping) for values in ranges.values()):
        faults.append("search: ranges must be tables by the names of variants, such as [search.ranges.vpl]")
        ranges = {}
    read = {name: _read_ranges(name, values, faults) for name, values in ranges.items()}
    return Search(num_trials, seed, read)


def _read_ranges(variant: str, values: Mapping[str, Any], faults: list[str]) -> dict[str, Choices]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        is_table = isinstance(value, Mapping) and not set(value) & {"low", "high"}
        flat |= {f"{key}.{option}": inner for option, inner in value.items()} if is_table else {key: value}
    found: dict[str, Choices] = {}
    for key, value in flat.items():
        where = f"search.ranges.{variant}: {key}"
        if key.count(".") != 1 or not all(key.split(".")):
            faults.append(f"{where}: expected section.option, such as method.learning_rate")
        elif isinstance(value, list) and value:
            found[key] = tuple(value)
        elif isinstance(value, Mapping) and set(value) <= set(_RANGE_KEYS):
            try:
                found[key] = Range(**value)
            except (TypeError, ValueError) as error:
                faults.append(f"{where}: {error}")
        else:
            faults.append(f"{where}: expected a list of values, or low and high, got {value!r}")
    return found


def draw(choices: Choices, like: Any, generator: np.random.Generator) -> Any:
    """Return one value: of some values any, of an interval a number, whole where `like`, the present value, is."""
    if not isinstance(choices, Range):
        return choices[int(generator.integers(len(choices)))]
    low, high = (float(np.log(end)) if choices.log else end for end in (choices.low, choices.high))
    drawn = float(generator.uniform(low, high))
    value = float(np.exp(drawn)) if choices.log else drawn
    value = min(max(value, choices.low), choices.high)
    return round(value) if isinstance(like, int) and not isinstance(like, bool) else float(f"{value:.4g}")


def ends(choices: Choices) -> Sequence[Any]:
    """Return the values that have to be fit for all others to be."""
    return (choices.low, choices.high) if isinstance(choices, Range) else choices
