"""The methods by name; free of torch, so that the command line can show them at once."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import final

from attrs import frozen

from copl.interfaces import PreferenceModel
from copl.plugins import Component, Range
from copl.runs.recipe import Stages
from copl_baselines.options import (
    DplOptions,
    GpoOptions,
    GroupOracleOptions,
    I2eOptions,
    I2eProxyOptions,
    LoreOptions,
    MrmOptions,
    PalAOptions,
    PalBOptions,
    PrefOptions,
    PrlhfOptions,
    PtttOptions,
    TrainingOptions,
    VplOptions,
)

_PAPER = {"num_prototypes": 2, "adapt_steps": 20, "adapt_learning_rate": 5e-3}

_TUNED = {
    "learning_rate": 5.0,
    "weight_decay": 10.0,
    "embedding_decay": 10.0,
    "group_decay": 10.0,
    "user_decay": 10.0,
    "kl_weight": 10.0,
    "seen_ridge": 10.0,
    "ridge": 5.0,
    "inner_rate": 3.0,
    "fast_rate": 5.0,
}
"""Options that a search draws, and how many times below and above their defaults it goes."""
_TRIED = {"dropout": (0.0, 0.1, 0.3), "least_context": (0.25, 0.5, 0.75)}
"""Options that a search draws from some values."""

_REFERENCE = "Chen et al. 2024, arXiv 2406.08469"


@final
@frozen
class _Build:
    """Builds a method that is nothing but a model on frozen features; the model's module is imported then."""

    name: str
    model: str

    def __call__(self, options: TrainingOptions, *, stages: Stages) -> PreferenceModel:
        from copl_baselines.method import FeatureMethod

        module, _, model = self.model.partition(":")
        return FeatureMethod(self.name, options, getattr(import_module(module), model), stages)


def _component(
    name: str,
    options: type,
    model: str,
    *,
    summary: str,
    reference: str,
    presets: Mapping[str, Mapping[str, object]] | None = None,
    personal: bool = True,
) -> Component:
    """Return the component of a method that is a model on frozen features: a name after the colon of its module.

    A search goes through the same kinds of options in every method, around its own defaults.
    """
    usual = options()
    search: dict[str, Range | tuple[object, ...]] = {
        name: Range.around(getattr(usual, name), factor) for name, factor in _TUNED.items() if getattr(usual, name, 0)
    }
    search |= {name: values for name, values in _TRIED.items() if hasattr(usual, name)}
    return Component(
        name=name,
        options=options,
        build=_Build(name, model),
        summary=summary,
        reference=reference,
        uses=("backbone",),
        presets=presets or {},
        personal=personal,
        search=search,
    )


COMPONENTS: list[Component] = [
    _component(
        "dpl",
        DplOptions,
        "copl_baselines.dpl:DplReward",
        summary="distributional preference learning: each reward is a distribution over all annotators",
        reference="Siththaranjan et al. 2024, arXiv 2312.08358",
        personal=False,
    ),
    _component(
        "i2e",
        I2eOptions,
        "copl_baselines.i2e:I2eReward",
        summary="a trained embedding for each user id; one is trained for every unseen user",
        reference="baseline of arXiv 2503.01658",
    ),
    _component(
        "i2e-proxy",
        I2eProxyOptions,
        "copl_baselines.i2e:I2eProxyReward",
        summary="a trained embedding for each user id; unseen users borrow that of the most similar seen user",
        reference="baseline of arXiv 2503.01658",
    ),
    _component(
        "group-oracle",
        GroupOracleOptions,
        "copl_baselines.groups:GroupReward",
        summary="one Bradley-Terry model for each true group: an upper reference, not a method",
        reference="baseline of arXiv 2503.01658",
    ),
    _component(
        "vpl",
        VplOptions,
        "copl_baselines.vpl:VplReward",
        summary="variational preference learning: an encoder of a user's comparisons conditions the reward",
        reference="Poddar et al. 2024, arXiv 2408.10075",
    ),
    _component(
        "pal-a",
        PalAOptions,
        "copl_baselines.pal:PalAReward",
        summary="pluralistic alignment, ideal points: users are mixtures of prototype points they like texts near to",
        reference=_REFERENCE,
        presets={"paper": _PAPER},
    ),
    _component(
        "pal-b",
        PalBOptions,
        "copl_baselines.pal:PalBReward",
        summary="pluralistic alignment, directions: users are mixtures of prototype functions of the prompt",
        reference=_REFERENCE,
        presets={"paper": _PAPER},
    ),
    _component(
        "lore",
        LoreOptions,
        "copl_baselines.lore:LoreReward",
        summary="low-rank reward modelling: users mix a few rewards that are linear in the features",
        reference="Bose et al. 2025, arXiv 2504.14439",
    ),
    _component(
        "p-rlhf",
        PrlhfOptions,
        "copl_baselines.prlhf:PrlhfReward",
        summary="personalised human feedback: soft tokens of the user stand before the response",
        reference="Li et al. 2024, arXiv 2402.05133",
        presets={"cluster": {"user_model": "cluster"}},
    ),
    _component(
        "pref",
        PrefOptions,
        "copl_baselines.pref:PrefReward",
        summary="reward factorisation: users combine a few base rewards, an unseen one by logistic regression",
        reference="Shenfeld et al. 2025, arXiv 2503.06358",
    ),
    _component(
        "mrm",
        MrmOptions,
        "copl_baselines.mrm:MrmReward",
        summary="meta reward modelling: one inner step on a meta-learned mixture of base rewards makes it a user's own",
        reference="Cai et al. 2026, arXiv 2601.18731",
        presets={"paper": {"num_bases": 2}},
    ),
    _component(
        "gpo",
        GpoOptions,
        "copl_baselines.gpo:GpoReward",
        summary="group preference optimisation: a transformer reads the user's comparisons in context",
        reference="Zhao et al. 2024, arXiv 2310.11523",
    ),
    _component(
        "p-ttt",
        PtttOptions,
        "copl_baselines.pttt:PtttReward",
        summary="fast weights: each comparison of a user is written into a layer of the reward model",
        reference="personal test-time training, 2026",
    ),
]
