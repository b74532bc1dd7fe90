from __future__ import annotations

import json

import numpy as np
import pytest

from copl.data.sources.facets import COMPONENTS, FacetsOptions, FacetsTruth, generate
from copl.errors import OptionsError
from copl.options import describe_options, parse_options
from copl.records import SPLITS, PreferenceData

SMALL = FacetsOptions(num_prompts=60, num_seen_users=40, num_unseen_users=15, num_test=3)


@pytest.fixture(scope="module")
def generated() -> tuple[PreferenceData, FacetsTruth]:
    return generate(SMALL, seed=3)


@pytest.mark.parametrize("seed", range(3))
def test_there_is_something_to_learn_about_users(seed: int) -> None:
    data, truth = generate(FacetsOptions(), seed)
    assert len(data.responses) == 1200
    ceilings = data.provenance["ceilings"]
    assert 0.57 < ceilings["all"]["unpersonalised"] < 0.63
    assert ceilings["all"]["group_oracle"] > 0.87
    assert ceilings["all"]["individual_oracle"] > ceilings["all"]["group_oracle"] + 0.01
    # 1,200 comparisons of one split alone have a standard error of 1.4 points
    for name in ("test", "cold", "heldout"):
        assert 0.55 < ceilings[name]["unpersonalised"] < 0.66
        assert ceilings[name]["group_oracle"] > 0.85
        assert _consensus(data, truth, name) == pytest.approx(ceilings[name]["unpersonalised"], abs=0.03)


def _consensus(data: PreferenceData, truth: FacetsTruth, split: str) -> float:
    """Accuracy of the majority of all users on each pair."""
    rows = data.splits[split]
    margins = (truth.facets[rows.chosen] - truth.facets[rows.rejected]) @ truth.user_weights.T / truth.temperature
    return float(((1 / (1 + np.exp(-margins))).mean(axis=1) > 0.5).mean())


def test_tables_and_counts(generated: tuple[PreferenceData, FacetsTruth]) -> None:
    data, truth = generated
    assert len(data.users) == 55
    assert len(data.responses) == len(truth.facets) == 240
    assert len(set(data.users.groups)) == 4
    assert list(data.present()) == list(SPLITS)
    for name, per_user in (("validation", 2), ("test", 3), ("cold", 2), ("heldout", 8)):
        assert set(np.bincount(data.splits[name].user)[np.unique(data.splits[name].user)]) == {per_user}
    for name, lowest, highest in (("train", 6, 18), ("support", 4, 12)):
        given = np.bincount(data.splits[name].user)[np.unique(data.splits[name].user)]
        assert given.min() >= lowest
        assert given.max() <= highest
        assert len(set(given)) > 3


def test_seen_and_unseen_users_are_apart(generated: tuple[PreferenceData, FacetsTruth]) -> None:
    data, _ = generated
    for name in SPLITS:
        ids = {data.users.ids[row] for row in data.splits[name].user}
        prefix = "unseen-" if name in ("support", "heldout") else "seen-"
        assert all(user.startswith(prefix) for user in ids)
        assert len(ids) == (15 if prefix == "unseen-" else 40)


def test_cold_prompts_are_in_no_other_split(generated: tuple[PreferenceData, FacetsTruth]) -> None:
    data, _ = generated
    prompts = {name: {row // 4 for row in data.splits[name].chosen} for name in SPLITS}
    warm = set().union(*(prompts[name] for name in SPLITS if name != "cold"))
    assert not prompts["cold"] & warm
    assert data.provenance["counts"]["cold_prompts"] == 11  # 0.18 of 60
    # six prompts of each of ten topics: ten topics give one each, one gives another
    topics_of_cold = [prompt % 10 for prompt in prompts["cold"]]
    assert max(np.bincount(topics_of_cold)) <= 2


def test_a_user_never_meets_a_prompt_twice(generated: tuple[PreferenceData, FacetsTruth]) -> None:
    data, _ = generated
    met = [
        (user, response // 4)
        for name in SPLITS
        for user, response in zip(data.splits[name].user, data.splits[name].chosen, strict=True)
    ]
    assert len(set(met)) == len(met)


def test_the_same_seed_gives_the_same_data(generated: tuple[PreferenceData, FacetsTruth]) -> None:
    data, _ = generated
    assert generate(SMALL, seed=3)[0].digest(*SPLITS) == data.digest(*SPLITS)
    assert generate(SMALL, seed=4)[0].digest(*SPLITS) != data.digest(*SPLITS)


def test_texts_do_not_depend_on_the_users(generated: tuple[PreferenceData, FacetsTruth]) -> None:
    other, _ = generate(FacetsOptions(num_prompts=60, num_seen_users=7, num_unseen_users=0, num_groups=3), seed=3)
    assert other.responses.keys == generated[0].responses.keys


def test_splits_without_comparisons_are_left_out() -> None:
    options = FacetsOptions(
        num_prompts=30, num_seen_users=5, num_unseen_users=0, cold_share=0.0, num_cold=0, num_test=0
    )
    data, _ = generate(options, seed=0)
    assert set(data.splits) == {"train", "validation"}
    assert json.dumps(data.provenance, allow_nan=False)


def test_provenance_is_plain_json_with_options_and_ceilings(generated: tuple[PreferenceData, FacetsTruth]) -> None:
    data, truth = generated
    provenance = json.loads(json.dumps(data.provenance, allow_nan=False))
    assert provenance["seed"] == 3
    assert parse_options(FacetsOptions, provenance["options"], where="facets") == SMALL
    assert provenance["counts"]["train"] == len(data.splits["train"])
    rows = data.splits["heldout"]
    assert provenance["ceilings"]["heldout"]["individual_oracle"] == pytest.approx(
        (truth.individual_margins(rows) > 0).mean(), abs=1e-4
    )
    assert set(provenance["group_weights"]) == set(data.users.groups)


def test_the_component_builds_a_source_and_documents_its_options() -> None:
    (component,) = COMPONENTS
    assert component.name == "facets"
    assert all(info.help and not info.required for info in describe_options(component.options))
    data = component.build(SMALL).load(seed=3)
    assert data.name == "facets"


def test_more_comparisons_than_prompts_is_one_fault_with_both_rules() -> None:
    with pytest.raises(OptionsError) as caught:
        parse_options(FacetsOptions, {"num_prompts": 20, "num_train": 12, "num_cold": 9}, where="source.facets")
    # 18 + 2 + 2 prompts for 20 - 4; 12 + 8 for the unseen; 9 on 4 cold prompts
    assert str(caught.value).count(";") == 2
    assert "seen users need up to 22 trained prompts each, there are 16" in str(caught.value)
    assert "num_cold is 9, there are 4 prompts" in str(caught.value)


def test_limits_of_options_are_reported_together() -> None:
    with pytest.raises(OptionsError) as caught:
        parse_options(
            FacetsOptions, {"num_groups": 9, "temperature": 0, "cold_share": 1, "num_promts": 3}, where="source.facets"
        )
    assert len(caught.value.faults) == 4
    assert "did you mean 'num_prompts'?" in str(caught.value)
