"""What all figures share: the dictionaries of Plotly, the colours of the page, and texts that stay texts.

Texts are escaped, since Plotly reads them as markup.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from advisor.report.charts_data import Chart
from advisor.report.visible import visible

Trace = dict[str, Any]
Row = Mapping[str, Any]

# Each has a contrast of at least 3 on white and on the dark page.
COLOURS = {
    "best": "#2f7de1",
    "baseline": "#d06a12",
    "other": "#848d9a",
    "out_of_memory": "#e0424f",
    "failed": "#9a5fd0",
    "good": "#2a9361",
}
FONT = 'system-ui,"Segoe UI",Roboto,Helvetica,Arial,sans-serif'


@dataclass(frozen=True)
class Figure:
    """One place for a chart on the page.

    Attributes:
        name: Of the family.
        title: Above it.
        variants: By label, what can be chosen: `data` and `layout` of Plotly, and `about` in words.
        choice: What is chosen between; empty where there is one variant only.
    """

    name: str
    title: str
    variants: dict[str, dict[str, Any]]
    choice: str = ""


def theme(ink: str, soft: str, rule: str, page: str) -> dict[str, Any]:
    """A Plotly template in the colours of the page."""
    axis = {
        "gridcolor": rule,
        "linecolor": soft,
        "zerolinecolor": rule,
        "tickcolor": soft,
        "tickfont": {"color": soft},
        "title": {"font": {"size": 13}, "standoff": 12},
        "automargin": True,
    }
    return {
        "layout": {
            "font": {"family": FONT, "size": 13, "color": ink},
            "paper_bgcolor": page,
            "plot_bgcolor": page,
            "xaxis": axis,
            "yaxis": axis,
            "hoverlabel": {"bgcolor": page, "bordercolor": soft, "font": {"color": ink}, "align": "left"},
            "legend": {"orientation": "h", "y": -0.2, "font": {"size": 12}},
            "colorway": [COLOURS["best"], COLOURS["baseline"], COLOURS["good"], COLOURS["failed"]],
        }
    }


THEMES = {
    "light": theme("#1a1d21", "#575e68", "#d9dde3", "#ffffff"),
    "dark": theme("#e9ebee", "#a6adb8", "#383e47", "#14171b"),
}


def plain(text: object) -> str:
    """Any text as Plotly shows it unchanged: its pseudo-HTML escaped, nothing invisible."""
    return html.escape(visible(str(text)), quote=False)


def one(chart: Chart, variant: dict[str, Any]) -> Figure:
    """A figure without a choice."""
    return Figure(chart.family, chart.title, {chart.label: {**variant, "about": chart.about}})


def layout(chart: Chart, x: str, y: str, **more: Any) -> dict[str, Any]:
    """What all figures share: titles of the axes, and what the numbers are, in the picture itself."""
    stamp = {
        "text": chart.source.upper(),
        "xref": "paper",
        "yref": "paper",
        "x": 1,
        "y": 1,
        "xanchor": "right",
        "yanchor": "bottom",
        "showarrow": False,
        "font": {"size": 11},
    }
    base = {
        "height": 420,
        "margin": {"l": 64, "r": 16, "t": 24, "b": 52},
        "hovermode": "closest",
        "xaxis": {"title": {"text": plain(x)}},
        "yaxis": {"title": {"text": plain(y)}},
        "annotations": [stamp],
    }
    return {**base, **more, "annotations": [stamp, *more.get("annotations", ())]}


def line(name: str, x: Sequence[Any], y: Sequence[Any], colour: str, **more: Any) -> Trace:
    """A line with a name."""
    style = {"color": colour, "width": 2, **more.pop("line", {})}
    return {
        "type": "scatter",
        "mode": "lines",
        "name": plain(name),
        "x": list(x),
        "y": list(y),
        "line": style,
        "hoverinfo": "skip",
        "meta": {"swatch": "┄" if "dash" in style and style["dash"] != "solid" else "—"},
        **more,
    }
