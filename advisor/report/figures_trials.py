"""Figures over trials: the trade-off, the course, latencies, the time line, and workloads side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from advisor.report.charts_data import Chart, short_text
from advisor.report.plotly_parts import COLOURS, Row, Trace, layout, line, plain

DASHES = ("solid", "dash", "dot", "dashdot")
HOLLOW = "-open"


def marks(name: str, rows: Sequence[Row], x: str, y: str, colour: str, shape: str, swatch: str) -> Trace:
    """Marks of some rows, each with all about it; empty where there are no rows."""
    return {
        "type": "scatter",
        "mode": "markers",
        "name": plain(name),
        "x": [row[x] for row in rows],
        "y": [row[y] for row in rows],
        "text": [tooltip(row) for row in rows],
        "customdata": [row["number"] for row in rows],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {"symbol": shape, "color": colour, "size": 10, "line": {"width": 1.6, "color": colour}},
        "meta": {"swatch": swatch},
    }


def tooltip(row: Row) -> str:
    """A trial in a few lines."""
    parts = [f"#{row['number']} {row.get('role', '')}: {row.get('ending') or row.get('outcome', '')}"]
    if row.get("output_tok_per_s_per_gpu") is not None:
        where = " (predicted place)" if row.get("place") == "predicted" else ""
        parts.append(
            f"{row['output_tok_per_s_per_gpu']:,.0f} tok/s per GPU, "
            f"{row['output_tok_per_s_per_user']:,.1f} tok/s per user{where}"
        )
    if row.get("ttft_p99_ms") is not None:
        parts.append(f"TTFT p99 {row['ttft_p99_ms']:,.0f} ms")
    if row.get("short_gib") is not None:
        parts.append(f"{short_text(row['short_gib'])} short")
    if row.get("keeps_limits") is False and row.get("outcome") in _WHOLE:
        parts.append("breaks a limit")
    parts.append(str(row.get("configuration", "")))
    return "<br>".join(map(plain, filter(None, parts)))


_WHOLE = ("measured", "simulated")


def _has_result(row: Row) -> bool:
    return row["outcome"] in (*_WHOLE, "hopeless")


ROLES = (
    ("circle", "●", "searched"),
    ("square", "■", "baseline launch"),
    ("diamond", "◆", "confirmation"),
    ("cross", "✚", "launch for verify"),
)
_SHAPE_OF_ROLE = {"baseline": ROLES[1], "confirmation": ROLES[2], "reference": ROLES[3]}
_FALLEN = (  # outcomes -> (colour, shape, swatch, words)
    (("out_of_memory",), "out_of_memory", "x", "✕", "out of memory"),
    (("rejected",), "other", "line-ns-open", "|", "rejected before launch"),
    (("hopeless",), "other", "triangle-left-open", "◁", "stopped early"),
    (("started",), "other", "star-open", "☆", "memory-only probe"),
    (
        ("unhealthy", "bad_config", "timed_out", "crashed", "infrastructure"),
        "failed",
        "triangle-down",
        "▼",
        "failed otherwise",
    ),
)


def groups_of_marks(rows: Sequence[Row], x: str, y: str, *, note: str = "") -> list[Trace]:
    """Traces of trials with a result: colour by configuration, shape by role, hollow where a limit is broken."""
    found = []
    for group, words in (("other", "other"), ("baseline", "baseline"), ("best", "best")):
        for role in ROLES:
            for kept in (True, False):
                own = [
                    row
                    for row in rows
                    if row["group"] == group
                    and _SHAPE_OF_ROLE.get(row["role"], ROLES[0]) == role
                    and bool(row["keeps_limits"]) == kept
                ]
                if own:
                    name = f"{words}, {role[2]}{'' if kept else ', breaks a limit'}{note}"
                    shape = role[0] + ("" if kept else HOLLOW)
                    found.append(marks(name, own, x, y, COLOURS[group], shape, role[1]))
    return found


def fallen(rows: Sequence[Row], x: str, y: str, note: str = "") -> list[Trace]:
    """Traces of trials without a result, by how they ended."""
    found = []
    for kinds, colour, shape, swatch, words in _FALLEN:
        own = [row for row in rows if row["outcome"] in kinds]
        if own:
            trace = marks(f"{words}{note}", own, x, y, COLOURS[colour], shape, swatch)
            found.append({**trace, "cliponaxis": False})
    return found


def pareto(chart: Chart) -> dict[str, Any]:
    """Output per GPU against speed per user; a stair along the front."""
    x, y = "output_tok_per_s_per_user", "output_tok_per_s_per_gpu"
    rows = [row for row in chart.records() if row[x] is not None]
    with_result = [row for row in rows if row["place"] != "predicted" and _has_result(row)]
    front = sorted((row[x], row[y]) for row in rows if row["on_front"])
    stair = [
        line(
            "Pareto front of single runs",
            [each[0] for each in front],
            [each[1] for each in front],
            COLOURS["best"],
            line={"shape": "vh", "width": 1.6},
        )
    ]
    data = [
        *(stair if len(front) > 1 else []),
        *groups_of_marks(with_result, x, y),
        *fallen([row for row in rows if row["place"] == "predicted"], x, y, ", predicted place"),
        *fallen([row for row in rows if row["place"] != "predicted" and row not in with_result], x, y),
    ]
    return {"data": data, "layout": layout(chart, "output tok/s per user", "output tok/s per GPU")}


def course(chart: Chart) -> dict[str, Any]:
    """The objective by trial; what did not serve stands on the axis."""
    rows = chart.records()
    valued = [row for row in rows if row["value"] is not None]
    lost = [{**row, "floor": 0} for row in rows if row["value"] is None]
    numbers = [row["number"] for row in rows]
    data = [
        line(
            "best single run so far",
            numbers,
            [row["best_so_far"] for row in rows],
            COLOURS["best"],
            line={"shape": "hv", "width": 1.6},
        ),
        *groups_of_marks(valued, "number", "value"),
        *fallen(lost, "number", "floor"),
    ]
    level = chart.facts.get("baseline_value")
    if level is not None and numbers:
        ends = [numbers[0], numbers[-1]]
        data.insert(1, line("baseline, mean", ends, [level, level], COLOURS["baseline"], line={"dash": "dash"}))
    axes = layout(chart, "trial", str(chart.facts["objective"]), height=360)
    return {"data": data, "layout": {**axes, "yaxis": {**axes["yaxis"], "rangemode": "tozero"}}}


LATENCY_TITLES = {"ttft": "TTFT", "tpot": "TPOT", "itl": "ITL"}


def latency(chart: Chart) -> dict[str, Any]:
    """Three panels of cumulative shares, one line a contender."""
    rows = chart.records()
    contenders = list(dict.fromkeys(row["contender"] for row in rows))
    colours = _contender_colours(contenders)
    axes = layout(chart, "", "% of requests", grid={"rows": 1, "columns": 3, "pattern": "independent"}, height=340)
    shapes, data = [], []
    for place, name in enumerate(("ttft", "tpot", "itl"), start=1):
        suffix = "" if place == 1 else str(place)
        axes[f"xaxis{suffix}"] = {"title": {"text": f"{LATENCY_TITLES[name]}, ms"}, "rangemode": "tozero"}
        axes[f"yaxis{suffix}"] = {
            "range": [0, 101],
            "title": {"text": ("% of requests", "", "% of gaps")[place - 1]},
        }
        for number, contender in enumerate(contenders):
            own = [row for row in rows if row["latency"] == name and row["contender"] == contender]
            if own:
                data.append(
                    line(
                        contender,
                        [row["ms"] for row in own],
                        [row["percent"] for row in own],
                        colours[contender],
                        line={"dash": DASHES[number % len(DASHES)]},
                        mode="lines" if len(own) > 10 else "lines+markers",
                        hoverinfo="x+y+name",
                        xaxis=f"x{suffix}",
                        yaxis=f"y{suffix}",
                        legendgroup=plain(contender),
                        showlegend=place == 1,
                    )
                )
        for key, limit in chart.facts.items():
            if key.startswith(f"{name}:") and limit is not None:
                shapes.append(_limit_line(limit, suffix))
    return {"data": data, "layout": {**axes, "shapes": shapes}}


def _limit_line(limit_ms: Any, suffix: str) -> dict[str, Any]:
    line_style = {"color": COLOURS["out_of_memory"], "dash": "dash", "width": 1.4}
    return {
        "type": "line",
        "xref": f"x{suffix}",
        "yref": f"y{suffix} domain",
        "x0": limit_ms,
        "x1": limit_ms,
        "y0": 0,
        "y1": 1,
        "line": line_style,
    }


def _contender_colours(names: Sequence[str]) -> dict[str, str]:
    """The best in its colour, the runner-up in another one, whoever is left is the baseline."""
    return {
        name: COLOURS["best" if name.startswith("best") else "good" if name == "runner-up" else "baseline"]
        for name in names
    }


SPENT = (
    ("start-up", COLOURS["other"], "start-up: load, profile, capture, warm up"),
    ("load", COLOURS["best"], "load: benchmarks"),
    ("lost", COLOURS["out_of_memory"], "lost: ended without a result"),
)


def timeline(chart: Chart) -> dict[str, Any]:
    """A lane a trial, from the first start to the last stop."""
    rows = chart.records()
    data: list[Trace] = []
    for kind, colour, words in SPENT:
        own = [row for row in rows if row["spent_on"] == kind]
        if own:
            data.append(
                {
                    "type": "bar",
                    "orientation": "h",
                    "name": words,
                    "y": [row["number"] for row in own],
                    "x": [row["duration_s"] for row in own],
                    "base": [row["start_s"] for row in own],
                    "customdata": [row["number"] for row in own],
                    "text": [plain(f"#{row['number']} {row['role']}: {row['ending']}; {row['phases']}") for row in own],
                    "textposition": "none",
                    "hovertemplate": "%{text}<extra></extra>",
                    "marker": {"color": colour},
                    "meta": {"swatch": "■"},
                }
            )
    n = len({row["number"] for row in rows})
    axes = layout(chart, "server time, s", "trial", height=min(900, 160 + 22 * n), barmode="overlay", bargap=0.2)
    return {"data": data, "layout": {**axes, "yaxis": {**axes["yaxis"], "autorange": "reversed"}}}


_WORKLOAD_COLOURS = {
    "baseline": COLOURS["baseline"],
    "best of the workload": COLOURS["best"],
    "one for all": COLOURS["good"],
}


def workloads(chart: Chart) -> dict[str, Any]:
    """Bars of gain on the baseline, a group a workload."""
    rows = chart.records()
    data = []
    for name in dict.fromkeys(row["configuration"] for row in rows):
        own = [row for row in rows if row["configuration"] == name]
        data.append(
            {
                "type": "bar",
                "name": plain(name),
                "x": [plain(row["workload"]) for row in own],
                "y": [row["gain_percent"] for row in own],
                "text": [f"{row['value']:,.4g}" for row in own],
                "hovertemplate": "%{x}, " + plain(name) + ": %{y:+.1f} %, %{text}<extra></extra>",
                "textposition": "outside",
                "cliponaxis": False,
                "marker": {"color": _WORKLOAD_COLOURS.get(name, COLOURS["other"])},
                "meta": {"swatch": "■"},
            }
        )
    axes = layout(chart, "", "gain on the baseline, %", barmode="group", height=360)
    return {"data": data, "layout": {**axes, "xaxis": {"type": "category"}}}
