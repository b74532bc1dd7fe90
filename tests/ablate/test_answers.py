"""What users are shown, compared by a study: aligners and generators swapped by name beside the methods."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pyarrow.parquet as pq
import pytest

from copl.ablate.answers import Answers, answers_of
from copl.ablate.cells import Cell
from copl.ablate.conduct import Found
from copl.ablate.gains import collect_gains, over_seeds
from copl.ablate.grid import Plan, plan
from copl.ablate.study import Flags, load_study
from copl.errors import OptionsError
from copl.evaluate.policy import BETTER_OFF, GAIN
from copl.plugins import load
from copl.records import Measurement

RunPlan = Callable[..., tuple[Found, list[str]]]
SMALL = ("answers.num=4", "answers.prompts=3", "answers.users=5")
QUICK = ("method.name=graph", "encoder.name=mf", "encoder.num_steps=5", *SMALL)


def asked(*vary: str, settings: tuple[str, ...] = QUICK, data: Path | None = None) -> Plan:
    return plan(load_study(None, Flags(vary=vary, data=(str(data),), settings=settings)), load())


@pytest.fixture(scope="module")
def study(run_plan: RunPlan, small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Path, Found]:
    """Two encoders, of whom an aligner chooses and one cannot work."""
    out = tmp_path_factory.mktemp("answers") / "out"
    planned = asked("encoder=mf,none", "aligner=best-of-n,in-context", data=small_data)
    found, said = run_plan(planned, out)
    assert said[0] == "2 cells: 0 finished, 0 failed, 2 to run"
    return planned, out, found


def test_gain_stands_beside_accuracy_for_every_variant_and_aligner(study: tuple[Plan, Path, Found]) -> None:
    planned, out, found = study
    assert [variant.name for variant in planned.variants] == ["mf", "none"]
    assert not found.failed
    new, unseen = found.gains_tables
    assert (new.title, unseen.title) == (
        "What is shown and what chose it, new prompts",
        "What is shown and what chose it, unseen users",
    )
    assert new.header == ("what is shown", "accuracy", "gain", "length-controlled", "worst group", "better off")
    names = [row[0] for row in new.rows]
    assert names == [
        "none",
        *(f"{method}: {shown}" for method in ("mf", "none") for shown in ("the average user's choice", "best-of-n")),
        "oracle",
    ]
    accuracy = {r.variant: r.measured for r in found.results if r.measured.metric == "accuracy"}
    assert accuracy.keys() == {"mf", "none"}
    rows = {row[0]: row[1:] for row in new.rows}
    assert rows["oracle"][:2] == ("", "1.000 (1.000-1.000)")
    assert all(rows[f"{name}: best-of-n"][0] for name in accuracy)
    assert "in-context shows nothing by mf on facets: aligner in-context puts" in " ".join(found.remarks)
    text = (out / "table.md").read_text()
    assert text.index("new prompts") < text.index("What is shown and what chose it, new prompts")
    assert r"\caption{What is shown and what chose it, new prompts}" in (out / "table.tex").read_text()
    table = pq.read_table(out / "answers.parquet").to_pylist()
    assert {row["aligner"] for row in table} == {"none", "unpersonalised", "best-of-n", "oracle"}
    assert {row["value"] for row in table if row["aligner"] == "oracle" and row["metric"] == GAIN} == {1.0}


def test_what_is_finished_is_not_measured_again(study: tuple[Plan, Path, Found], run_plan: RunPlan) -> None:
    planned, out, found = study
    kept = {path: path.stat().st_mtime_ns for path in out.glob("cells/*/*/answers-*.json")}
    assert len(kept) == 2
    again, said = run_plan(planned, out)
    assert said == ["2 cells: 2 finished, 0 failed, 0 to run"]
    assert again.gains == found.gains
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert planned.answers is not None
    other = attrs.evolve(planned, answers=attrs.evolve(planned.answers, aligners=planned.answers.aligners[:1]))
    fewer, said = run_plan(other, out)
    assert said[0] == "2 cells: 0 finished, 0 failed, 2 to run"  # trained already: measured alone
    assert fewer.gains.rows == found.gains.rows
    assert (fewer.gains.faults, len(found.gains.faults)) == ((), 2)


def test_data_without_truth_are_said_to_have_none(run_plan: RunPlan, planted: Path, tmp_path: Path) -> None:
    found, _ = run_plan(asked("aligner=best-of-n", data=planted / "one"), tmp_path / "out")
    assert (found.gains.rows, found.gains_tables) == ((), [])
    assert "can be measured where they are simulated (facets): not on one." in found.remarks[-1]


def answers(*vary: str, settings: tuple[str, ...] = (), root: Path = Path()) -> Answers:
    faults: list[str] = []
    study = load_study(None, Flags(vary=vary, data=(".",), settings=settings))
    found = answers_of(attrs.evolve(study, root=root), load(), faults)
    assert found is not None
    assert not faults
    return found


def test_options_are_varied_where_an_aligner_has_them(tmp_path: Path) -> None:
    found = answers(
        "aligner=none,mixture-dpo",
        "aligner.num_experts=0,4",
        settings=("aligner.max_steps=7", "generator.name=table", "generator.path=mine.jsonl"),
        root=tmp_path,
    )
    assert [named.label for named in found.aligners] == [
        "none",
        "mixture-dpo, num_experts=0",
        "mixture-dpo, num_experts=4",
    ]
    assert [named.options.get("max_steps") for named in found.aligners] == [None, 7, 7]
    [written] = found.generators
    assert written.choice("generator", load()).options.path == tmp_path / "mine.jsonl"
    assert (found.size.num, found.size.prompts, found.size.users) == (8, 12, 100)
    assert answers("aligner=none", settings=("answers.users=none",)).size.users is None


def test_a_cell_is_sent_to_another_process_with_its_answers(small_data: Path) -> None:
    planned = asked("aligner=best-of-n", data=small_data)
    cell = Cell(("a",), "facets", 0, {}, small_data, Path("run"), Path("cache"), answers=planned.answers)
    assert Cell.from_json(cell.to_json()).answers == planned.answers


def test_a_study_that_asks_nothing_is_as_it_was(small_data: Path) -> None:
    planned = asked("encoder=mf,none", settings=QUICK[:3], data=small_data)
    assert planned.answers is None
    assert [axis.label for axis in planned.study.axes] == ["encoder"]


@pytest.mark.parametrize(
    ("vary", "settings", "fault"),
    [
        (("aligner=best-of-m",), (), "unknown aligner 'best-of-m' (did you mean 'best-of-n'?)"),
        (("generator=facet",), (), "unknown generator 'facet' (did you mean 'facets'?)"),
        (("answers.num=2,4",), (), "--vary answers.num: is the same for the whole study"),
        ((), ("answers.nun=4",), "answers: unknown option 'nun' (did you mean 'num'?)"),
        ((), ("answers.num=1",), "answers.num"),
        ((), ("aligner.budgt=4",), "aligner.budgt: no aligner of this study has it (did you mean 'budget'?)"),
        (("generator=table",), (), "generator.table: option 'path' is required"),
    ],
)
def test_mistakes_are_told_before_anything_is_run(
    vary: tuple[str, ...], settings: tuple[str, ...], fault: str, small_data: Path
) -> None:
    with pytest.raises(OptionsError) as caught:
        asked(*vary, settings=(*QUICK[:3], *settings), data=small_data)
    assert fault in "\n".join(caught.value.faults)


def test_one_run_keeps_its_interval_and_several_have_one_over_runs() -> None:
    runs = [Measurement("cold", "all", GAIN, value, value - 0.3, value + 0.3, 9) for value in (0.7, 0.8, 0.9)]
    assert over_seeds(runs[:1], shared=True) is runs[0]
    shares = over_seeds([attrs.evolve(run, metric=BETTER_OFF) for run in runs], shared=False)
    assert shares.high == 1.0
    together = over_seeds(runs, shared=False)
    assert together.value == pytest.approx(0.8)
    assert (together.low, together.high) == (pytest.approx(0.8 - 0.2484, abs=1e-4), pytest.approx(1.0484, abs=1e-4))
    same = over_seeds(runs, shared=True)  # the same users and prompts in all: what they add is not averaged away
    assert same.value == together.value
    assert same.high - same.value > 0.3


def test_runs_on_the_same_data_share_users_and_prompts(study: tuple[Plan, Path, Found]) -> None:
    planned, _, found = study
    assert found.gains.same == frozenset()  # one seed
    cells = [
        Cell(("a",), name, seed, {}, Path(f"{name}-{seed if name == 'anew' else 0}"), Path("run"), Path("cache"))
        for name in ("anew", "fixed")
        for seed in (0, 1)
    ]
    assert collect_gains(planned, cells).same == {"fixed"}


def test_the_accuracy_beside_a_gain_is_that_of_the_other_tables(study: tuple[Plan, Path, Found]) -> None:
    _, _, found = study
    new = next(shown for shown in found.tables if shown.split == "cold")
    rows = {row[0]: row[1] for row in found.gains_tables[0].rows}
    for name in ("mf", "none"):
        entry = new.rows[name][0]
        assert entry is not None
        assert rows[f"{name}: best-of-n"] == str(attrs.evolve(entry, over_seeds=False))


def test_the_command_shows_them(
    study: tuple[Plan, Path, Found], run_copl: Callable[..., tuple[int, str, str]], small_data: Path
) -> None:
    _, out, found = study
    settings = [part for setting in QUICK for part in ("--set", setting)]
    vary = ["--vary", "encoder=mf,none", "--vary", "aligner=best-of-n,in-context"]
    words = ["ablate", *vary, *settings, "--data", small_data, "--out", out]
    code, printed, said = run_copl(*words)
    assert code == 0, said
    assert "What is shown and what chose it, new prompts" in printed
    code, printed, said = run_copl(*words, "--json")
    assert code == 0, said
    rows: list[dict[str, Any]] = json.loads(printed)["answers"]
    assert len(rows) == len(found.gains.rows)
    assert {"variant", "aligner", "generator", "data", "seed", "metric", "value"} <= rows[0].keys()
    code, printed, said = run_copl(*words, "--dry-run")
    assert "shown: by best-of-n, in-context; written by facets" in printed
