"""What a run tells an aligner of users: what is known of them, and what they have said before and since training."""

from __future__ import annotations

from pathlib import Path

import pytest

from copl import Model
from copl.align.aligners.mixture_dpo import MixtureDpoAligner
from copl.align.context import RunContext
from copl.align.generators.facets import FacetsGenerator
from copl.align.policies.material import said_rows
from copl.align.policies.options import MixtureDpoOptions
from copl.commands.align import fitted_run
from copl.data.reading.rows import read_comparison_rows
from copl.options import NoOptions
from copl.records import ComparisonSet
from copl.system.progress import SilentProgress


@pytest.fixture(scope="module")
def model(trained_run: Path) -> Model:
    return Model.open(trained_run)


def context(model: Model, support: ComparisonSet | None = None) -> RunContext:
    adapted = None if support is None else model.adapt(support)
    writer = FacetsGenerator(NoOptions())
    return RunContext(fitted_run(model), writer, Path(), SilentProgress(), adapted=adapted, support=support)


def since(user: str) -> ComparisonSet:
    said = {"prompt": "Why does my bread not rise?", "chosen": "The yeast is old.", "rejected": "Bake it for longer."}
    return read_comparison_rows([{"user_id": user, **said}])


def test_what_a_seen_user_says_since_is_added_to_what_was_learnt(model: Model) -> None:
    user, other = sorted(model.method.seen_users())[:2]
    before = said_rows(user, context(model).comparisons(user))
    after = context(model, since(user))
    added = said_rows(user, since(user))
    assert before
    assert added
    assert said_rows(user, after.comparisons(user)) == [*before, *added]
    assert said_rows(other, after.comparisons(other)) == said_rows(other, context(model).comparisons(other))
    assert said_rows("new", context(model, since("new")).comparisons("new")) == said_rows("new", since("new"))


def test_the_policy_for_everybody_is_trained_on_the_same_whatever_is_said_now(model: Model) -> None:
    user = min(model.method.seen_users())
    aligner = MixtureDpoAligner(MixtureDpoOptions(num_prompts=1, num_users=2, num_candidates=4))
    rows = aligner.rows(context(model))
    assert {row.provenance["kind"] for row in rows} == {"said", "ranked"}
    assert aligner.rows(context(model, since(user))) == rows
