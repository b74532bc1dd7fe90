from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from copl.data.sources.facets import FacetsOptions, FacetsTruth, generate
from copl.data.sources.facets.corpus import topics
from copl.data.sources.facets.wording import NUM_WORDINGS, reword
from copl.records import SPLITS, Comparisons, PreferenceData

SEED = 3
SHARES = (0.0, 0.5, 1.0)
ASKS = {subject.ask for topic in topics() for subject in topic.subjects}


def corpus_with(share: float) -> tuple[PreferenceData, FacetsTruth]:
    options = FacetsOptions(num_prompts=60, num_seen_users=40, num_unseen_users=15, num_test=3, own_wording=share)
    return generate(options, SEED)


@pytest.fixture(scope="module")
def dial() -> dict[float, tuple[PreferenceData, FacetsTruth]]:
    return {share: corpus_with(share) for share in SHARES}


def times_met(data: PreferenceData) -> Counter[str]:
    """In how many comparisons, of all users and splits, each response occurs."""
    sides = (side for rows in data.splits.values() for side in (rows.chosen, rows.rejected))
    return Counter(data.responses.keys[row] for side in sides for row in side)


def own_share(data: PreferenceData) -> float:
    reworded = [data.responses.prompts[row] not in ASKS for rows in data.splits.values() for row in rows.chosen]
    return float(np.mean(reworded))


def test_at_0_the_corpus_is_what_it_was_before_there_was_a_dial(
    dial: dict[float, tuple[PreferenceData, FacetsTruth]],
) -> None:
    assert dial[0.0][0].digest(*SPLITS) == "9542f6bf532ed6dca85749fb1afba0c5dd4c3a8aceeef9238fed34260905bbf9"
    default = generate(FacetsOptions(), 0)[0]
    assert default.digest(*SPLITS) == "5dab4b8b0abccb12b18ea7a3b06a83dba6ad81d8c4770c288bc15994c0bb84f8"


def test_at_1_no_response_occurs_in_two_comparisons(dial: dict[float, tuple[PreferenceData, FacetsTruth]]) -> None:
    data, _ = dial[1.0]
    met = times_met(data)
    assert set(met.values()) == {1}
    assert len(met) == len(data.responses) == 2 * sum(len(rows) for rows in data.splits.values())
    prompts = [data.responses.prompts[row] for rows in data.splits.values() for row in rows.chosen]
    assert len(set(prompts)) == len(prompts)
    assert own_share(data) == 1.0


def test_at_1_no_response_of_the_whole_corpus_occurs_twice() -> None:
    data, _ = generate(FacetsOptions(own_wording=1.0), 0)
    assert set(times_met(data).values()) == {1}


def test_halfway_half_of_the_comparisons_share_and_half_do_not(
    dial: dict[float, tuple[PreferenceData, FacetsTruth]],
) -> None:
    data, _ = dial[0.5]
    total = sum(len(rows) for rows in data.splits.values())
    assert own_share(data) == round(0.5 * total) / total
    once = {key for key, count in times_met(data).items() if count == 1}
    own = [r for r, prompt in enumerate(data.responses.prompts) if prompt not in ASKS]
    assert {data.responses.keys[row] for row in own} <= once
    assert max(times_met(data).values()) > 5  # the others are as shared as ever


def test_where_a_response_stands_says_nothing_of_it(dial: dict[float, tuple[PreferenceData, FacetsTruth]]) -> None:
    for data, _ in dial.values():
        rows = Comparisons.concat([part.comparisons for part in map(data.split, SPLITS)])
        first = int((rows.chosen < rows.rejected).sum())
        assert abs(first - len(rows) / 2) < 4 * np.sqrt(len(rows)) / 2  # four standard deviations of a coin


@pytest.mark.parametrize("share", SHARES[1:])
def test_nothing_but_the_words_of_prompts_differs(
    share: float, dial: dict[float, tuple[PreferenceData, FacetsTruth]]
) -> None:
    plain, truth = dial[0.0]
    data, own_truth = dial[share]
    assert data.users.ids == plain.users.ids
    assert data.users.groups == plain.users.groups
    assert data.provenance["ceilings"] == plain.provenance["ceilings"]
    assert len(own_truth.facets) == len(data.responses)
    np.testing.assert_array_equal(own_truth.user_weights, truth.user_weights)
    assert list(data.splits) == list(plain.splits)
    for name, rows in data.splits.items():
        before = plain.splits[name]
        np.testing.assert_array_equal(rows.user, before.user)
        np.testing.assert_array_equal(rows.controversial, before.controversial)
        for side, side_before in ((rows.chosen, before.chosen), (rows.rejected, before.rejected)):
            assert [data.responses.texts[r] for r in side] == [plain.responses.texts[r] for r in side_before]
            np.testing.assert_array_equal(own_truth.facets[side], truth.facets[side_before])
            for row, row_before in zip(side, side_before, strict=True):
                ask = plain.responses.prompts[row_before]
                assert ask.lower().rstrip("?") in data.responses.prompts[row].lower()
        assert [data.responses.prompts[r] for r in rows.chosen] == [data.responses.prompts[r] for r in rows.rejected]


def test_prompts_never_trained_on_stay_so(dial: dict[float, tuple[PreferenceData, FacetsTruth]]) -> None:
    data, _ = dial[0.5]
    prompts = {name: {data.responses.prompts[row] for row in rows.chosen} for name, rows in data.splits.items()}
    assert not prompts["cold"] & set().union(*(prompts[name] for name in SPLITS if name != "cold"))


def test_a_larger_share_keeps_the_words_of_a_smaller_one(
    dial: dict[float, tuple[PreferenceData, FacetsTruth]],
) -> None:
    half, whole = dial[0.5][0], dial[1.0][0]
    for name, rows in half.splits.items():
        for row, row_of_whole in zip(rows.chosen, whole.splits[name].chosen, strict=True):
            prompt = half.responses.prompts[row]
            assert prompt in ASKS or prompt == whole.responses.prompts[row_of_whole]


def test_the_same_seed_gives_the_same_words(dial: dict[float, tuple[PreferenceData, FacetsTruth]]) -> None:
    assert corpus_with(1.0)[0].digest(*SPLITS) == dial[1.0][0].digest(*SPLITS)


def test_wording_0_is_the_question_as_it_is() -> None:
    assert reword("How do I fry an egg?", 0) == "How do I fry an egg?"
    assert reword("How do I fry an egg?", NUM_WORDINGS - 1) == (
        "Hello from the north. I am having another go. How do I fry an egg, in your view? The cat says hello."
    )


@given(ask=st.sampled_from(sorted(ASKS)), wordings=st.lists(st.integers(0, NUM_WORDINGS - 1), min_size=2, unique=True))
def test_other_wordings_are_other_prompts(ask: str, wordings: list[int]) -> None:
    prompts = [reword(ask, wording) for wording in wordings]
    assert len(set(prompts)) == len(prompts)
    assert all(ask.lower().rstrip("?") in prompt.lower() for prompt in prompts)
