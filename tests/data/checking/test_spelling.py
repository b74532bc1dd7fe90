from __future__ import annotations

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
