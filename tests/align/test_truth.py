"""What answers are truly worth is what the corpus was made from; where that is not known, it is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from attrs import evolve

from copl.align.truth import KnownTruth
from copl.data.dataset import load_dataset
from copl.data.sources.facets import FacetsOptions, generate
from copl.errors import DataError
from copl.records import PreferenceData
from copl.records.answers import AnswerRequests
from copl.testing.planted import planted_data


@pytest.fixture(scope="module")
def data(small_data: Path) -> PreferenceData:
    return load_dataset(small_data)


def test_utilities_are_weights_times_facets(data: PreferenceData) -> None:
    options = FacetsOptions(num_seen_users=40, num_unseen_users=10, num_prompts=30)
    _, truth = generate(options, 0)
    prompt = data.responses.prompts[0]
    rows = [row for row, asked in enumerate(data.responses.prompts) if asked == prompt]
    users = [data.users.ids[3], data.users.ids[45], data.users.ids[0]]
    requests = AnswerRequests(users, [prompt], [[data.responses.texts[row] for row in rows]])
    (found,) = KnownTruth.of(data).utilities(requests)
    again, _ = generate(options, 0)
    places = [again.responses.rows[data.responses.keys[row]] for row in rows]
    np.testing.assert_allclose(found, truth.user_weights[[3, 45, 0]] @ truth.facets[places].T)


def test_nobody_asks_and_nothing_is_asked(data: PreferenceData) -> None:
    truth = KnownTruth.of(data)
    prompt, text = data.responses.prompts[0], data.responses.texts[0]
    assert truth.utilities(AnswerRequests([], [prompt], [[text]]))[0].shape == (0, 1)
    assert truth.utilities(AnswerRequests(["seen-0000"], [], [])) == ()


def test_users_and_texts_of_elsewhere_are_named(data: PreferenceData) -> None:
    requests = AnswerRequests(["ann"], [data.responses.prompts[0]], [["It depends."]])
    with pytest.raises(DataError) as caught:
        KnownTruth.of(data).utilities(requests)
    assert caught.value.faults == (
        "truth: user 'ann' is none of the simulated users",
        "truth: the style of 'It depends.' cannot be read; the grammar did not write it",
    )


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"source": "jsonl"}, "what answers are truly worth to its users is not known"),
        (
            {"options": {"num_seen_users": 9, "num_unseen_users": 1, "num_prompts": 40}},
            "of another version of the embedded corpus",
        ),
        ({"options": {"num_prompt": 20}}, "its provenance is damaged"),
        ({"seed": "x"}, "its provenance is damaged"),
        ({"seed": 1}, "of another version of the embedded corpus"),
    ],
)
def test_data_that_are_not_of_the_corpus_are_refused(
    change: dict[str, object], fault: str, data: PreferenceData
) -> None:
    with pytest.raises(DataError, match=fault):
        KnownTruth.of(evolve(data, provenance={**data.provenance, **change}))
    with pytest.raises(DataError, match="not known"):
        KnownTruth.of(planted_data())
