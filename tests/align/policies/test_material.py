"""What policies are trained on: the training prompts that a generator can answer, and faults of one that fails."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from copl import Model
from copl.align.context import RunContext
from copl.align.generators.facets import FacetsGenerator
from copl.align.generators.table import TableGenerator, TableOptions
from copl.align.policies.material import ranked_rows, said_rows, training_prompts
from copl.align.policies.rows import RowOptions
from copl.commands.align import fitted_run
from copl.errors import BackboneError
from copl.interfaces import Generator, Progress
from copl.options import NoOptions
from copl.records import Comparisons, ResponseTable, UserTable
from copl.records.dataset import with_implied
from copl.records.judgements import THUMB, TIE, Judgements
from copl.system.progress import SilentProgress


class FailingGenerator:
    """A writer that is away."""

    follows_prompts = True

    def fingerprint(self) -> str:
        return "away"

    def candidates(self, prompts: Sequence[str], *, num: int, seed: int, progress: Progress) -> list[tuple[str, ...]]:
        raise BackboneError("the service cannot be reached")


@pytest.fixture(scope="module")
def model(trained_run: Path) -> Model:
    return Model.open(trained_run)


def context(model: Model, generator: Generator) -> RunContext:
    return RunContext(fitted_run(model), generator, Path(), SilentProgress())


def test_prompts_that_the_generator_cannot_answer_are_left_out(model: Model, tmp_path: Path) -> None:
    users = sorted(model.method.seen_users())[:2]
    grammar = FacetsGenerator(NoOptions())
    prompts = training_prompts(users, 3, context(model, grammar))
    assert len(prompts) == 3
    candidates = grammar.candidates(prompts[:1], num=8, seed=0, progress=SilentProgress())[0]
    table = tmp_path / "candidates.jsonl"
    table.write_text(json.dumps({"prompt": prompts[0], "candidates": candidates}) + "\n")
    options = RowOptions(near=0.0)
    some = ranked_rows(users, prompts, context(model, TableGenerator(TableOptions(table))), options)
    assert {row.prompt for row in some} == {prompts[0]}
    assert {row.user_id for row in some} == {*users}
    whole = ranked_rows(users, prompts, context(model, grammar), options)
    assert some == [row for row in whole if row.prompt == prompts[0]]
    assert ranked_rows(users, ["Tea?"], context(model, grammar), options) == []


def test_rows_that_a_user_has_said_are_of_one_prompt_and_no_ties() -> None:
    users, table = UserTable.ungrouped(["ann"]), ResponseTable(["p", "p", "q", "q"], ["0", "1", "2", "3"])
    judged = Judgements([THUMB] * 3 + [TIE], [0] * 4, [0, 1, 2, 2], [-1, -1, -1, 3], [1.0, -1.0, -1.0, 0.0])
    said = with_implied(users, table, Comparisons.empty(), judged)
    assert len(said) == 4
    assert [(row.prompt, row.chosen, row.rejected) for row in said_rows("ann", said)] == [("p", "0", "1")]


def test_a_generator_that_fails_leaves_nothing_out_in_silence(model: Model) -> None:
    with pytest.raises(BackboneError, match="cannot be reached"):
        ranked_rows(sorted(model.method.seen_users())[:1], ["Tea?"], context(model, FailingGenerator()), RowOptions())
