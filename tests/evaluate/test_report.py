"""The report: one file, readable, and the same whatever is missing."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from typing import Any

import attrs
import numpy as np
import pytest

from copl.evaluate import plots
from copl.evaluate.curves import training_panels
from copl.evaluate.examples import Example
from copl.evaluate.findings import findings
from copl.evaluate.report import AnswerCards, AnswersPage, ReportInputs, render_report
from copl.evaluate.tables import Table
from copl.evaluate.verdict import AVERAGE_USER, CONSENSUS, Judgement, Kind, Verdict
from copl.records import Measurement

VERDICTS = {"copl": "Personal <b>.", "btl": "Not personal."}
VOID = {"meta", "br", "hr", "img", "link", "input"}


class Page(HTMLParser):
    """Checks that tags are closed in order; collects what the tests ask for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.ids: Counter[str] = Counter()
        self.references: list[str] = []
        self.images: list[dict[str, Any]] = []
        self.headers: list[dict[str, Any]] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        if tag not in VOID:
            self.open.append(tag)
        self._collect(tag, dict(attributes))

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self._collect(tag, dict(attributes))

    def _collect(self, tag: str, named: dict[str, Any]) -> None:
        if "id" in named:
            self.ids[named["id"]] += 1
        self.references += [named[key] for key in ("href", "src", "xlink:href") if key in named]
        if tag == "svg":
            self.images.append(named)
        if tag == "th":
            self.headers.append(named)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in {"style", "script"}:
            self.text += data


def accuracy(split: str, value: float, subset: str = "all") -> Measurement:
    return Measurement(split, subset, "accuracy", value, value - 0.02, value + 0.02, 400)


@pytest.fixture(scope="module")
def inputs() -> ReportInputs:
    generator = np.random.default_rng(0)
    ids = [f"u{row}" for row in range(30)]
    buckets = [accuracy("heldout", 0.6 + 0.1 * row, f"comparisons:{name}") for row, name in enumerate(["1-2", "3-4"])]
    difference = Measurement("test", "versus:btl", "accuracy_difference", 0.2, 0.15, 0.25, 400)
    return ReportInputs(
        title="A <run> & more",
        measurements={
            "copl": [accuracy("test", 0.8), accuracy("heldout", 0.75), *buckets, difference],
            "btl <b>": [accuracy("test", 0.6)],
        },
        curves=[{"stage": "graph", "step": step, "loss": 1 / (step + 1), "seconds": 3} for step in range(5)],
        user_ids=ids,
        user_embeddings=generator.normal(size=(30, 5)),
        groups={user: ["one", "two & <three>", None][row % 3] for row, user in enumerate(ids)},
        expert_weights=np.eye(4)[np.arange(30) % 2],
        verdicts={name: Verdict((Judgement("personal", claim, "By 3."),)) for name, claim in VERDICTS.items()},
        data=[("source", "facets"), ("warning", "a <rule>"), ("warning", "another")],
        examples=[Example("Hello <b>?", ("u0", "A <i>"), ("u1", "B"), "heldout")],
        facts={"command": "copl demo --set a='<b>'", "seed": 0, "resumed": False},
        notes=["Stopped <early>."],
        answers=AnswersPage(
            [Table("gains <b>", ("what is shown", "new prompts"), (("best-of-n", ".8"),))],
            [AnswerCards("Why <i>so</i>?", (("u0", "gain 1", "- one\n- two </blockquote>"), ("anybody", "", "x")))],
        ),
    )


@pytest.fixture(scope="module")
def page(inputs: ReportInputs) -> Page:
    return Page(render_report(inputs))


def test_it_needs_nothing_else(page: Page) -> None:
    assert all(reference.startswith(("#", "data:")) for reference in page.references)
    assert not page.tags["script"]
    assert not page.tags["link"]


def test_answers_stand_side_by_side_as_they_are(page: Page) -> None:
    assert page.tags["blockquote"] == 4
    for text in ("gains <b>", "Why <i>so</i>?", "- one\n- two </blockquote>", "What users are shown"):
        assert text in page.text


def test_references_inside_the_page_hit_one_target(page: Page) -> None:
    assert [name for name, count in page.ids.items() if count > 1] == []
    assert {reference[1:] for reference in page.references if reference.startswith("#")} <= set(page.ids)


def test_every_picture_is_described_and_every_table_has_headers(page: Page) -> None:
    assert len(page.images) == 5  # accuracy by comparisons, map, gate, gate by group, training
    for image in page.images:
        assert image["role"] == "img"
        assert len(image["aria-label"]) > 20
        assert "viewbox" in image
        assert "width" not in image
    assert page.headers
    assert all(header.get("scope") in {"col", "row"} for header in page.headers)


def test_names_are_shown_as_they_are(page: Page) -> None:
    for text in ("A <run> & more", "btl <b>", "two & <three>", "copl demo --set a='<b>'", "Stopped <early>."):
        assert text in page.text
    assert not page.tags["early"]
    assert not page.tags["run"]


def test_numbers_are_shown(page: Page) -> None:
    for text in ("80.0\xa0%", "78.0 to 82.0\xa0%", "not measured", "+20.0", "+15.0 to +25.0"):
        assert text in page.text


def test_data_and_facts_are_told_row_by_row(page: Page) -> None:
    rows = " | ".join(page.text.split("\n"))
    for name, value in [
        ("source", "facets"),
        ("warning", "a <rule>"),
        ("warning", "another"),
        ("seed", "0"),
        ("resumed", "no"),
    ]:
        assert f"| {name}{value} |" in rows


def test_a_method_without_users_stands_beside_as_the_yardstick(inputs: ReportInputs) -> None:
    def text(**kinds: Kind) -> str:
        verdicts = {name: Verdict((Judgement(kind, "So."),)) for name, kind in kinds.items()}
        return " ".join(Page(render_report(attrs.evolve(inputs, verdicts=verdicts))).text.split())

    assert "btl knows no users and scores alike for everybody: the yardstick" in text(copl="personal", btl="no-users")
    assert "btl and length know no users and score alike" in text(copl="worse", btl="no-users", length="no-users")
    assert "yardstick" not in text(btl="no-users") + text(copl="personal")


def test_verdicts_and_examples_are_shown_as_text(page: Page) -> None:
    for text in ("Personal <b>.", "Not personal.", "Hello <b>?", "A <i>"):
        assert text in page.text


def test_same_inputs_same_report(inputs: ReportInputs) -> None:
    assert render_report(inputs) == render_report(inputs)


PLOTTED = ("measurements", "curves", "user_ids", "user_embeddings", "groups", "expert_weights")


@pytest.mark.parametrize("part", [field.name for field in attrs.fields(ReportInputs)])
def test_any_part_may_be_missing(inputs: ReportInputs, part: str) -> None:
    nothing = ReportInputs()
    if part not in PLOTTED:  # then no picture tells the difference, and pictures take time
        inputs = attrs.evolve(inputs, **{name: getattr(nothing, name) for name in PLOTTED if name != "measurements"})
        inputs = attrs.evolve(inputs, measurements={"copl": [accuracy("test", 0.8)]})
    Page(render_report(attrs.evolve(inputs, **{part: getattr(nothing, part)})))


def test_a_report_of_nothing() -> None:
    page = Page(render_report(ReportInputs()))
    assert "nothing to report" in page.text
    assert not page.tags["section"]


@pytest.mark.parametrize("shape", [(1, 3), (5, 1), (2, 2)])
def test_maps_of_few_users_and_dimensions(shape: tuple[int, int]) -> None:
    ids = [f"u{row}" for row in range(shape[0])]
    embeddings = np.arange(shape[0] * shape[1], dtype=np.float64).reshape(shape)
    assert len(Page(render_report(ReportInputs(user_ids=ids, user_embeddings=embeddings))).images) == 1


def test_a_map_of_many_users_stays_small() -> None:
    embeddings = np.random.default_rng(0).normal(size=(20_000, 3))
    text = render_report(ReportInputs(user_ids=[str(row) for row in range(20_000)], user_embeddings=embeddings))
    assert len(text) < 300_000
    assert "data:image/png;base64" in text


def test_plots_leave_matplotlib_as_it_was(inputs: ReportInputs) -> None:
    import matplotlib as mpl
    from matplotlib import _pylab_helpers

    before = dict(mpl.rcParams)
    render_report(inputs)
    assert dict(mpl.rcParams) == before
    assert not _pylab_helpers.Gcf.figs


def test_matplotlib_waits_for_the_first_plot() -> None:
    code = "import copl.evaluate.report, copl.evaluate.metrics, sys; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_method_without_an_answer_is_no_line_of_a_plot() -> None:
    subset = "comparisons:5-8"
    nothing = Measurement("cold", subset, "accuracy", 0.5, 0.5, 0.5, 400)
    own = {"graph": [nothing, accuracy("test", 0.8, subset)], "copl": [accuracy("cold", 0.7, subset)]}
    labels = [image["aria-label"] for image in Page(render_report(ReportInputs(measurements=own))).images]
    assert [label for label in labels if "graph 0.800" in label]
    assert [label for label in labels if "copl 0.700" in label]
    assert not [label for label in labels if "graph 0.500" in label]


# --- curves ---


def test_a_curve_that_moves_by_rounding_alone_is_flat() -> None:
    from matplotlib.figure import Figure

    from copl.evaluate.plots import _show_flat_as_flat

    for values, span in (([0.657956282, 0.657956283], 0.657956e-3), ([0.5, 0.75], 0.275)):
        ax = Figure().subplots()
        ax.plot([1, 2], values)
        _show_flat_as_flat(ax)
        low, high = ax.get_ylim()
        assert high - low == pytest.approx(span, rel=1e-3)
        assert low < min(values) < max(values) < high
        ax.figure.draw_without_rendering()
        assert ax.yaxis.get_major_formatter().get_offset() == ""


def test_curves_by_stage_quantity_and_series() -> None:
    log = [
        {"stage": "graph", "step": 2, "loss": 0.5, "validation_loss": 0.6, "accuracy": 0.7, "learning_rate": 1e-3},
        {"stage": "graph", "step": 1, "loss": 0.9, "validation_loss": float("nan"), "accuracy": True, "note": "x"},
        {"stage": "graph", "message": "done"},
        {"stage": "reward", "method": "copl", "eval_accuracy": 0.5},
        {"stage": "reward", "method": "copl", "eval_accuracy": 0.75},
    ]
    panels = training_panels(log)
    assert set(panels) == {"graph", "copl: reward"}
    assert set(panels["graph"]) == {"loss"}  # one accuracy, one number for the validation loss: no line
    assert set(panels["graph"]["loss"]) == {"loss"}
    steps, losses = panels["graph"]["loss"]["loss"]
    assert (steps.tolist(), losses.tolist()) == ([1, 2], [0.9, 0.5])
    steps, values = panels["copl: reward"]["accuracy"]["eval_accuracy"]
    assert (steps.tolist(), values.tolist()) == ([1, 2], [0.5, 0.75])


def test_no_value_in_a_log_is_too_large_for_its_picture() -> None:
    wild = [
        {"stage": "graph", "step": step, "loss": value} for step in (1, 10**400, -1e308) for value in (1e308, -1e308)
    ]
    largest = [{"stage": "graph", "step": step, "loss": value} for step, value in ((9e29, 9e29), (-9e29, -9e29))]
    assert training_panels(wild) == {}
    for stage, panels in training_panels([*wild, *largest]).items():
        assert plots.training_curves(stage, panels, "curve").svg


def test_a_difference_stands_below_its_split_once() -> None:
    def ahead(split: str, value: float, versus: str = "btl") -> Measurement:
        return Measurement(split, f"versus:{versus}", "accuracy_difference", value, value - 0.01, value + 0.01, 9)

    measurements = {
        "small": [accuracy("test", 0.6), ahead("heldout", 0.3), ahead("test", -0.02), ahead("cold", 0)],
        "large": [
            accuracy("test", 0.7),
            ahead("heldout", 0.1, CONSENSUS),
            ahead("test", 0.04, CONSENSUS),
            ahead("test", 0.04, "the same"),  # a run of the consensus, the best of its kind on one split
            ahead("test", 0.05),
        ],
        "btl": [accuracy("test", 0.5)],
    }
    html = render_report(ReportInputs(measurements=measurements))
    table = html[html.index('<table class="differences">') :]
    rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in table[: table.index("</table>")].split("<tr>")[1:]]
    cells = [[re.sub(r"<[^>]+>", " ", cell).strip() for cell in row] for row in rows]
    assert cells == [
        ["method", "ahead of", "seen users", "new prompts", "unseen users"],
        ["small", "btl", "-2.0 -3.0 to -1.0", "+0.0 -1.0 to +1.0", "+30.0 +29.0 to +31.0"],
        ["large", f"the {CONSENSUS} and the same", "+4.0 +3.0 to +5.0", "", "+10.0 +9.0 to +11.0"],
        ["large", "btl", "+5.0 +4.0 to +6.0", "", ""],
    ]


def test_a_figure_stands_in_one_place(inputs: ReportInputs) -> None:
    text = Page(render_report(attrs.evolve(inputs, verdicts={}, answers=None))).text
    headline = text[: text.index("All measurements")]
    for figure in ("80.0", "75.0", "60.0", "+20.0"):
        assert headline.count(figure) == 1, figure


def _curves(*stages: str) -> list[dict[str, object]]:
    return [{"stage": stage, "step": step, "loss": 1 / (step + 1)} for stage in stages for step in range(3)]


@pytest.mark.parametrize("count", [1, 2, 4, 5])
def test_rows_of_figures_are_full(count: int) -> None:
    html = render_report(ReportInputs(curves=_curves(*(f"stage {number}" for number in range(count)))))
    sixths = [int(found) for found in re.findall(r'style="--sixths:(\d)"', html)]
    assert len(sixths) == count
    row = 0
    for width in sixths:
        row += width
        assert row <= 6  # the next figure would begin a new row
        row %= 6
    assert row == 0


def _layouts(html: str) -> list[str]:
    return re.findall(r'<section class="(\w+)">', html)


def test_sections_of_one_figure_share_a_line_and_the_map_stands_beside_the_gate(inputs: ReportInputs) -> None:
    assert _layouts(render_report(inputs)) == ["rows", "beside", "rows"]
    without_gate = attrs.evolve(inputs, expert_weights=None)
    assert _layouts(render_report(without_gate)) == ["half", "half", "rows"]
    assert _layouts(render_report(attrs.evolve(without_gate, measurements={}))) == ["half", "half"]
    assert _layouts(render_report(attrs.evolve(without_gate, curves=_curves("a", "b")))) == ["half", "half", "rows"]
    ungrouped = attrs.evolve(inputs, groups={})
    assert _layouts(render_report(ungrouped)) == ["rows", "rows", "rows"]


# --- findings ---


def difference(value: float, low: float, high: float, versus: str) -> Measurement:
    return Measurement("heldout", f"versus:{versus}", "accuracy_difference", value, low, high, 9)


def test_findings_say_who_is_ahead() -> None:
    found = list(
        findings(
            {
                "btl": [accuracy("test", 0.6)],
                "copl": [
                    accuracy("test", 0.8),
                    difference(0.1, 0.05, 0.15, "btl"),
                    difference(-0.1, -0.15, -0.05, "oracle"),
                    difference(0.01, -0.05, 0.05, "graph"),
                ],
            }
        )
    )
    assert found == [
        "On unseen users, copl is ahead of btl by 10.0 points (+5.0 to +15.0), behind oracle by 10.0 points "
        "(-15.0 to -5.0), not to be told apart from graph (-5.0 to +5.0).",
    ]


def test_differences_that_say_nothing_are_not_told() -> None:
    own = AVERAGE_USER
    measured = {
        "btl": [accuracy("heldout", 0.6), difference(0.0, 0.0, 0.0, own)],
        "graph": [
            Measurement("heldout", "all", "accuracy", 0.5, 0.5, 0.5, 400),
            difference(0.0, 0.0, 0.0, own),
            difference(-0.1, -0.2, -0.05, "btl"),
        ],
        "copl": [accuracy("heldout", 0.8), difference(0.1, 0.05, 0.15, own), difference(0.0, 0.0, 0.0, "btl")],
    }
    assert list(findings(measured)) == [
        "On unseen users, copl is ahead of its own average user by 10.0 points (+5.0 to +15.0), not to be told apart "
        "from btl (+0.0 to +0.0)."
    ]
    rendered = render_report(ReportInputs(measurements=measured))
    assert "<td>its own average user</td>" in rendered
    assert rendered.count("<td>btl</td>") == 1
