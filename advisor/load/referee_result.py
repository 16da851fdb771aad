"""What TensorRT-LLM's `benchmark_serving` reports, as JSON or on the console, and whether it counts.

Source: `tensorrt_llm/serve/scripts/benchmark_serving.py`. Older releases lack some keys and rows; none is relied on
but `completed`. Percentile keys follow the command line, and goodput's key is literally `request_goodput:`; neither is
read.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from advisor.domain.strict import StrictModel
from advisor.domain.workload import Workload

FIGURES = ("output_tok_per_s", "ttft_ms_mean", "tpot_ms_mean")
INPUT_DRIFT = 0.01  # of all prompt tokens: a start token per prompt is none, text tokenised again is
CONSOLE_HEADER = "Serving Benchmark Result"

_CONSOLE_ROWS = {
    "n_requests": "Total requests:",
    "completed": "Successful requests:",
    "input_tokens": "Total input tokens:",
    "output_tokens": "Total generated tokens:",
    "output_tok_per_s": "Output token throughput (tok/s):",
    "ttft_ms_mean": "Mean TTFT (ms):",
    "tpot_ms_mean": "Mean TPOT (ms):",
}
_JSON_KEYS = {
    "n_requests": "num_prompts",
    "completed": "completed",
    "input_tokens": "total_input_tokens",
    "output_tokens": "total_output_tokens",
    "output_tok_per_s": "output_throughput",
    "ttft_ms_mean": "mean_ttft_ms",
    "tpot_ms_mean": "mean_tpot_ms",
}


class Asked(StrictModel):
    """What the script was to send: requests, and the least and most tokens of all of them together."""

    n_requests: int
    input_tokens: tuple[int, int]
    output_tokens: tuple[int, int]

    @classmethod
    def of(cls, workload: Workload) -> Asked:
        """A workload's own numbers; the script may draw mean lengths for a range, which lie within it."""
        n = workload.requests()
        return cls(
            n_requests=n,
            input_tokens=(n * (workload.isl_min or workload.isl), n * workload.isl),
            output_tokens=(n * (workload.osl_min or workload.osl), n * workload.osl),
        )


class Figures(StrictModel):
    """Numbers of one report; None where it does not have them."""

    n_requests: int | None = None
    completed: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    output_tok_per_s: float | None = None
    ttft_ms_mean: float | None = None
    tpot_ms_mean: float | None = None


def figures_of(result: str | None, output: str) -> tuple[Figures, tuple[str, ...]]:
    """The figures of the result file, else of the console; and why neither can be read, if so."""
    document = _document(result)
    if document is not None:
        return _figures({name: document.get(key) for name, key in _JSON_KEYS.items()}), ()
    _, header, block = output.rpartition(CONSOLE_HEADER)
    if header:
        return _figures({name: _row(block, label) for name, label in _CONSOLE_ROWS.items()}), ()
    return Figures(), ("it wrote no result file" if result is None else "its result file is not a JSON object",)


def _document(result: str | None) -> dict[str, Any] | None:
    try:
        document = json.loads(result or "")
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _row(block: str, label: str) -> float | None:
    found = re.search(rf"^{re.escape(label)}\s+(\S+)\s*$", block, re.MULTILINE)
    try:
        return float(found[1]) if found else None
    except ValueError:
        return None


def _figures(values: dict[str, Any]) -> Figures:
    """Finite numbers only; counts are whole."""
    kept: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            continue
        kept[name] = float(value) if name in FIGURES else int(value)
    return Figures(**kept)


def problems_of(figures: Figures, asked: Asked, output: str) -> tuple[str, ...]:
    """Why the figures do not count; empty when they do."""
    problems = []
    if "Initial test run failed" in output:
        problems.append("its first test request failed")
    if figures.completed is None:
        return (*problems, "it does not say how many requests completed")
    if figures.n_requests not in (None, asked.n_requests):
        problems.append(f"it sent {figures.n_requests} requests where {asked.n_requests} were asked for")
    if figures.completed != asked.n_requests:
        problems.append(f"{figures.completed} of {asked.n_requests} requests completed")
    problems += _outside("output tokens came back", figures.output_tokens, asked.output_tokens, 0.0)
    problems += _outside("prompt tokens were sent", figures.input_tokens, asked.input_tokens, INPUT_DRIFT)
    # Upstream writes zero where it has no value to average; TPOT has none when every output is one token.
    one_token = asked.output_tokens[1] == asked.n_requests
    problems += [
        f"its {name} is zero"
        for name in FIGURES
        if getattr(figures, name) == 0.0 and not (one_token and name == "tpot_ms_mean")
    ]
    return tuple(problems)


def _outside(what: str, total: int | None, expected: tuple[int, int], tolerance: float) -> list[str]:
    low, high = expected
    if total is None:
        return [f"it does not say how many {what}"]
    if low * (1 - tolerance) <= total <= high * (1 + tolerance):
        return []
    due = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    return [f"{total:,} {what}, {due} were due"]
