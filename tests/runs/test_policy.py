"""Which policies a run has."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from copl.align.policies.options import CARD
from copl.plugins import load
from copl.runs.directory import open_run
from copl.runs.policy import kept_policies, policies_of, policy_directory
from copl.runs.recipe import Choice


def test_the_newest_policy_is_last_and_one_that_was_being_written_is_none(small_run: Path, tmp_path: Path) -> None:
    run = open_run(Path(shutil.copytree(small_run, tmp_path / "run")), load())
    assert kept_policies(run, "mixture-dpo") == []
    places = ("mixture-dpo-2/everybody", "mixture-dpo-1/everybody", "dpo-1/ann", "mixture-dpo-1/.everybody.copl-tmp")
    for age, place in enumerate(places):
        card = policies_of(run) / place / CARD
        card.parent.mkdir(parents=True)
        card.write_text("{}")
        os.utime(card, (age, age))
    assert [path.parent.name for path in kept_policies(run, "mixture-dpo")] == ["mixture-dpo-2", "mixture-dpo-1"]
    assert [path.name for path in kept_policies(run, "mixture-dpo")] == ["everybody"] * 2


def test_policies_trained_on_another_quality_lie_elsewhere(small_run: Path) -> None:
    run, plugins = open_run(small_run, load()), load()
    dpo = plugins.registry("aligner").get("dpo")
    aligner = Choice("aligner", "dpo", dpo.component.options(), dpo)
    places = [policy_directory(run, aligner, quality) for quality in ("", "good:0:1.0", "good:0:2.0")]
    assert len({*places}) == 3
