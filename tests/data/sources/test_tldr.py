from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from copl.data.sources.tldr import TldrOptions, TldrSource
from copl.errors import DataError
from copl.records import PreferenceData
from tests.data.published import tldr_row, write_lines, write_parquet

SIZES = {"num_users": 20, "num_unseen_users": 4, "num_context": 4, "num_heldout": 3}


def load(path: Path, **options: Any) -> PreferenceData:
    return TldrSource(TldrOptions(path=path, **{**SIZES, **options})).load(seed=0)


def rows(posts: range, worker: str = "w") -> list[dict[str, Any]]:
    return [tldr_row(f"post {n}", f"{n} short", f"{n} rather long", worker) for n in posts]


def test_one_group_prefers_the_shorter_the_other_the_longer(tmp_path: Path) -> None:
    write_parquet(tmp_path / "comparisons" / "train" / "0000.parquet", rows(range(20)))
    write_parquet(tmp_path / "comparisons" / "validation" / "0000.parquet", rows(range(18, 30)))
    write_parquet(tmp_path / "axis" / "test" / "0000.parquet", [{"other": 1}])
    data = load(tmp_path)
    assert sorted(data.users.groups, key=str) == ["longer"] * 12 + ["shorter"] * 12
    length = [len(text) for text in data.responses.texts]
    for name in data.present():
        part = data.splits[name]
        for user, chosen, rejected in zip(*(c.tolist() for c in (part.user, part.chosen, part.rejected)), strict=True):
            assert data.responses.prompts[chosen] == data.responses.prompts[rejected]
            assert (length[chosen] < length[rejected]) == (data.users.groups[user] == "shorter")
    # Posts 18 and 19 are in the training part, too, so nobody is judged on them.
    judged = {data.responses.prompts[row] for row in data.split("cold").comparisons.chosen.tolist()}
    assert judged <= {f"post {n}" for n in range(20, 30)}
    counts = data.provenance["counts"]
    assert counts["pairs held out on a post that is trained on"] == 2
    assert (counts["pairs"], counts["held-out pairs"]) == (30, 10)


def test_only_pairs_of_active_workers_by_supervised_policies(tmp_path: Path) -> None:
    content = [
        *rows(range(12)),
        *rows(range(12, 15), worker="rare"),
        tldr_row("by ppo", "short", "longer text", policies=("sup1", "ppo_sup4")),
        tldr_row("by a human", "short", "longer text", policies=("ref", "sup1")),
        tldr_row("alike", "aaaa", "bbbb"),
        tldr_row("empty", "", "bbbb"),
        {**tldr_row("none", "a", "bbb"), "info": {"post": None, "article": "news"}},
        tldr_row("post 3", "3 rather long", "3 short"),
    ]
    data = load(write_lines(tmp_path / "a.jsonl", content), num_workers=1, num_heldout=1, num_users=40)
    assert set(data.responses.prompts) == {f"post {n}" for n in range(12)}
    counts = data.provenance["counts"]
    assert [counts[f"pairs {why}"] for why in ("not by supervised policies", "by less active workers")] == [2, 3]
    assert [counts[f"pairs {why}"] for why in ("empty", "of equal length", "repeated")] == [2, 1, 1]
    assert counts["held-out pairs"] == 1  # a copy without the validation part: a tenth of the posts


def test_faults(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{**tldr_row("p", "a", "bb"), "summaries": [{"text": "a"}]}])
    with pytest.raises(DataError, match=r"a.jsonl: line 1: expected info.post and two summaries"):
        load(path)
    with pytest.raises(DataError, match="no pair is left"):
        load(write_lines(tmp_path / "a.jsonl", [tldr_row("p", "a", "b")]))
