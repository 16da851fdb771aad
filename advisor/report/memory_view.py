"""Where the memory of one GPU goes: stacked bars, and the same numbers as a table."""

from __future__ import annotations

from collections.abc import Sequence

from advisor.app.results import Result, ResultEntry
from advisor.domain.measurement import MemoryReport
from advisor.report import svg
from advisor.report.markup import Html, join, table, tag
from advisor.report.svg import Frame

COMPONENTS = (
    ("weights", "weights"),
    ("activations", "activations"),
    ("cuda_graphs", "CUDA graphs"),
    ("other", "runtime, NCCL, buffers"),
    ("kv_pool", "KV pool"),
    ("headroom", "left free"),
)


def memory_chart(result: Result, bars: Sequence[tuple[str, MemoryReport]]) -> Html:
    """GiB of the fullest GPU by component, one bar a configuration, against the GPU's capacity."""
    bar_px, step_px, top = 34.0, 52.0, 26.0
    frame = Frame(1130, top + step_px * len(bars) + 26, 120, 120, top, 30)
    x = frame.x(0, max(max(report.capacity, report.used) for _, report in bars))
    parts: list[Html] = [
        svg.text(x.start, 13, "GiB of one GPU, the fullest", "axis-title"),
    ]
    for number, (name, report) in enumerate(bars):
        at, from_gib = top + step_px * number, 0.0
        parts.append(svg.text(x.start - 10, at + 22, name, "label", "end"))
        for key, title in COMPONENTS:
            size_gib = max(0.0, getattr(report, key) or 0.0)
            left, width = x(from_gib), x(from_gib + size_gib) - x(from_gib)
            parts.append(svg.box(left, at, width, bar_px, f"part {key}", f"{name}, {title}: {size_gib:.2f} GiB"))
            words = f"{title} {size_gib:.1f} GiB"
            short = words if svg.CHARACTER_PX * len(words) < width - 8 else f"{size_gib:.1f} GiB"
            if key != "headroom" and svg.CHARACTER_PX * len(short) < width - 6:
                parts.append(svg.text(left + width / 2, at + 22, short, f"in-part {key}", "middle"))
            from_gib += size_gib
        end = x(report.capacity)
        parts.append(svg.line(end, at - 5, end, at + bar_px + 5, "capacity"))
        parts.append(svg.text(end + 9, at + 22, f"{report.headroom:.1f} GiB free", "label"))
    capacity = bars[0][1].capacity
    parts.append(svg.text(x(capacity), 13, f"GPU capacity {capacity:.1f} GiB ({result.source})", "axis-title", "end"))
    floor = frame.height - 24
    for value in svg.ticks(x.high, 8):
        parts.append(svg.text(x(value), floor + 14, f"{svg.tick_text(value)} GiB", "tick", "middle"))
    said = "; ".join(
        f"{name}: " + ", ".join(f"{title} {_said(report, key, 1, ' GiB')}" for key, title in COMPONENTS)
        for name, report in bars
    )
    return svg.picture(
        f"memory-{result.workload_name}",
        frame.width,
        frame.height,
        f"Memory by component, {result.source}",
        said + ".",
        *parts,
    )


def memory_table(result: Result, entries: Sequence[tuple[str, ResultEntry]]) -> Html:
    """GiB by component; the legend and the text alternative of the memory chart."""
    reports = [entry.memory_gib for _, entry in entries if entry.memory_gib is not None]
    rows = [[swatch(key, f"{title}, GiB"), *(_said(report, key, 2) for report in reports)] for key, title in COMPONENTS]
    rows.append(["GPU capacity, GiB", *(f"{report.capacity:.2f}" for report in reports)])
    caption = f"Memory of the fullest GPU by component, {result.source}."
    return table(caption, ["component", *(name for name, _ in entries)], rows)


def _said(report: MemoryReport, key: str, digits: int, unit: str = "") -> str:
    """A component's size; graphs that the engine does not tell apart stand in the next row."""
    size_gib = getattr(report, key)
    return "(below)" if size_gib is None else f"{size_gib:.{digits}f}{unit}"


def swatch(key: str, title: str) -> Html:
    """A component's name with its colour."""
    colour = tag("rect", width=12, height=12, class_=f"part {key}")
    symbol = tag("svg", colour, width=12, height=12, viewBox="0 0 12 12", aria_hidden="true", focusable="false")
    return join(symbol, " ", title)
