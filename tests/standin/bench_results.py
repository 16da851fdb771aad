"""What the stand-in benchmark makes of its samples: upstream's result document and console block, quirks included."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

_TITLES = {
    "ttft": ("TTFT", "Time to First Token"),
    "tpot": ("TPOT", "Time per Output Token (excl. 1st token)"),
    "itl": ("ITL", "Inter-token Latency"),
    "e2el": ("E2EL", "End-to-end Latency"),
}


@dataclass
class Sample:
    """One request as the client saw it; seconds."""

    prompt_len: int
    success: bool = False
    ttft: float = 0.0
    latency: float = 0.0
    output_tokens: int = 0
    itl: list[float] = field(default_factory=list)
    error: str = ""
    exception_type: str = ""

    @property
    def n_output(self) -> int:
        """Tokens by `usage`, else as many as there were events: upstream counts the text again."""
        return self.output_tokens or 1 + len(self.itl)

    @property
    def tpot(self) -> float:
        return (self.latency - self.ttft) / (self.n_output - 1) if self.n_output > 1 else 0.0


def result_of(
    args: argparse.Namespace, samples: Sequence[Sample], duration_s: float, *, has_new_rows: bool
) -> dict[str, Any]:
    """The result document."""
    done = [sample for sample in samples if sample.success]
    n_output, n_input = sum(sample.n_output for sample in done), sum(sample.prompt_len for sample in done)
    users = [sample.n_output / sample.latency if sample.latency else 0.0 for sample in done]
    result: dict[str, Any] = {
        "duration": duration_s,
        "completed": len(done),
        "total_input_tokens": n_input,
        "total_output_tokens": n_output,
        "request_throughput": len(done) / duration_s,
        "request_goodput:": _goodput(args.goodput, done) / duration_s if args.goodput else None,
        "output_throughput": n_output / duration_s,
        "total_token_throughput": (n_input + n_output) / duration_s,
        "user_throughput": float(np.mean(users or 0)),
    }
    if has_new_rows:
        one = 1.0 if done else 0.0
        shares = {f"p{p}": one for p in _percentiles(args)}
        result["avg_decoded_tokens_per_iter"] = {
            **dict.fromkeys(("mean", "min", "max", "median"), one), "std": 0.0, "percentiles": shares
        }  # fmt: skip
    result |= {
        "input_lens": [sample.prompt_len for sample in samples],
        "output_lens": [sample.n_output if sample.success else 0 for sample in samples],
        "ttfts": [sample.ttft for sample in samples],
        "itls": [sample.itl for sample in samples],
        "e2els": [sample.latency for sample in samples],
        "generated_texts": ["" for _ in samples],
        "errors": [sample.error for sample in samples],
    }
    values = {
        "ttft": [sample.ttft for sample in done],
        "tpot": [sample.tpot for sample in done if sample.n_output > 1],
        "itl": [gap for sample in done for gap in sample.itl],
        "e2el": [sample.latency for sample in done],
    }
    for name in (name for name in _TITLES if name in args.percentile_metrics.split(",")):
        seconds = values[name] or [0.0]  # upstream: zero where nothing was measured
        result[f"std_{name}_ms"] = float(np.std(seconds)) * 1000
        result[f"mean_{name}_ms"] = float(np.mean(seconds)) * 1000
        result[f"median_{name}_ms"] = float(np.median(seconds)) * 1000
        for p in _percentiles(args):
            result[f"p{_word(p)}_{name}_ms"] = float(np.percentile(seconds, p)) * 1000
    return result


def console(args: argparse.Namespace, result: dict[str, Any], n_requests: int, *, has_new_rows: bool) -> str:
    """The block that a person reads."""
    failed = n_requests - result["completed"]
    rows: list[tuple[str, Any]] = [("Successful requests:", result["completed"])]
    if has_new_rows:
        rows = [("Total requests:", n_requests), *rows, ("Failed requests:", failed)]
    rows += [
        ("Benchmark duration (s):", result["duration"]),
        ("Total input tokens:", result["total_input_tokens"]),
        ("Total generated tokens:", result["total_output_tokens"]),
        ("Request throughput (req/s):", result["request_throughput"]),
        ("Output token throughput (tok/s):", result["output_throughput"]),
        ("Total Token throughput (tok/s):", result["total_token_throughput"]),
        ("User throughput (tok/s):", result["user_throughput"]),
    ]
    lines = ["{s:{c}^{n}}".format(s=" Serving Benchmark Result ", n=50, c="="), *(_row(*row) for row in rows)]
    if failed:
        lines.append("=======================!FAILED REQUESTS!=======================")
        lines.append(f"Total failed requests: {failed}")
        lines.append("=====================!CHECK LOG FOR ERRORS!====================")
    for name, (short, title) in _TITLES.items():
        if name in args.percentile_metrics.split(","):
            lines.append(f"{title:-^50}")
            lines.append(_row(f"Mean {short} (ms):", result[f"mean_{name}_ms"]))
            lines.append(_row(f"Median {short} (ms):", result[f"median_{name}_ms"]))
            for p in _percentiles(args):
                lines.append(_row(f"P{_word(p)} {short} (ms):", result[f"p{_word(p)}_{name}_ms"]))
    return "\n".join([*lines, "=" * 50, ""])


def _row(name: str, value: Any) -> str:
    return f"{name:<40} {value:<10.2f}" if isinstance(value, float) else f"{name:<40} {value:<10}"


def _percentiles(args: argparse.Namespace) -> list[float]:
    return [float(p) for p in args.metric_percentiles.split(",")]


def _word(p: float) -> str:
    return str(int(p)) if int(p) == p else str(p)


def _goodput(limits: Sequence[str], done: Sequence[Sample]) -> int:
    """Requests within every limit of `ttft:ms tpot:ms e2el:ms`."""
    bounds = [(_FIELDS[name], float(ms) / 1000) for name, ms in (limit.split(":") for limit in limits)]
    return sum(all(getattr(sample, field) <= bound for field, bound in bounds) for sample in done)


_FIELDS = {"ttft": "ttft", "tpot": "tpot", "e2el": "latency"}
