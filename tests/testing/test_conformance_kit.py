"""The kit passes good encoders and catches broken ones, and what is wrong with any kind of component."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import attrs
import pytest
import torch
from attrs import evolve

from copl.errors import OptionsError
from copl.interfaces import GraphEncoder, Progress
from copl.options import option
from copl.plugins import Component, Registered
from copl.records import (
    Comparisons,
    NodeEmbeddings,
    PreferenceGraph,
)
from copl.records.passes import GaussianPass, TextMap
from copl.testing import check_component
from copl.testing.planted import accuracy, planted_crowd

# ---------------------------------------------------------------- encoders


class ToyEncoder(GraphEncoder):
    """The signed incidence times itself: users who agree lie close."""

    def fit(self, graph: PreferenceGraph, *, seed: int, progress: Progress) -> NodeEmbeddings:
        signed = torch.zeros(graph.num_users, graph.num_responses)
        rows = graph.comparisons
        for u, c, r in zip(rows.user, rows.chosen, rows.rejected, strict=True):
            signed[u, c] += 1
            signed[u, r] -= 1
        return NodeEmbeddings(
            graph.user_ids,
            graph.response_keys,
            signed @ signed.T @ signed,
            torch.eye(graph.num_responses),
            torch.zeros(graph.num_responses),
            rows,
        )


def broken_encoder(
    change: Callable[[NodeEmbeddings, PreferenceGraph, int], NodeEmbeddings],
) -> Callable[[Any], ToyEncoder]:
    class Broken(ToyEncoder):
        def fit(self, graph: PreferenceGraph, *, seed: int, progress: Progress) -> NodeEmbeddings:
            return change(super().fit(graph, seed=seed, progress=progress), graph, seed)

    return lambda options: Broken()


def test_a_good_encoder_passes(kit: Any) -> None:
    results = kit.check("encoder", lambda options: ToyEncoder())
    assert kit.not_passed(results) == set()
    assert len(results) == 17


def _global_noise(e: NodeEmbeddings, graph: PreferenceGraph, seed: int) -> NodeEmbeddings:
    return evolve(e, users=e.users + 0.01 * torch.randn_like(e.users))


def _reseeds(e: NodeEmbeddings, graph: PreferenceGraph, seed: int) -> NodeEmbeddings:
    torch.manual_seed(seed)
    return evolve(e, users=e.users + 0.01 * torch.randn_like(e.users))


def _weighs_in_place(e: NodeEmbeddings, graph: PreferenceGraph, seed: int) -> NodeEmbeddings:
    graph.comparisons.weight[:] *= 2
    return e


def _not_a_number_for_isolated(e: NodeEmbeddings, graph: PreferenceGraph, seed: int) -> NodeEmbeddings:
    return evolve(e, users=e.users / e.users.norm(dim=1, keepdim=True))


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (lambda e, g, s: evolve(e, users=e.users[:-1]), "users must be [24, D], got (23, 16)"),
        (lambda e, g, s: evolve(e, user_ids=e.user_ids[::-1]), "user_ids are not those of the graph"),
        (lambda e, g, s: evolve(e, response_keys=()), "response_keys are not those of the graph"),
        (lambda e, g, s: evolve(e, responses=e.responses[:, :2]), "responses must be [16, 16], got [16, 2]"),
        (lambda e, g, s: evolve(e, response_bias=e.responses), "response_bias must be [16]"),
        (lambda e, g, s: evolve(e, users=e.users.requires_grad_()), "users still requires gradients"),
        (lambda e, g, s: evolve(e, comparisons=Comparisons.empty()), "comparisons must be the training comparisons"),
        (
            lambda e, g, s: evolve(e, newcomer_pass=GaussianPass(torch.zeros(16), torch.full((16, 1), torch.nan))),
            "newcomer_pass.factor holds values that are not finite",
        ),
        (lambda e, g, s: (e.users, e.responses), "fit returned tuple"),
        (_global_noise, "the global random state of torch was changed"),
        (_global_noise, "two fits with the same seed differ"),
        (_reseeds, "the global random state of torch was changed"),
        (_weighs_in_place, "fit changed the arrays of the graph"),
        (_not_a_number_for_isolated, "users holds values that are not finite"),
        (lambda e, g, s: evolve(e, users=-e.users), "right about 0% of held-out comparisons of seen users"),
        (lambda e, g, s: evolve(e, users=torch.zeros_like(e.users)), "right about 50% of held-out comparisons of seen"),
        (
            lambda e, g, s: evolve(e, users=e.users / 20_000),
            "newcomers placed by strategy 'empirical' are right about 50%, where seen users are about 100% and "
            "chance is 50 %; margins are read as log-odds, and these fit best when multiplied by about",
        ),
        (
            lambda e, g, s: evolve(e, newcomer_pass=GaussianPass(torch.zeros(e.dim), torch.zeros(e.dim, 1))),
            "newcomers placed by strategy 'encode' are right about 50%",
        ),
    ],
)
def test_a_broken_encoder_is_caught(
    kit: Any, change: Callable[[NodeEmbeddings, PreferenceGraph, int], Any], finding: str
) -> None:
    assert finding in kit.caught(kit.check("encoder", broken_encoder(change)))


def test_only_the_checks_of_what_is_wrong_fail(kit: Any) -> None:
    results = kit.check("encoder", broken_encoder(_not_a_number_for_isolated))
    assert kit.not_passed(results) == {
        "a user without comparisons and a response nobody saw are embedded too",
        "repeated and contradictory comparisons are no problem",  # they cancel out, so nothing is left to divide by
    }


def test_an_encoder_that_cannot_place_newcomers_says_so(kit: Any) -> None:
    tiny = broken_encoder(lambda e, g, s: evolve(e, users=e.users / 20_000, places_newcomers=False))
    results = kit.check("encoder", tiny)
    (name,) = kit.not_passed(results)
    assert results[name].outcome == "skipped"
    assert "does not place newcomers" in results[name].detail


def test_what_is_asked_is_right_with_the_camps_and_half_right_without_them() -> None:
    """So the stated margin is of a headroom of 50 points."""
    crowd = planted_crowd()
    group = 1.0 - 2.0 * torch.tensor([row % 3 == 0 for row in range(crowd.graph.num_users)])
    trait = 1.0 - 2.0 * (torch.arange(crowd.graph.num_responses) % 2)
    graph = crowd.graph
    known = NodeEmbeddings(
        graph.user_ids, graph.response_keys, group[:, None], trait[:, None], torch.zeros(60), graph.comparisons
    )
    assert accuracy(known, known.users, crowd.heldout) == 1.0
    assert accuracy(known, torch.ones(120, 1), crowd.heldout) == 0.5
    newcomers = 1.0 - 2.0 * (torch.arange(40) % 2)
    assert accuracy(known, newcomers[:, None], crowd.asked.comparisons) == 1.0
    assert accuracy(known, torch.ones(40, 1), crowd.asked.comparisons) == 0.5


def test_an_exception_is_a_finding_with_its_place(kit: Any) -> None:
    def fail(e: NodeEmbeddings, graph: PreferenceGraph, seed: int) -> NodeEmbeddings:
        if graph.num_users == 1:
            raise IndexError("no neighbours")
        return e

    results = kit.check("encoder", broken_encoder(fail))
    (name,) = kit.not_passed(results)
    assert name == "a graph of one user and two responses is no problem"
    assert results[name].detail.startswith("raised IndexError: no neighbours (")
    assert "test_conformance_kit.py:" in results[name].detail


def test_what_cannot_be_made_fails_once(kit: Any) -> None:
    def fail(options: Any) -> Any:
        raise RuntimeError("no such file")

    results = kit.check("source", fail)
    assert [result.outcome for result in results.values()].count("failed") == 1
    assert {r.detail for r in results.values() if r.outcome == "skipped"} == {"cannot be checked, see above"}


def test_an_encoder_of_another_family_is_caught(kit: Any) -> None:
    class Stranger:
        def fit(self, graph: PreferenceGraph, *, seed: int, progress: Progress) -> NodeEmbeddings:
            return ToyEncoder().fit(graph, seed=seed, progress=progress)

    assert kit.not_passed(kit.check("encoder", lambda options: Stranger())) == {
        "build gives a GraphEncoder",
        "reads_texts says whether fit makes use of text embeddings of the responses",
        "continues says whether fit_from goes on; from the same graph it gives the same, and new nodes are embedded",
    }


def test_an_encoder_that_reads_texts_without_saying_so_is_caught(kit: Any) -> None:
    class Reader(ToyEncoder):
        def fit(self, graph: PreferenceGraph, *, seed: int, progress: Progress) -> NodeEmbeddings:
            if graph.response_features is None:
                raise ValueError("no texts")
            return super().fit(graph, seed=seed, progress=progress)

    assert "no texts" in kit.caught(kit.check("encoder", lambda options: Reader()))


@pytest.mark.parametrize(
    ("declared", "factor", "columns", "told"),
    [
        (True, 1.0, 16, "what text_map makes of its text"),
        (True, 0.0, 3, "text_map must give [16, 17], got [16, 4]"),
        (True, float("nan"), 16, "text_map.weight holds values that are not finite"),
        (False, 0.0, 16, "reads_texts must be True"),
    ],
)
def test_a_map_of_texts_that_is_not_the_tables_is_caught(
    kit: Any, declared: bool, factor: float, columns: int, told: str
) -> None:
    class Reader(ToyEncoder):
        @property
        def reads_texts(self) -> bool:
            return declared

        def fit(self, graph: PreferenceGraph, *, seed: int, progress: Progress) -> NodeEmbeddings:
            weight = factor * torch.ones(6, columns + 1)
            text_map = TextMap(torch.zeros(6), torch.ones(6), torch.zeros(0, 6), weight, torch.zeros(columns + 1))
            return evolve(super().fit(graph, seed=seed, progress=progress), text_map=text_map)

    assert told in kit.caught(kit.check("encoder", lambda options: Reader()))


# ---------------------------------------------------------------- what every component has


def test_texts_about_the_component(kit: Any) -> None:
    def build(options: Any) -> ToyEncoder:
        return ToyEncoder()

    long = kit.check("encoder", build, summary="x" * 121)
    assert {result.outcome for result in long.values()} == {"passed", "warning"}
    assert "121 characters" in kit.caught(long)


@attrs.define
class MutableOptions:
    size: int = option(1, help="size")


@attrs.frozen
class SilentOptions:
    size: int = 1


@attrs.frozen
class StrangeOptions:
    size: set[int] = option(attrs.Factory(set), help="size")


@attrs.frozen
class FixedTuple:
    size: tuple[int, int] = option((1, 2), help="size")


@attrs.frozen
class ReservedOptions:
    preset: str = option("a", help="collides")


@attrs.frozen
class WrongDefault:
    sizes: tuple[int, ...] = option([1, 2], help="sizes")


@attrs.frozen
class InvalidDefault:
    size: int = option(0, help="size", validator=attrs.validators.ge(1))


@pytest.mark.parametrize(
    ("options", "finding"),
    [
        (MutableOptions, "can be changed after it was made"),
        (SilentOptions, "no help text: size"),
        (StrangeOptions, "type not understood: size: set[int]"),
        (FixedTuple, "type not understood: size: tuple[int, int]"),
        (ReservedOptions, "preset: taken by recipes"),
        (WrongDefault, "do the defaults have their declared types?"),
        (InvalidDefault, "must be >= 1"),
    ],
)
def test_broken_options_are_caught_and_nothing_is_built_with_them(kit: Any, options: type, finding: str) -> None:
    results = kit.check("encoder", lambda options: ToyEncoder(), options=options)
    assert finding in kit.caught(results)
    assert "build gives a GraphEncoder" not in results


@attrs.frozen
class SizedOptions:
    path: str = option(help="a file")
    mode: Literal["a", "b"] | None = option(None, help="mode")
    size: int = option(1, help="size", validator=attrs.validators.ge(1))


def test_broken_presets_are_caught() -> None:
    component = Component("toy", SizedOptions, lambda options: ToyEncoder(), "A toy.", presets={"big": {"sise": 0}})
    results = check_component(Registered(component, "toy-package", "1"), "encoder", {"path": "x"})
    (failed,) = [result for result in results if not result.passed]
    assert "unknown option 'sise' (did you mean 'size'?)" in failed.detail


def test_a_required_option_skips_what_needs_it_unless_it_is_given() -> None:
    component = Component("toy", SizedOptions, lambda options: ToyEncoder(), "A toy.", "by hand")
    registered = Registered(component, "toy-package", "1")
    without = check_component(registered, "encoder")
    assert {result.detail for result in without if result.outcome == "skipped"} == {"needs a value for path"}
    assert all(result.passed for result in without)
    assert {result.outcome for result in check_component(registered, "encoder", {"path": "x"})} == {"passed"}


def test_an_unknown_kind(kit: Any) -> None:
    with pytest.raises(OptionsError, match="did you mean 'encoder'"):
        kit.check("encoders", lambda options: ToyEncoder())
