"""The policy for everybody by the command line: trained once, answering users and newcomers, cut into plain LoRAs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from copl import Model
from copl.data.dataset import load_dataset

SMALL = {"max_steps": 3, "batch_size": 4, "num_prompts": 2, "num_users": 3, "max_new_tokens": 5, "num_experts": 2,
         "max_length": 16}  # fmt: skip


@pytest.fixture(scope="module")
def run(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("run") / "run"
    shutil.copytree(trained_run, copy)
    return copy


def test_everybody_is_answered_by_one_policy(
    run: Path, small_data: Path, tiny_model: Path, tmp_path: Path, run_copl: Callable[..., tuple[int, str, str]]
) -> None:
    data, model = load_dataset(small_data), Model.open(run)
    seen = next(iter(model.method.seen_users()))
    newcomer = data.split("support").users.ids[data.split("support").comparisons.user[0]]
    prompts = tmp_path / "prompts.jsonl"
    asked = list(dict.fromkeys(data.responses.prompts))[:2]
    prompts.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in asked))
    settings = [*(f"aligner.{key}={value}" for key, value in SMALL.items()), f"aligner.model={tiny_model}"]
    options = [part for setting in settings for part in ("--set", setting)]
    users = ["--user", seen, "--user", newcomer, "--user", "nobody", "--support", small_data]

    told: list[str] = []

    def answers(out: Path, *named: object) -> list[dict[str, Any]]:
        code, _, said = run_copl(
            "align", run, prompts, "--out", out, "--generator", "facets", "--aligner", "mixture-dpo", *named, *options
        )
        assert code == 0, said
        told.append(said)
        return [json.loads(line) for line in out.read_text().splitlines()]

    first = answers(tmp_path / "first.jsonl", *users)
    assert "rows are longer than 16 tokens and are cut; max_length sets the limit" in told[0]
    assert [row["user_known"] for row in first] == [True, True, False] * 2
    assert all(row["response"] == row["unpersonalised"] for row in first if not row["user_known"])
    [card] = run.glob("policies/*/mixture-dpo-*/*/policy.json")
    facts = json.loads(card.read_text())["training"]
    assert (facts["steps"], facts["num_users"]) == (3, len(model.method.seen_users()))
    assert not list(run.glob("policies/*/*/*.partial"))
    changed = card.stat().st_mtime_ns
    alone = answers(tmp_path / "alone.jsonl", "--user", newcomer, "--support", small_data)
    assert [row["response"] for row in alone] == [row["response"] for row in first if row["user_id"] == newcomer]
    assert card.stat().st_mtime_ns == changed  # not trained again

    code, _, said = run_copl("adapt", run, small_data, "--out", tmp_path / "new.safetensors")
    assert code == 0, said
    named = ("--user", newcomer, "--users", tmp_path / "new.safetensors", "--policy")
    code, shown, said = run_copl("export", run, "--out", tmp_path / "voice", *named, "--json")
    assert code == 0, said
    assert json.loads(shown)["rank"] == 16  # of the shared expert and of the one of the user's cluster
    config = json.loads((tmp_path / "voice" / "adapter_config.json").read_text())
    assert (config["task_type"], config["base_model_name_or_path"]) == ("CAUSAL_LM", str(tiny_model))
    code, _, said = run_copl("export", run, "--out", tmp_path / "voice", *named)
    assert (code, "already there" in said) == (2, True)
    code, _, said = run_copl("export", run, "--out", tmp_path / "other", "--user", "nobody", "--policy")
    assert (code, "neither trained nor adapted" in said) == (2, True)


def test_a_run_without_a_policy_or_embeddings_says_so(
    trained_run: Path, tmp_path: Path, run_copl: Callable[..., tuple[int, str, str]]
) -> None:
    user = next(iter(Model.open(trained_run).method.seen_users()))
    code, _, said = run_copl("export", trained_run, "--out", tmp_path / "voice", "--user", user, "--policy")
    assert (code, "`copl align --aligner mixture-dpo` trains one" in said) == (2, True)
    code, _, said = run_copl("export", trained_run, "--out", tmp_path / "voice", "--policy")
    assert (code, "name the user with --user" in said) == (2, True)
