"""The conformance kit for plugin authors: does a component keep the promises of its kind?

`copl plugins check NAME` runs it on the command line; in the tests of a plugin package it is three lines:

    @pytest.mark.parametrize("result", check_component(load().registry("encoder").get("mine"), "encoder"), ids=str)
    def test_conformance(result):
        assert result.passed, result.detail

The kit makes its own small inputs: a planted preference graph, newcomers, a tiny data set.
"""

from __future__ import annotations

from copl.testing.check import CheckResult
from copl.testing.kit import check_component

__all__ = ["CheckResult", "check_component"]
