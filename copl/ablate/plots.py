"""Bars of accuracy with their intervals, one picture a split, as SVG."""

from __future__ import annotations

import io
import re
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from copl.ablate.tables import SplitTable
from copl.evaluate.plots import PALETTE, glyphs_of_the_page, label, whiskers

_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "copl",
    "font.family": "sans-serif",
    "font.size": 11,
    "text.parse_math": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#d5dae1",
    "legend.frameon": False,
}
_MARGIN = 0.02


def accuracy_bars(shown: SplitTable) -> str:
    """Return a picture of a split's table: a group of bars for each data set, a bar for each variant.

    The axis does not begin at zero but below the lowest interval, so that differences can be seen. The same table gives
    the same text.
    """
    width = max(5.0, 1.2 + 0.28 * len(shown.columns) * (len(shown.rows) + 1))
    with mpl.rc_context(_STYLE), glyphs_of_the_page():
        figure = Figure(figsize=(min(width, 16.0), 3.6), layout="constrained")
        FigureCanvasSVG(figure)
        ax = figure.subplots()
        share = 0.8 / max(len(shown.rows), 1)
        lows = [0.5]
        for number, (name, entries) in enumerate(shown.rows.items()):
            present = [(column, entry) for column, entry in enumerate(entries) if entry is not None]
            values = np.array([entry.value for _, entry in present])
            lows_here, highs_here = [entry.low for _, entry in present], [entry.high for _, entry in present]
            ax.bar(
                [column - 0.4 + (number + 0.5) * share for column, _ in present],
                values,
                share * 0.92,
                yerr=whiskers(values, lows_here, highs_here) if present else None,
                label=label(name),
                color=PALETTE[number % len(PALETTE)],
                hatch=("", "//", "..", "xx")[number // len(PALETTE) % 4],
                edgecolor="white",
                linewidth=0,
                error_kw={"elinewidth": 1.0, "capsize": 2.0},
            )
            lows += lows_here
        ax.set_ylim(bottom=max(0.0, min(lows) - _MARGIN))
        ax.set_xticks(range(len(shown.columns)), [label(column) for column in shown.columns])
        ax.set_ylabel("accuracy")
        ax.set_title(label(shown.title), loc="left", fontsize=11, fontweight="bold")
        figure.legend(loc="outside right upper", fontsize=9)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
        figure.clear()
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL).strip()
    # several pictures share one page: their ids must not meet
    name = re.sub(r"\W", "-", shown.split)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', text)
    return re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
