"""Figures of GiB: the waterfall of a trial, the map of P(fits), the worth of each setting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from advisor.report.charts_data import Chart, short_text
from advisor.report.charts_memory import COMPONENTS
from advisor.report.console import value_text
from advisor.report.plotly_parts import COLOURS, Figure, Row, Trace, layout, plain

# Bad to good without red against green: those who cannot tell them apart still see dark against light.
P_FITS_SCALE = [[0.0, "#8c2d04"], [0.25, "#d9742b"], [0.5, "#f5e9d0"], [0.75, "#7fb3d5"], [1.0, "#08519c"]]


def memory_figure(chart: Chart) -> Figure:
    """One waterfall a trial, chosen by its number; predicted beside what the launch showed."""
    by_trial: dict[int, list[dict[str, Any]]] = {}
    for row in chart.records():
        by_trial.setdefault(row["number"], []).append(row)
    order = sorted(by_trial, key=lambda number: (_rank_of_group(by_trial[number][0]["group"]), number))
    variants = {_trial_label(by_trial[number][0]): _waterfall(chart, by_trial[number]) for number in order}
    return Figure(chart.family, chart.title, variants, choice="Trial")


def _rank_of_group(group: str) -> int:
    return {"best": 0, "baseline": 1}.get(group, 2)


def _trial_label(row: Row) -> str:
    group = "" if row["group"] == "other" else f" {row['group']},"
    short = "" if row["short_gib"] is None else f", {short_text(row['short_gib'])} short"
    return f"#{row['number']}{group} {row['role']}, {row['outcome'].replace('_', ' ')}{short}"


def _waterfall(chart: Chart, rows: Sequence[Row]) -> dict[str, Any]:
    data = [_steps(row) for row in rows]
    capacity = max(row["capacity_gib"] for row in rows)
    line = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": capacity, "y1": capacity}
    level = {**line, "line": {"color": COLOURS["out_of_memory"], "width": 1.6, "dash": "dash"}}
    named = {
        "text": f"GPU has {capacity:,.1f} GiB",
        "xref": "paper",
        "x": 0,
        "y": capacity,
        "xanchor": "left",
        "yanchor": "bottom",
        "showarrow": False,
        "font": {"size": 11},
    }
    axes = layout(chart, "", "GiB of one GPU, the fullest", annotations=[named], waterfallgap=0.25, height=400)
    said = "; ".join(f"{row['said_by']}: {_said(row)}" for row in rows)
    shaped = {**axes, "shapes": [level], "xaxis": {"type": "category"}}
    return {"data": data, "layout": shaped, "about": f"{rows[0]['configuration']}. In GiB, {said}."}


def _steps(row: Row) -> Trace:
    """Components that add up to what is in use; what is left over, or missing, hangs from there to the capacity."""
    parts = [(title, row[f"{key}_gib"]) for key, title in COMPONENTS if row[f"{key}_gib"] is not None]
    names = [*(title for title, _ in parts), "in use", "left free"]
    values = [*(size for _, size in parts), row["used_gib"], row["left_free_gib"]]
    predicted = row["said_by"] == "predicted"
    colour = COLOURS["other"] if predicted else COLOURS["best"]
    free = COLOURS["good"] if row["left_free_gib"] >= 0 else COLOURS["out_of_memory"]
    return {
        "type": "waterfall",
        "name": row["said_by"],
        "x": names,
        "y": values,
        "measure": ["relative"] * len(parts) + ["total", "relative"],
        "text": [f"{value:,.1f}" for value in values],
        "textposition": "outside",
        "cliponaxis": False,
        "hovertemplate": "%{x}: %{text} GiB, " + row["said_by"] + "<extra></extra>",
        "increasing": {"marker": {"color": colour}},
        "totals": {"marker": {"color": colour}},
        "decreasing": {"marker": {"color": free}},
        "connector": {"line": {"width": 0.6, "color": COLOURS["other"]}},
        "opacity": 0.75 if predicted else 1.0,
        "offsetgroup": "predicted" if predicted else "shown",
        "meta": {"swatch": "■", "colour": colour},
    }


def _said(row: Row) -> str:
    parts = [(title, row[f"{key}_gib"]) for key, title in (*COMPONENTS, ("left_free", "left free"))]
    return ", ".join(f"{title} {size:,.1f}" for title, size in parts if size is not None)


def frontier_figure(charts: Sequence[Chart]) -> Figure:
    """One map a pair of settings."""
    variants = {chart.label: {**_map(chart), "about": chart.about} for chart in charts}
    return Figure(charts[0].family, charts[0].title, variants, choice="Settings")


def _map(chart: Chart) -> dict[str, Any]:
    rows = chart.records()
    cells = [row for row in rows if row["row"] == "map"]
    launches = [row for row in rows if row["row"] != "map"]
    x_steps, y_steps = (list(dict.fromkeys(row[axis] for row in cells)) for axis in ("x", "y"))
    at = {(row["x"], row["y"]): row for row in cells}
    columns, lines = ({value: place for place, value in enumerate(steps)} for steps in (x_steps, y_steps))
    grid = [[at[right, up] for right in x_steps] for up in y_steps]
    heat = {
        "type": "heatmap",
        "name": "P(fits)",
        "x": list(range(len(x_steps))),
        "y": list(range(len(y_steps))),
        "z": [[cell["p_fits"] for cell in line] for line in grid],
        "text": [[_cell_text(chart, cell) for cell in line] for line in grid],
        "hovertemplate": "%{text}<extra></extra>",
        "zmin": 0,
        "zmax": 1,
        "colorscale": P_FITS_SCALE,
        "colorbar": {"title": {"text": "P(fits)", "font": {"size": 13}}, "thickness": 12},
        "showlegend": False,
        "xgap": 1,
        "ygap": 1,
    }
    axes = layout(chart, str(chart.facts["x_setting"]), str(chart.facts["y_setting"]))
    ticks = {
        axis: {**axes[axis], "tickvals": list(range(len(steps))), "ticktext": [value_text(step) for step in steps]}
        for axis, steps in (("xaxis", x_steps), ("yaxis", y_steps))
    }
    placed = [{**row, "column": columns[row["x"]], "line": lines[row["y"]]} for row in launches]
    return {"data": [heat, *_launches(placed)], "layout": {**axes, **ticks}}


def _cell_text(chart: Chart, cell: Row) -> str:
    facts = chart.facts
    where = f"{facts['x_setting']} {value_text(cell['x'])}, {facts['y_setting']} {value_text(cell['y'])}"
    return plain(
        f"{where}: P(fits) {cell['p_fits']:.2f}, margin {cell['margin_gib']:+.2f} +- {cell['margin_sd_gib']:.2f} GiB"
    )


_FITTED = "#101418"
_KINDS = (  # (outcomes, colour, shape, swatch, words)
    (("out_of_memory",), COLOURS["out_of_memory"], "x", "✕", "ran out of memory"),
    (("rejected",), COLOURS["other"], "triangle-up", "▲", "rejected before launch"),
    (("measured", "simulated", "hopeless", "started"), _FITTED, "circle", "●", "fitted"),
    (
        ("unhealthy", "bad_config", "timed_out", "crashed", "infrastructure"),
        COLOURS["failed"],
        "triangle-down",
        "▼",
        "ended otherwise",
    ),
)


def _launches(rows: Sequence[Row]) -> list[Trace]:
    """Launches on the map, by what became of them; small where other settings differ too."""
    found = []
    for outcomes, colour, shape, swatch, words in _KINDS:
        for same, size_px, more in ((False, 8, ", other settings differ"), (True, 14, "")):
            own = [row for row in rows if row["outcome"] in outcomes and row["same_otherwise"] is same]
            if own:
                marker = {"symbol": shape, "size": size_px, "color": colour, "line": {"width": 1.6, "color": "#ffffff"}}
                found.append(_launch_marks(f"{words}{more}", own, marker, swatch))
    return found


def _launch_marks(name: str, rows: Sequence[Row], marker: Trace, swatch: str) -> Trace:
    texts = [
        f"#{row['number']} {row['outcome'].replace('_', ' ')}"
        + ("" if row["short_gib"] is None else f", {short_text(row['short_gib'])} short")
        for row in rows
    ]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [row["column"] for row in rows],
        "y": [row["line"] for row in rows],
        "text": list(map(plain, texts)),
        "customdata": [row["number"] for row in rows],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": marker,
        "meta": {"swatch": swatch, "colour": COLOURS["other"] if marker["color"] == _FITTED else marker["color"]},
    }


def worth_figure(chart: Chart) -> dict[str, Any]:
    """Two panels: tok/s per GPU, and GiB of the KV pool and beside it."""
    rows = chart.records()
    names = [plain(f"{row['setting']}: {row['before']} to {row['after']}") for row in rows]
    panels = (
        ("tok_per_s_per_gpu", "output tok/s per GPU", COLOURS["best"], "", "+,.0f"),
        ("kv_pool_gib", "GiB of the KV pool", COLOURS["good"], "2", "+,.2f"),
        ("beside_pool_gib", "GiB beside it", COLOURS["baseline"], "2", "+,.2f"),
    )
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "name": title,
            "y": names,
            "x": [row[column] for row in rows],
            "text": [format(row[column], shown) for row in rows],
            "textposition": "auto",
            "hovertemplate": "%{y}: %{text} " + title + "<extra></extra>",
            "marker": {"color": colour},
            "xaxis": f"x{axis}",
            "meta": {"swatch": "■"},
        }
        for column, title, colour, axis, shown in panels
    ]
    axes = layout(chart, "output tok/s per GPU", "", barmode="group", height=150 + 62 * len(rows))
    speed, gib = (
        [row[column] for column, _, _, axis, _ in panels if axis == side for row in rows] for side in ("", "2")
    )
    sides = {
        "xaxis": {**axes["xaxis"], "domain": [0, 0.46], "range": _with_room(speed)},
        "yaxis": {"autorange": "reversed", "automargin": True},
    }
    other = {"title": {"text": "GiB of one GPU"}, "domain": [0.54, 1], "anchor": "y", "range": _with_room(gib)}
    return {"data": data, "layout": {**axes, **sides, "xaxis2": other}}


def _with_room(values: Sequence[float]) -> list[float]:
    """A range from 0 to both ends of the bars, with room for the text beside a short one."""
    low, high = min(0.0, *values), max(0.0, *values)
    room = 0.2 * (high - low or 1.0)
    return [low - room * (low < 0), high + room * (high > 0 or low == 0)]
