"""What policies are trained on: what users have said, and candidates to training prompts ranked by their rewards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from copl.align.choosing import candidates_of
from copl.align.policies.rows import PreferenceRow, RowOptions, preference_rows
from copl.errors import CoplError
from copl.interfaces import ChecksPrompts
from copl.records.answers import AnswerRequests

if TYPE_CHECKING:
    from copl.interfaces import AlignerContext, Generator
    from copl.records import ComparisonSet


def said_rows(user_id: str, said: ComparisonSet) -> list[PreferenceRow]:
    """Return what a user has said as rows: of two responses to one prompt, the one the user chose."""
    rows, table = said.comparisons.take(said.told_apart), said.responses
    distinct: dict[tuple[str, str, str], None] = {}
    for chosen, rejected, weight in zip(
        rows.chosen.tolist(), rows.rejected.tolist(), rows.weight.tolist(), strict=True
    ):
        if weight > 0:
            distinct[table.prompts[chosen], table.texts[chosen], table.texts[rejected]] = None
    return [PreferenceRow(user_id, *texts, margin=0.0, provenance={"kind": "said"}) for texts in distinct]


def training_prompts(user_ids: Sequence[str], count: int, context: AlignerContext) -> list[str]:
    """Return some prompts of the training, those of the first users first."""
    prompts: dict[str, None] = {}
    for user in user_ids:
        if len(prompts) >= count:
            break
        said = context.comparisons(user)
        prompts |= {said.responses.prompts[row]: None for row in said.comparisons.chosen.tolist()}
    return list(prompts)[:count]


def ranked_rows(
    user_ids: Sequence[str],
    prompts: Sequence[str],
    context: AlignerContext,
    options: RowOptions,
) -> list[PreferenceRow]:
    """Return rows of candidates to those training prompts that the generator can answer.

    Raises:
        CoplError: the generator fails.
    """
    prompts = [prompt for prompt in prompts if _answers(context.generator, prompt)]
    if not prompts or not user_ids:
        context.progress.log("policy", finding="the generator answers none of the training prompts")
        return []
    candidates = candidates_of(
        context.generator, prompts, num=options.num_candidates, seed=context.seed, progress=context.progress
    )
    requests = AnswerRequests(user_ids, prompts, candidates)
    known = [context.knows(user) for user in user_ids]
    return [*preference_rows(requests, context.rewards(requests), known, options, {"kind": "ranked"}).rows]


def _answers(generator: Generator, prompt: str) -> bool:
    """Whether a generator can answer a prompt, as far as it can say beforehand."""
    if not isinstance(generator, ChecksPrompts):
        return True
    try:
        generator.check([prompt])
    except CoplError:
        return False
    return True
