import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec

import pytest

from copl.system.moved import MOVED

WRITTEN_BEFORE = """
import sys
from copl.passes import TextMap
from copl.answers import Answer
import copl.answers
import copl.records.answers
assert copl.answers is copl.records.answers
assert Answer is copl.records.answers.Answer
assert sys.modules["copl.records.passes"].__spec__.name == "copl.records.passes"
"""


def test_a_package_written_before_finds_the_very_same_classes() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "always::DeprecationWarning", "-c", WRITTEN_BEFORE], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    said = [line.partition("DeprecationWarning: ")[2] for line in done.stderr.splitlines() if "Deprecation" in line]
    assert said == [
        "copl.passes is copl.records.passes now: import it from there",
        "copl.answers is copl.records.answers now: import it from there",
    ]


def test_what_has_moved_is_where_it_is_said_to_be() -> None:
    for former, place in MOVED.items():
        assert find_spec(place) is not None
        sys.modules.pop(former, None)
        with pytest.warns(DeprecationWarning, match=f"{former} is {place} now"):
            found = import_module(former)
        assert found is import_module(place)
