"""All that is written after users were forgotten, by a run that goes on from one that knew them: no byte of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import attrs
import numpy as np
import pytest

from copl.data.dataset import load_dataset, save_dataset
from copl.model import Model
from copl.records import Comparisons, ResponseTable, UserTable

RunCopl = Callable[..., tuple[int, str, str]]
SEEN, UNSEEN, SECRET = "zoe-4711", "yan-4712", "xyzzy"
"""Two who are forgotten, of whom training knew one, and a word that is in no text but those that only they judged."""

REWARD = ("encoder.name=latent-groups", "reward.max_steps=2", "reward.eval_every=1", "reward.batch_size=4",
          "reward.max_length=64", "reward.warm_start=false", "mixture.shared_rank=2", "mixture.expert_rank=2",
          "reward.trainable_layers=1")  # fmt: skip
POLICY = ("aligner.max_steps=2", "aligner.batch_size=4", "aligner.num_prompts=2", "aligner.max_new_tokens=4",
          "aligner.max_length=16")  # fmt: skip


def options(*assignments: str) -> list[str]:
    return [word for assignment in assignments for word in ("--set", assignment)]


def write_known(small_data: Path, out: Path) -> None:
    """Write the small data set with names for two of its users, each of whom says something of texts of their own."""
    data = load_dataset(small_data)
    rows = {name: int(data.split(name).comparisons.user[0]) for name in ("train", "support")}
    names = dict(zip(rows.values(), (SEEN, UNSEEN), strict=True))
    users = UserTable([names.get(row, user) for row, user in enumerate(data.users.ids)], data.users.groups)
    prompts, texts, splits = list(data.responses.prompts), list(data.responses.texts), dict(data.splits)
    for split, user in rows.items():
        first = np.arange(len(texts), len(texts) + 8, 2)
        prompts += [f"{SECRET} {split} {place // 2}" for place in range(8)]
        texts += [f"{SECRET} {split} answer {place}" for place in range(8)]
        own = Comparisons(np.full(4, user), first, first + 1)
        splits[split] = Comparisons.concat([splits[split], own])
    save_dataset(attrs.evolve(data, users=users, responses=ResponseTable(prompts, texts), splits=splits), out)


@pytest.fixture
def done(run_copl: RunCopl) -> Callable[..., str]:
    """Return a function that runs a command, which has to succeed, and gives what it says."""

    def do(*words: object) -> str:
        code, out, err = run_copl(*words)
        assert code == 0, err
        return out + err

    return do


@pytest.fixture
def left(small_data: Path, tiny_model: Path, tmp_path: Path, done: Callable[..., str]) -> Path:
    """A directory with a data set ``data`` without the two, and a run ``run`` that goes on from one that knew them."""
    write_known(small_data, tmp_path / "known")
    before, root = tmp_path / "knew", tmp_path / "left"
    done("train", tmp_path / "known", "--out", before, "--backbone", tiny_model, *options(*REWARD))
    assert contents_with(before, SEEN), "the graph knows its users by name"
    done("data", "forget", tmp_path / "known", "--user", SEEN, "--user", UNSEEN, "--out", root / "data")
    done("train", root / "data", "--from", before, "--out", root / "run")
    return root


def contents_with(root: Path, *words: str) -> list[str]:
    """Return the files below a directory in whose names or bytes a word is."""
    found = []
    for path in root.rglob("*"):
        content = path.name.encode() + (path.read_bytes() if path.is_file() else b"")
        found += [f"{path.relative_to(root)}: {word}" for word in words if word.encode() in content]
    return found


def test_nothing_that_is_written_names_them(left: Path, tiny_model: Path, done: Callable[..., str]) -> None:
    run, data = left / "run", load_dataset(left / "data")
    assert not [text for text in (*data.responses.texts, *data.responses.prompts) if SECRET in text]
    user = sorted(Model.open(run).method.seen_users())[0]
    newcomer = data.users.ids[data.split("support").comparisons.user[0]]
    done("evaluate", run)
    done("adapt", run, left / "data", "--out", left / "newcomers.safetensors")
    prompts = left / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": one}) + "\n" for one in dict.fromkeys(data.responses.prompts[:9])))
    asked = ("--user", user, "--user", newcomer, "--users", left / "newcomers.safetensors", "--generator", "facets")
    mixture = options(*POLICY, "aligner.num_users=3", "aligner.num_experts=2", f"aligner.model={tiny_model}")
    answers, rows = left / "answers.jsonl", left / "rows.jsonl"
    done("align", run, prompts, "--out", answers, "--rows", rows, "--aligner", "mixture-dpo", *asked, *mixture)
    assert list(run.glob("policies/*/mixture-dpo-*/*/policy.json"))
    assert contents_with(run / "policies", user, newcomer) == [], "policies name nobody"
    done("export", run, "--out", left / "whole")
    done("export", run, "--out", left / "classifier", "--user", user)
    done("export", run, "--out", left / "voice", "--user", user, "--policy")
    assert contents_with(left, newcomer), "who is not forgotten is named, and found"
    assert contents_with(left, SEEN, UNSEEN, SECRET) == []


def test_a_policy_for_one_user_names_nobody_who_was_forgotten(
    left: Path, tiny_model: Path, done: Callable[..., str]
) -> None:
    pytest.importorskip("trl")
    run = left / "run"
    user = sorted(Model.open(run).method.seen_users())[0]
    prompts = left / "prompts.jsonl"
    prompts.write_text(json.dumps({"prompt": load_dataset(left / "data").responses.prompts[0]}) + "\n")
    settings = options(*POLICY, f"aligner.model={tiny_model}")
    one = ("--aligner", "dpo", "--user", user, "--generator", "facets", *settings)
    done("align", run, prompts, "--out", left / "answers.jsonl", *one)
    assert list(run.glob("policies/*/dpo-*/*/policy.json"))
    assert contents_with(run / "policies", user) == [], "not even whom they are for"
    assert contents_with(left, SEEN, UNSEEN, SECRET) == []
