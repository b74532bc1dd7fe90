from __future__ import annotations

import json
import re
from collections.abc import Sequence

import pytest

from copl.data.checking.checks import check
from copl.data.checking.spelling import spelling_findings, token_findings
from copl.data.sources.facets import FacetsOptions, generate
from copl.records import Comparisons, PreferenceData, ResponseTable, UserTable


def data_set(ids: Sequence[str], prompts: Sequence[str], texts: Sequence[str]) -> PreferenceData:
    rows = Comparisons([0, 0], [0, 1], [1, 2])
    return PreferenceData("example", UserTable.ungrouped(ids), ResponseTable(prompts, texts), {"train": rows})


PLAIN = (["u", "v"], ["p", "p", "p"], ["a", "b", "c"])


def test_a_plain_data_set_gives_no_finding() -> None:
    assert list(spelling_findings(data_set(*PLAIN))) == []


@pytest.mark.parametrize(
    ("data", "severity", "what", "where", "count"),
    [
        (data_set(["u ", "v"], *PLAIN[1:]), "warning", "user ids in another spelling", "such as 'u '", 1),
        (data_set(["u"], ["p"] * 3, ["a\u200b", "b", "c"]), "warning", "responses in another", r"'a\u200b'", 1),
        (data_set(["u"], ["p", "e\u0301", "e\u0301"], ["a", "b", "c"]), "warning", "prompts in", "'e\u0301'", 1),
        (data_set(["u"], ['[{"role":"user","content":"a"}]', "p", "p"], ["a", "b", "c"]), "warning", "prompts in",
         "content", 1),
        (data_set(["Ann Lee", "ann lee", "annlee", "bo"], *PLAIN[1:]), "warning", "user ids that differ by case, width",
         "such as 'Ann Lee' and 'ann lee' and 'annlee'", 3),
        (data_set(["u"], ["Why?", "why ?", "how?"], ["a", "b", "c"]), "info", "prompts that differ by case",
         "such as 'Why?' and 'why ?'", 2),
    ],
)  # fmt: skip
def test_what_is_found(data: PreferenceData, severity: str, what: str, where: str, count: int) -> None:
    (finding,) = spelling_findings(data)
    assert finding in check(data)
    assert (finding.severity, finding.count) == (severity, count)
    assert finding.what.startswith(what)
    assert where in finding.where


def test_the_embedded_corpus_is_in_the_one_spelling() -> None:
    data, _ = generate(FacetsOptions(own_wording=1.0), 0)
    assert list(spelling_findings(data)) == []


def test_pairs_that_are_the_same_tokens() -> None:
    data = data_set(["u"], ["p"] * 3, ["👍", "👎", "ok"])
    assert list(token_findings(data, "train", [[1, 9], [1, 8], [1, 7]], "minilm")) == []
    assert list(token_findings(data, "test", [[1], [1], [1]], "minilm")) == []
    (finding,) = token_findings(data, "train", [[1, 0], [1, 0], [1, 7]], "minilm")
    assert (finding.severity, finding.count) == ("warning", 1)
    assert finding.where == "train, such as '👍' and '👎'"
    assert "minilm" in finding.advice


def test_the_check_with_a_backbone_and_training_tell_of_pairs_that_are_the_same_tokens(
    run_copl, small_data, tiny_model, tmp_path
) -> None:
    thumbs = [("\N{THUMBS UP SIGN}", "\N{THUMBS DOWN SIGN}"), ("yes", "no")]
    rows = [
        {"user_id": f"u{user}", "prompt": f"{prompt}", "chosen": thumbs[prompt % 2][user % 2],
         "rejected": thumbs[prompt % 2][1 - user % 2]}
        for user in range(6) for prompt in range(4)
    ]  # fmt: skip
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, _, err = run_copl(
        "data", "make", "jsonl", "--set", f"path={tmp_path / 'rows.jsonl'}", "--out", tmp_path / "d"
    )
    assert code == 0, err
    code, out, _ = run_copl("data", "check", tmp_path / "d", "--backbone", tiny_model, "--json")
    found = [finding for finding in json.loads(out) if finding["what"] == "pairs that the tokenizer cannot tell apart"]
    assert found
    assert "\N{THUMBS UP SIGN}" in found[0]["where"]
    quick = ["--set", "reward.max_steps=1", "--set", "reward.max_length=32", "--encoder", "none", "--gate", "none"]
    command = ["train", tmp_path / "d", "--out", tmp_path / "run", "--backbone", tiny_model, "--no-cache", *quick]
    code, _, err = run_copl(*command)
    assert code == 0, err
    assert re.search(r"reward: \d+ of \d+ training pairs are two responses that are the same tokens", err)
