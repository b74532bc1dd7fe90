"""Plots of the report as inline SVG.

Text and axes take the colour of the page around them, so the plots follow a dark page. Every function closes its
figure, touches no global state of matplotlib, and returns the same text for the same input. matplotlib is imported
here and in `copl.ablate.plots` only; importing this module is slow.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, final

import matplotlib as mpl
import numpy as np
from attrs import frozen
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from copl.errors import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from copl.records import FloatArray, Measurement

PALETTE = ("#3b7dd8", "#e07b39", "#2f9e78", "#c2589f", "#a08a1f", "#7d6ad1", "#4aa3b5", "#d1495b", "#7a8794", "#8c6239")
"""Colours that keep apart on a light and on a dark page."""

_LONGEST_LABEL = 40
_MARKERS = "os^Dvp*PX<"
_INK = "#010203"  # stands for the colour of the page's text
_FAINT = "#040506"  # stands for the colour of the page's rules
_MANY_POINTS = 1500  # above, points are drawn as one embedded picture
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "copl",
    "font.family": "sans-serif",
    "font.size": 11,
    "text.parse_math": False,  # a name with dollars is a name
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _FAINT,
    "grid.linewidth": 0.6,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "lines.linewidth": 1.8,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


@final
@frozen
class Plot:
    """A picture for the report.

    Attributes:
        title: heading.
        svg: the SVG element.
        description: what it shows, in words, for those who cannot see it.
    """

    title: str
    svg: str
    description: str


def whiskers(values: FloatArray, lows: Sequence[float], highs: Sequence[float]) -> FloatArray:
    """Return how far intervals reach below and above their values [2, N]; 0 where a value lies beyond its interval."""
    return np.maximum([values - lows, highs - values], 0.0)


def label(name: str) -> str:
    """Return a name as a label: one line, not too long, and never empty or hidden, as matplotlib takes some to be."""
    text = one_line(name)
    text = text if len(text) <= _LONGEST_LABEL else f"{text[: _LONGEST_LABEL - 1]}…"
    return f" {text}" if text.startswith("_") else text or "(no name)"


@contextmanager
def glyphs_of_the_page() -> Iterator[None]:
    """Leave it to the page's fonts to have the characters of names; those of matplotlib only measure them."""
    with warnings.catch_warnings():
        for message in ("Glyph .* missing from", "constrained_layout not applied"):  # long names: drawn all the same
            warnings.filterwarnings("ignore", message=message, category=UserWarning)
        yield


@contextmanager
def _figure(width: float = 5.0, height: float = 3.3) -> Iterator[Figure]:
    with mpl.rc_context(_STYLE), glyphs_of_the_page():
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        yield figure
        figure.clear()


def _svg(figure: Figure, name: str, description: str) -> str:
    buffer = io.StringIO()
    figure.savefig(
        buffer, format="svg", dpi=130, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
    )
    text = buffer.getvalue()
    text = text[text.index("<svg") :].strip()
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # several plots share one page: their ids must not meet
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    text = text.replace(_INK, "currentColor").replace(_FAINT, "var(--rule, #c8ced6)")
    described = one_line(description).replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    head, rest = text.split(">", 1)
    head = re.sub(r'\b(width|height)="[^"]*"', "", head)
    return f'{head} role="img" aria-label="{described}">{rest}'


def training_curves(stage: str, panels: Mapping[str, Mapping[str, tuple[FloatArray, FloatArray]]], name: str) -> Plot:
    """Plot one panel a quantity, one line a series.

    Args:
        stage: the stage trained.
        panels: by quantity, by series, the steps and the values.
        name: prefix of the ids in the SVG, unique on the page.
    """
    with _figure(height=0.5 + 2.3 * len(panels)) as figure:
        axes = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
        parts = []
        for ax, (quantity, series) in zip(axes, panels.items(), strict=True):
            for number, (name_of_series, (steps, values)) in enumerate(series.items()):
                words = name_of_series.replace("_", " ")
                ax.plot(steps, values, color=PALETTE[number % len(PALETTE)], label=label(words))
                parts.append(f"{words} from {values[0]:.3g} to {values[-1]:.3g}")
            ax.set_title(label(quantity.replace("_", " ")))
            ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            _show_flat_as_flat(ax)
            if len(series) > 1:
                ax.legend()
        axes[-1].set_xlabel("step")
        description = f"Training of stage {stage}: {'; '.join(parts)}."
        return Plot(stage, _svg(figure, name, description), description)


def _show_flat_as_flat(ax: Axes) -> None:
    """Have the axis span a thousandth of what is shown at least, in plain figures: less than that is rounding."""
    low, high = ax.get_ylim()
    least = 1e-3 * max(abs(low), abs(high))
    if high - low < least:
        ax.set_ylim((low + high - least) / 2, (low + high + least) / 2)
    ax.ticklabel_format(axis="y", style="plain", useOffset=False)


def user_map(embeddings: FloatArray, groups: Sequence[str | None], name: str) -> Plot:
    """Plot the users on the first two principal components of their embeddings [U, D], coloured by group."""
    centred = np.asarray(embeddings, dtype=np.float64)
    centred = centred - centred.mean(axis=0)
    places = np.zeros((len(centred), 2))
    share = np.zeros(2)
    if len(centred) > 1 and np.any(centred):
        values, vectors = np.linalg.eigh(centred.T @ centred)
        top = vectors[:, ::-1][:, :2]
        top = top * np.where(top[np.abs(top).argmax(axis=0), np.arange(top.shape[1])] < 0, -1.0, 1.0)
        places[:, : top.shape[1]] = centred @ top
        share[: top.shape[1]] = values[::-1][:2] / values.clip(0).sum()
    names = sorted({group for group in groups if group is not None})
    with _figure(height=4.0) as figure:
        ax = figure.subplots()
        size = float(np.clip(600 / np.sqrt(len(places)), 6, 36))
        for number, group in enumerate([*names, None]):
            at = places[[g == group for g in groups]]
            if len(at):
                ax.scatter(
                    at[:, 0],
                    at[:, 1],
                    s=size,
                    color=PALETTE[number % len(PALETTE)] if group is not None or not names else "#8a929c",
                    marker=_MARKERS[number % len(_MARKERS)] if group is not None else "o",
                    alpha=0.7,
                    linewidths=0,
                    label=label(group) if group is not None else "group not known",
                    rasterized=len(places) > _MANY_POINTS,
                )
        ax.set_xlabel(f"first component ({share[0]:.0%} of the variance)")
        ax.set_ylabel(f"second component ({share[1]:.0%})")
        ax.set_aspect("equal", adjustable="datalim")
        if names:
            _legend_above(ax)
        legend = f"{len(names)} groups: {', '.join(names)}" if names else "groups not known"
        description = (
            f"Map of {len(places)} user embeddings on their first two principal components, which hold "
            f"{share.sum():.0%} of the variance; {legend}."
        )
        return Plot("Map of users", _svg(figure, name, description), description)


def gate_usage(usage: FloatArray, name: str) -> Plot:
    """Plot the mean gate weight of each expert [M] as bars."""
    with _figure(height=2.8) as figure:
        ax = figure.subplots()
        ax.bar(np.arange(1, len(usage) + 1), usage, color=PALETTE[0], width=0.7)
        ax.axhline(usage.sum() / max(len(usage), 1), color=_INK, linewidth=1, linestyle=(0, (4, 3)), label="even use")
        ax.set_xlabel("expert")
        ax.set_ylabel("mean gate weight")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.grid(False, axis="x")
        _legend_above(ax)
        parts = ", ".join(f"expert {number} {value:.2f}" for number, value in enumerate(usage, 1))
        description = f"Mean gate weight by expert: {parts}."
        return Plot("Gate usage by expert", _svg(figure, name, description), description)


def group_experts(groups: Sequence[str], weights: FloatArray, name: str) -> Plot:
    """Plot the mean gate weight [G, M] of each group of users and expert as a heat map."""
    num_groups, num_experts = weights.shape
    with _figure(height=1.3 + 0.42 * num_groups) as figure:
        ax = figure.subplots()
        colours = mpl.colors.LinearSegmentedColormap.from_list("usage", ["#3b7dd810", PALETTE[0]])
        ax.imshow(weights, aspect="auto", cmap=colours, vmin=0, vmax=max(float(weights.max()), 1e-9))
        ax.set_xticks(range(num_experts), [str(expert) for expert in range(1, num_experts + 1)])
        ax.set_yticks(range(num_groups), [label(group) for group in groups])
        ax.set_xlabel("expert")
        ax.grid(False)
        for spine in ax.spines.values():
            spine.set_visible(False)
        if num_experts <= 12:
            for row, column in np.ndindex(*weights.shape):
                text = f"{weights[row, column]:.2f}".removeprefix("0")
                ax.text(column, row, text, ha="center", va="center", fontsize=10)
        mains = "; ".join(
            f"{group} mostly expert {int(row.argmax()) + 1} ({row.max():.2f})"
            for group, row in zip(groups, weights, strict=True)
        )
        description = f"Mean gate weight by group and expert: {mains}."
        return Plot("Gate usage by group", _svg(figure, name, description), description)


def accuracy_by_comparisons(
    split: str,
    results: Mapping[str, Sequence[tuple[str, Measurement]]],
    reach: tuple[float, float],
    name: str,
) -> Plot:
    """Plot accuracy with intervals against the number of comparisons users gave, one line a method.

    Args:
        split: title of the split.
        results: by method, the label of each range of comparisons with its measurement, in order.
        reach: range of accuracies shown, the same for plots that are looked at together.
        name: prefix of the ids in the SVG, unique on the page.
    """
    labels: list[str] = sorted({count for points in results.values() for count, _ in points}, key=_first_number)
    with _figure() as figure:
        ax = figure.subplots()
        parts = []
        for number, (method, points) in enumerate(results.items()):
            at = np.array([labels.index(count) for count, _ in points]) + 0.08 * (number - (len(results) - 1) / 2)
            values = np.array([m.value for _, m in points])
            ax.errorbar(
                at,
                values,
                yerr=whiskers(values, [m.low for _, m in points], [m.high for _, m in points]),
                color=PALETTE[number % len(PALETTE)],
                marker=_MARKERS[number % len(_MARKERS)],
                markersize=5,
                elinewidth=1,
                capsize=2.5,
                label=label(method),
            )
            parts.append(f"{method} " + ", ".join(f"{m.value:.3f} at {count}" for count, m in points))
        ax.set_xticks(range(len(labels)), labels)
        ax.set_xlim(-0.5, len(labels) - 0.5)
        ax.set_ylim(*reach)
        ax.set_xlabel("comparisons the user has given")
        ax.set_ylabel("accuracy")
        if results:
            _legend_above(ax)
        description = f"Accuracy on {split} by the number of comparisons a user has given: {'; '.join(parts)}."
        return Plot(split, _svg(figure, name, description), description)


def _first_number(count: str) -> int:
    match = re.match(r"\d+", count)
    return int(match.group()) if match else 0


_LEGEND_CHARACTERS = 52
"""About as many fit beside each other in a figure of the usual width."""


def _legend_above(ax: Axes) -> None:
    labels = ax.get_legend_handles_labels()[1]
    longest = max(len(text) for text in labels) + 4  # room for the mark
    columns = min(len(labels), max(1, _LEGEND_CHARACTERS // longest))
    ax.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, borderaxespad=0.3, handletextpad=0.4, columnspacing=1.2
    )
