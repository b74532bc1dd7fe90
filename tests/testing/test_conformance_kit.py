"""The kit passes good toys and catches a deliberately broken one of each fault."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, Literal

import attrs
import numpy as np
import pytest
import torch
from attrs import evolve

from copl.errors import BackboneError, OptionsError
from copl.interfaces import ExpertGate, GraphEncoder, Progress
from copl.options import option
from copl.plugins import Component, Registered
from copl.records import (
    AdaptedUsers,
    Comparisons,
    ComparisonSet,
    GateWeights,
    Measurement,
    NodeEmbeddings,
    PreferenceData,
    PreferenceGraph,
)
from copl.testing import CheckResult, check_component
from copl.testing.planted import planted_data

COUNTER = itertools.count()


@attrs.frozen
class NoOptions:
    pass


def check(kind: str, build: Callable[..., Any], **about: Any) -> dict[str, CheckResult]:
    component = Component("toy", NoOptions, build, "A toy.", "by hand")
    results = check_component(Registered(attrs.evolve(component, **about), "toy-package", "1"), kind)
    return {result.name: result for result in results}


def not_passed(results: dict[str, CheckResult]) -> set[str]:
    return {name for name, result in results.items() if result.outcome != "passed"}


def caught(results: dict[str, CheckResult]) -> str:
    return " | ".join(result.detail for result in results.values() if result.outcome != "passed")


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
) -> Callable[[NoOptions], ToyEncoder]:
    class Broken(ToyEncoder):
        def fit(self, graph: PreferenceGraph, *, seed: int, progress: Progress) -> NodeEmbeddings:
            return change(super().fit(graph, seed=seed, progress=progress), graph, seed)

    return lambda options: Broken()


def test_a_good_encoder_passes() -> None:
    results = check("encoder", lambda options: ToyEncoder())
    assert not_passed(results) == set()
    assert len(results) == 14


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
            lambda e, g, s: evolve(e, state={"prior": torch.tensor(float("nan"))}),
            "prior holds values that are not finite",
        ),
        (lambda e, g, s: (e.users, e.responses), "fit returned tuple"),
        (_global_noise, "the global random state of torch was changed"),
        (_global_noise, "two fits with the same seed differ"),
        (_reseeds, "the global random state of torch was changed"),
        (_weighs_in_place, "fit changed the arrays of the graph"),
        (_not_a_number_for_isolated, "users holds values that are not finite"),
        (lambda e, g, s: evolve(e, users=-e.users), "only 0% of held-out comparisons right"),
    ],
)
def test_a_broken_encoder_is_caught(
    change: Callable[[NodeEmbeddings, PreferenceGraph, int], Any], finding: str
) -> None:
    assert finding in caught(check("encoder", broken_encoder(change)))


def test_only_the_checks_of_what_is_wrong_fail() -> None:
    results = check("encoder", broken_encoder(_not_a_number_for_isolated))
    assert not_passed(results) == {
        "a user without comparisons and a response nobody saw are embedded too",
        "repeated and contradictory comparisons are no problem",  # they cancel out, so nothing is left to divide by
    }


def test_a_weak_encoder_is_a_warning_not_a_failure() -> None:
    results = check("encoder", broken_encoder(lambda e, g, s: evolve(e, users=-e.users)))
    assert results["finds two clearly planted groups"].outcome == "warning"
    assert all(result.passed for result in results.values())


def test_an_exception_is_a_finding_with_its_place() -> None:
    def fail(e: NodeEmbeddings, graph: PreferenceGraph, seed: int) -> NodeEmbeddings:
        if graph.num_users == 1:
            raise IndexError("no neighbours")
        return e

    results = check("encoder", broken_encoder(fail))
    (name,) = not_passed(results)
    assert name == "a graph of one user and two responses is no problem"
    assert results[name].detail.startswith("raised IndexError: no neighbours (")
    assert "test_conformance_kit.py:" in results[name].detail


def test_what_cannot_be_made_fails_once() -> None:
    def fail(options: NoOptions) -> Any:
        raise RuntimeError("no such file")

    results = check("source", fail)
    assert [result.outcome for result in results.values()].count("failed") == 1
    assert {r.detail for r in results.values() if r.outcome == "skipped"} == {"cannot be checked, see above"}


def test_an_encoder_of_another_family_is_caught() -> None:
    class Stranger:
        def fit(self, graph: PreferenceGraph, *, seed: int, progress: Progress) -> NodeEmbeddings:
            return ToyEncoder().fit(graph, seed=seed, progress=progress)

    assert not_passed(check("encoder", lambda options: Stranger())) == {"build gives a GraphEncoder"}


# ---------------------------------------------------------------- what every component has


def test_texts_about_the_component() -> None:
    def build(options: NoOptions) -> ToyEncoder:
        return ToyEncoder()

    assert "write it like 'two-hop'" in caught(check("encoder", build, name="My Encoder"))
    assert "the summary is empty" in caught(check("encoder", build, summary=" "))
    assert "several lines" in caught(check("encoder", build, summary="one\ntwo"))
    long = check("encoder", build, summary="x" * 121)
    assert {result.outcome for result in long.values()} == {"passed", "warning"}
    assert "121 characters" in caught(long)


class PlainOptions:
    pass


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
        (PlainOptions, "is no attrs class"),
        (MutableOptions, "can be changed after it was made"),
        (SilentOptions, "no help text: size"),
        (StrangeOptions, "type not understood: size: set[int]"),
        (FixedTuple, "type not understood: size: tuple[int, int]"),
        (ReservedOptions, "preset: taken by recipes"),
        (WrongDefault, "do the defaults have their declared types?"),
        (InvalidDefault, "must be >= 1"),
    ],
)
def test_broken_options_are_caught_and_nothing_is_built_with_them(options: type, finding: str) -> None:
    results = check("encoder", lambda options: ToyEncoder(), options=options)
    assert finding in caught(results)
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


def test_an_unknown_kind() -> None:
    with pytest.raises(OptionsError, match="did you mean 'encoder'"):
        check("encoders", lambda options: ToyEncoder())


# ---------------------------------------------------------------- gates


class ToyGate(ExpertGate):
    num_experts = 4
    top_k = 4

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(dim, 4)

    def forward(self, users: torch.Tensor) -> GateWeights:
        return GateWeights(self.linear(users).softmax(dim=1), users.new_zeros(()))


def gate_that(decide: Callable[[ToyGate, torch.Tensor], GateWeights], **attributes: Any) -> Callable[..., ToyGate]:
    kind = type("Broken", (ToyGate,), {"forward": decide, **attributes})
    return lambda options, *, embedding_dim: kind(embedding_dim)


def good(gate: ToyGate, users: torch.Tensor) -> torch.Tensor:
    return ToyGate.forward(gate, users).weights


NONE = torch.zeros(())


def _unsaved(options: NoOptions, *, embedding_dim: int) -> ToyGate:
    gate = ToyGate(embedding_dim)
    scale = torch.rand(4)
    gate.forward = lambda users: GateWeights(good(gate, users) * scale, NONE)  # type: ignore[method-assign]
    return gate


def _no_gate(options: NoOptions, *, embedding_dim: int) -> torch.nn.Module:
    module = torch.nn.Linear(embedding_dim, 4)
    module.num_experts = module.top_k = 4
    return module


def _root_of_zero(gate: ToyGate, users: torch.Tensor) -> GateWeights:
    return GateWeights(good(gate, users) + (0 * gate.linear(users)).sqrt(), NONE)


def _normalises_in_place(gate: ToyGate, users: torch.Tensor, groups: Any, *, seed: int) -> None:
    users.div_(users.norm(dim=1, keepdim=True))


def _binds_at_random(gate: ToyGate, users: torch.Tensor, groups: Any, *, seed: int) -> None:
    gate.linear.bias.data = torch.tensor([float(next(COUNTER)), 0.0, 0.0, 0.0])


def test_a_good_gate_passes() -> None:
    assert not_passed(check("gate", lambda options, *, embedding_dim: ToyGate(embedding_dim))) == set()


@pytest.mark.parametrize(
    ("build", "finding"),
    [
        (gate_that(lambda g, u: GateWeights(good(g, u)[:, :3], NONE)), "weights must be [16, 4], got [16, 3]"),
        (gate_that(lambda g, u: GateWeights(good(g, u) - 0.5, NONE)), "weights are negative"),
        (gate_that(lambda g, u: GateWeights(good(g, u) / u.norm(dim=1, keepdim=True), NONE)), "weights are not finite"),
        (gate_that(ToyGate.forward, top_k=1), "4 weights of one user are not zero but top_k is 1"),
        (gate_that(ToyGate.forward, top_k=5), "top_k is 5 of only 4 experts"),
        (gate_that(ToyGate.forward, top_k=None), "top_k must be a whole number"),
        (gate_that(lambda g, u: GateWeights(good(g, u), u.sum(dim=1))), "aux_loss must be a tensor without dimensions"),
        (gate_that(lambda g, u: GateWeights(good(g, u), NONE + float("inf"))), "aux_loss is inf"),
        (gate_that(lambda g, u: GateWeights(good(g, u).detach(), NONE)), "can never be trained"),
        (gate_that(lambda g, u: GateWeights((good(g, u) > 0.1).float() + 0 * good(g, u), NONE)), "gradients of all"),
        (
            gate_that(lambda g, u: GateWeights(good(g, u - u.mean(dim=0)), NONE)),
            "weights of a user change with the batch",
        ),
        (gate_that(lambda g, u: GateWeights(good(g, u) + torch.rand(4), NONE)), "weights vary from call to call"),
        (gate_that(lambda g, u: good(g, u)), "forward returned Tensor, not GateWeights"),
        (_unsaved, "keep weights as parameters or buffers"),
        (_no_gate, "build gave Linear, which does not derive from it"),
        (gate_that(_root_of_zero), "gradients that are not finite: linear.weight"),
        (gate_that(ToyGate.forward, bind=_normalises_in_place), "bind changed the embeddings it was given"),
        (gate_that(ToyGate.forward, bind=_binds_at_random), "with the same users and seed, the gate decides otherwise"),
        (lambda options, *, embedding_dim: ToyGate(6), "any embedding dimension"),
        (lambda options: ToyGate(6), "unexpected keyword argument 'embedding_dim'"),
    ],
)
def test_a_broken_gate_is_caught(build: Callable[..., Any], finding: str) -> None:
    results = check("gate", build)
    assert finding in caught(results) + " | ".join(name for name in not_passed(results))


# ---------------------------------------------------------------- adaptation strategies


class ToyAdapter:
    """Votes on the responses, weighed by nothing: the signed sum of what the newcomer chose."""

    def adapt(self, support: ComparisonSet, trained: NodeEmbeddings) -> AdaptedUsers:
        rows = [trained.response_rows.get(key, -1) for key in support.responses.keys]
        places = torch.zeros(len(support.users), trained.dim)
        known = np.zeros(len(support.users), dtype=np.int64)
        pairs = support.comparisons
        for u, c, r in zip(pairs.user, pairs.chosen, pairs.rejected, strict=True):
            if rows[c] >= 0 and rows[r] >= 0:
                places[u] += trained.responses[rows[c]] - trained.responses[rows[r]]
                known[u] += 1
        present = np.unique(pairs.user)
        ids = tuple(support.users.ids[row] for row in present)
        return AdaptedUsers(ids, places[present], ("votes",) * len(ids), known[present], known[present] / 100)


def broken_adapter(change: Callable[..., Any]) -> Callable[[NoOptions], ToyAdapter]:
    class Broken(ToyAdapter):
        def adapt(self, support: ComparisonSet, trained: NodeEmbeddings) -> AdaptedUsers:
            adapted: AdaptedUsers = change(super().adapt(support, trained), support, trained)
            return adapted

    return lambda options: Broken()


def test_a_good_adapter_passes() -> None:
    assert not_passed(check("adapter", lambda options: ToyAdapter())) == set()


def _normalise_trained(a: AdaptedUsers, s: ComparisonSet, t: NodeEmbeddings) -> AdaptedUsers:
    t.users.div_(t.users.norm(dim=1, keepdim=True))
    return a


def _first(a: AdaptedUsers) -> AdaptedUsers:
    return AdaptedUsers(a.user_ids[:1], a.embeddings[:1], a.how[:1], a.num_neighbours[:1], a.confidence[:1])


def _one_more(a: AdaptedUsers, user: str) -> AdaptedUsers:
    """Answer for `user`, too."""
    return AdaptedUsers(
        (*a.user_ids, user),
        torch.cat([a.embeddings, torch.zeros(1, a.embeddings.shape[1])]),
        (*a.how, "votes"),
        np.append(a.num_neighbours, 0),
        np.append(a.confidence, 0.0),
    )


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (lambda a, s, t: a.embeddings, "adapt returned Tensor, not AdaptedUsers"),
        (lambda a, s, t: _first(a), "no embedding for newcomer-1, newcomer-2"),
        (lambda a, s, t: _one_more(a, a.user_ids[0]) if len(a.user_ids) else a, "a newcomer is answered twice"),
        (lambda a, s, t: _one_more(a, "stranger"), "embeddings for stranger, who were not asked for"),
        (
            lambda a, s, t: evolve(a, embeddings=a.embeddings + next(COUNTER)),
            "two calls with the same support set differ",
        ),
        (lambda a, s, t: evolve(a, user_ids=tuple(f"{i}x" for i in a.user_ids)), "no embedding for newcomer-0"),
        (lambda a, s, t: evolve(a, embeddings=a.embeddings[:, :3]), "embeddings must be [6, 8], got [6, 3]"),
        (lambda a, s, t: evolve(a, embeddings=a.embeddings / 0), "embeddings are not finite"),
        (lambda a, s, t: evolve(a, confidence=a.confidence + 2), "confidence must lie in 0 ... 1"),
        (lambda a, s, t: evolve(a, how=("",) * len(a.how)), "how must say"),
        (lambda a, s, t: evolve(a, how=()), "how has 0 values for 6 newcomers"),
        (lambda a, s, t: evolve(a, num_neighbours=a.num_neighbours - 9), "num_neighbours is negative"),
        (lambda a, s, t: evolve(a, embeddings=a.embeddings - a.embeddings.mean(dim=0)), "other newcomers in the batch"),
        (
            lambda a, s, t: evolve(a, embeddings=a.embeddings + s.comparisons.chosen @ np.arange(len(s))),
            "embeddings change with the order of the rows",
        ),
        (_normalise_trained, "adapt changed its arguments"),
        (lambda a, s, t: evolve(a, embeddings=a.embeddings + torch.rand(1)), "random state of torch was changed"),
        (lambda a, s, t: evolve(a, embeddings=-a.embeddings), "only 0% of held-out comparisons right"),
    ],
)
def test_a_broken_adapter_is_caught(change: Callable[..., Any], finding: str) -> None:
    assert finding in caught(check("adapter", broken_adapter(change)))


def test_an_adapter_that_fails_on_unknown_responses_is_caught() -> None:
    class Fragile(ToyAdapter):
        def adapt(self, support: ComparisonSet, trained: NodeEmbeddings) -> AdaptedUsers:
            assert all(trained.response_rows[key] >= 0 for key in support.responses.keys)
            return super().adapt(support, trained)

    results = check("adapter", lambda options: Fragile())
    assert not_passed(results) == {"a newcomer whose responses were never trained on gets an embedding too"}


# ---------------------------------------------------------------- sources


class ToySource:
    def load(self, *, seed: int) -> PreferenceData:
        return planted_data(seed)


def broken_source(change: Callable[[PreferenceData], Any]) -> Callable[[NoOptions], ToySource]:
    class Broken(ToySource):
        def load(self, *, seed: int) -> PreferenceData:
            data: PreferenceData = change(super().load(seed=seed))
            return data

    return lambda options: Broken()


def with_split(data: PreferenceData, **splits: Comparisons) -> PreferenceData:
    return evolve(data, splits={**data.splits, **splits})


def test_a_good_source_passes() -> None:
    assert not_passed(check("source", lambda options: ToySource())) == set()


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (lambda d: d.splits, "load returned dict"),
        (lambda d: evolve(d, name=" "), "the data set has no name"),
        (
            lambda d: with_split(d, test=Comparisons([0], [0], [1], controversial=[2])),
            "test: controversial must be 1, 0 or -1",
        ),
        (lambda d: with_split(d, train=Comparisons.empty()), "no comparisons in the split 'train'"),
        (lambda d: with_split(d, dev=Comparisons.empty()), "unknown splits: dev"),
        (lambda d: with_split(d, test=Comparisons([99], [0], [1])), "test: 1 values of user lie outside 0 ... 17"),
        (lambda d: with_split(d, test=Comparisons([0], [-1], [1])), "test: 1 values of chosen lie outside"),
        (lambda d: with_split(d, test=Comparisons([0], [1], [1])), "1 comparisons of a response with itself"),
        (lambda d: with_split(d, test=Comparisons([0], [0], [1], weight=[-1])), "weights that are negative"),
        (lambda d: evolve(d, responses=evolve(d.responses, texts=[" "] * 16)), "16 responses without text"),
        (
            lambda d: evolve(d, responses=evolve(d.responses, texts=["x"] * 16)),
            "same prompt and text stand in two rows",
        ),
        (lambda d: with_split(d, test=d.splits["train"]), "stand in 'test' and in what is learnt from"),
        (
            lambda d: with_split(
                d, cold=evolve(d.splits["train"], chosen=d.splits["train"].rejected, rejected=d.splits["train"].chosen)
            ),
            "stand in 'cold' and in what is learnt from",
        ),
        (lambda d: with_split(d, heldout=d.splits["support"]), "stand in both 'support' and 'heldout'"),
        (lambda d: with_split(d, support=Comparisons([0], [0], [1])), "are in 'train' too"),
        (lambda d: with_split(d, support=Comparisons.empty()), "held-out comparisons but no support set"),
        (lambda d: evolve(d, provenance={"when": {1, 2}}), "not JSON serializable"),
        (lambda d: evolve(d, name=f"{np.random.rand()}"), "the global random state of numpy was changed"),  # noqa: NPY002
        (lambda d: evolve(d, name=f"{next(COUNTER)}"), "two loads with the same seed differ"),
    ],
)
def test_a_broken_source_is_caught(change: Callable[[PreferenceData], Any], finding: str) -> None:
    assert finding in caught(check("source", broken_source(change)))


# ---------------------------------------------------------------- backbones


class ToyBackbone:
    def fingerprint(self) -> str:
        return "abc"

    def load(self) -> object:
        return object()


class AbsentBackbone(ToyBackbone):
    def load(self) -> object:
        raise BackboneError("weights are missing; run make weights")


class RestlessBackbone(ToyBackbone):
    def fingerprint(self) -> str:
        return str(id(self))


class NamelessBackbone(ToyBackbone):
    def fingerprint(self) -> str:
        return ""


class EmptyBackbone(ToyBackbone):
    def load(self) -> object:
        return torch.rand(1) if False else None


def test_backbones() -> None:
    assert not_passed(check("backbone", lambda options: ToyBackbone())) == set()
    absent = check("backbone", lambda options: AbsentBackbone())
    assert {result.outcome for result in absent.values()} == {"passed", "skipped"}
    assert "run make weights" in caught(absent)
    keep: list[RestlessBackbone] = []

    def restless(options: NoOptions) -> RestlessBackbone:
        keep.append(RestlessBackbone())
        return keep[-1]

    assert "the fingerprint changes from" in caught(check("backbone", restless))
    assert "the fingerprint is ''; it must be a text" in caught(check("backbone", lambda options: NamelessBackbone()))
    assert "load gave nothing" in caught(check("backbone", lambda options: EmptyBackbone()))


# ---------------------------------------------------------------- metrics


def toy_metric(margins: np.ndarray, pairs: ComparisonSet, context: Any) -> list[Measurement]:
    if not len(margins):
        return []
    value = float((margins > 0).mean())
    return [Measurement(context.split, "all", "accuracy", value, value, value, len(margins))]


def broken_metric(change: Callable[[Measurement], Any]) -> Callable[[NoOptions], Any]:
    return lambda options: lambda m, p, c: [change(one) for one in toy_metric(m, p, c)]


def _no_empty_check(options: NoOptions) -> Any:
    def metric(margins: np.ndarray, pairs: ComparisonSet, context: Any) -> list[Measurement]:
        value = float(margins.sum()) / len(margins)
        return [Measurement(context.split, "all", "mean", value, value, value, len(margins))]

    return metric


def _sorts_in_place(options: NoOptions) -> Any:
    def metric(margins: np.ndarray, pairs: ComparisonSet, context: Any) -> list[Measurement]:
        margins.sort()
        return toy_metric(margins, pairs, context)

    return metric


def test_a_good_metric_passes() -> None:
    assert not_passed(check("metric", lambda options: toy_metric)) == set()


@pytest.mark.parametrize(
    ("build", "finding"),
    [
        (broken_metric(lambda m: m.value), "returned float, not Measurement"),
        (broken_metric(lambda m: evolve(m, split="train")), "split must be that of the context, got 'train'"),
        (broken_metric(lambda m: evolve(m, low=m.value + 0.1)), "lies outside its interval"),
        (broken_metric(lambda m: evolve(m, high=float("nan"))), "not finite"),
        (broken_metric(lambda m: evolve(m, count=0)), "a measurement over 0 comparisons"),
        (broken_metric(lambda m: evolve(m, subset="")), "must be named"),
        (lambda options: lambda m, p, c: toy_metric(m, p, c) * 2, "measured twice"),
        (lambda options: lambda m, p, c: [], "nothing was measured"),
        (_no_empty_check, "raised ZeroDivisionError"),
        (_sorts_in_place, "the metric changed its arguments"),
        (
            broken_metric(lambda m: evolve(m, value=0.0, low=0.0, high=float(next(COUNTER)))),
            "two calls with the same seed differ",
        ),
    ],
)
def test_a_broken_metric_is_caught(build: Callable[..., Any], finding: str) -> None:
    assert finding in caught(check("metric", build))
