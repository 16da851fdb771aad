"""The end of a study on the terminal: it fits, it says what `summary.json` says, and its plot shows the whole front."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import RenderableType

from advisor.app.results import StudySummary
from advisor.domain.strict import changed
from advisor.report.console import Screen
from advisor.report.goal_view import is_spread, plotted
from advisor.report.plan_view import mute_text, plan_text
from advisor.report.scatter import Mark
from advisor.report.summary import study_view
from tests.report.conftest import Finished

pytestmark = pytest.mark.xdist_group("finished study")  # they share it

METRICS = {
    "Output, tok/s": ("output_tok_per_s", 0),
    "Output per GPU, tok/s": ("output_tok_per_s_per_gpu", 0),
    "Output per user, tok/s": ("output_tok_per_s_per_user", 1),
    "TTFT p50, ms": ("ttft_ms.p50", 0),
    "TTFT p99, ms": ("ttft_ms.p99", 0),
    "TPOT mean, ms": ("tpot_ms.mean", 2),
    "E2E p99, ms": ("e2e_ms.p99", 0),
}


def shown(view: RenderableType, width: int = 200, **env: str) -> str:
    stream = io.StringIO()
    Screen(stream, env, width).print(view)
    return stream.getvalue()


@st.composite
def variations(draw: st.DrawFn, summary: StudySummary) -> StudySummary:
    """The same study with other names and numbers."""
    model = draw(st.sampled_from(["m", "an/organisation-of-a-very-long-name-indeed/" + "x" * 60, "a\x1b[31m/[red]b"]))
    factor = draw(st.sampled_from([0.001, 1.0, 12_345.6]))
    results = []
    for result in summary.results:
        assert result.best is not None
        metrics = changed(result.best.metrics, output_tok_per_s=result.best.metrics.output_tok_per_s * factor)
        best = changed(result.best, metrics=metrics, trials=tuple(range(draw(st.integers(1, 30)))))
        results.append(
            changed(
                result,
                deployment=changed(result.deployment, model=model),
                best=draw(st.sampled_from([best, None])),
                status=draw(st.sampled_from([result.status, "nothing_feasible", "candidate"])),
            )
        )
    return changed(summary, results=tuple(results), pareto=draw(st.sampled_from([summary.pareto, ()])))


@settings(max_examples=40, deadline=None)
@given(data=st.data(), width=st.integers(20, 200), plain=st.sampled_from(["0", "1"]))
def test_nothing_is_wider_than_the_terminal(finished: Finished, data: st.DataObject, width: int, plain: str) -> None:
    text = shown(study_view(data.draw(variations(finished.summary))), width, ADVISOR_PLAIN=plain)
    assert max(map(cell_len, text.splitlines())) <= width
    assert "\x1b" not in text


@settings(max_examples=10, deadline=None)
@given(width=st.integers(20, 200), plain=st.sampled_from(["0", "1"]))
def test_neither_is_the_plan(finished: Finished, width: int, plain: str) -> None:
    text = shown(plan_text(finished.session), width, ADVISOR_PLAIN=plain)
    assert max(map(cell_len, text.splitlines())) <= width
    words = text.split()
    for said in ("SIMULATED", "fixed", "searched", "launches", "GPU-hours", "results"):
        assert any(said in word for word in words) or width < 30


def test_the_plan_says_what_is_done_at_what_price_and_which_defaults_limit_it(finished: Finished) -> None:
    text = shown(plan_text(finished.session))
    assert "1k1k_c16: 1,024 tokens in, 1,024 out, 16 in flight; 1k1k_c64" in text
    assert re.search(r"launches +at most 9, \d of them kept for the confirmation", text)
    assert re.search(r"about \d+\.\d h = \d+ GPU-hours \(virtual", text)
    assert "no limit on latency, so the objective alone decides (--slo)" in text
    assert "--max-launches" not in text, "that was said, so it is no default"
    assert "--concurrency" not in text


@pytest.mark.parametrize("width", [200, 100])
def test_every_number_is_the_one_of_the_document(finished: Finished, width: int) -> None:
    document = json.loads(finished.summary.model_dump_json())
    text = shown(study_view(finished.summary), width)
    for number, result in enumerate(document["results"]):
        best, base = result["best"], result["baseline"]
        part = text.split("ISL 1,024")[number + 1]
        for title, (path, digits) in METRICS.items():
            ours, theirs = (read(entry["metrics"], path) for entry in (best, base))
            change = f"{100 * (ours / theirs - 1):+.1f} %"
            assert cells(part, title) == [f"{ours:,.{digits}f}", f"{theirs:,.{digits}f}", *change.split()]
        tops = re.findall(r"^(?:best|\d) .*#\d+.*$", part, re.MULTILINE)
        assert len(tops) == len(result["top"])
        for line, entry in zip(tops, result["top"], strict=True):
            config, metrics = entry["serving_config"], entry["metrics"]
            wanted = [
                *(f"{config[name]:,}" for name in ("max_batch_size", "max_num_tokens", "cuda_graph_max_batch_size")),
                f"{metrics['output_tok_per_s_per_gpu']:,.0f}",
                f"{metrics['ttft_ms']['p99']:,.0f}",
                f"{metrics['tpot_ms']['mean']:.2f}",
                ",".join(f"#{trial}" for trial in entry["trials"][:2]),
                *(f"+{more}" for more in [len(entry["trials"]) - 2] if more > 0),
            ]
            assert [cell for cell in line.split() if cell in wanted] == wanted
        for price in result["prices"]:
            assert f"{price['gib']:.3f} +- {price['gib_sd']:.3f}" in part
    counts = document["counts"]
    said = f"{counts['trials']} trials, .*{counts['launches']} launches: {counts['oom']} out of memory"
    assert re.search(said, " ".join(text.split()))


def test_every_point_of_the_front_is_drawn(finished: Finished) -> None:
    marks = plotted(finished.summary)
    for point in finished.summary.pareto:
        where = Mark(point.output_tok_per_s_per_user, point.output_tok_per_s_per_gpu, "*")
        assert where in marks[point.shape]
    (of_shape,) = marks.values()
    assert is_spread(of_shape)
    text = shown(study_view(finished.summary))
    assert f"tok/s per GPU, {finished.summary.pareto[0].shape}" in text
    assert f"{max(mark.y for mark in of_shape):,.0f} |" in text
    assert "Output per GPU against speed for each user (simulated)." in text


def test_a_screen_reader_gets_the_front_as_words_alone(finished: Finished) -> None:
    text = shown(study_view(finished.summary), ADVISOR_PLAIN="1")
    assert "+----" not in text
    assert "tok/s per user" in text


def test_noise_is_not_drawn() -> None:
    assert not is_spread([Mark(10, 100, "*"), Mark(10.1, 101, "B")])
    assert is_spread([Mark(10, 100, "*"), Mark(10.1, 110, "B")])
    assert not is_spread([])


def read(metrics: dict[str, Any], path: str) -> float:
    value: Any = metrics
    for name in path.split("."):
        value = value[name]
    return float(value)


def cells(text: str, title: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.startswith(title))
    return line.removeprefix(title).split()


def test_a_plan_tells_of_a_tokenizer_that_is_another_models() -> None:
    assert "text for 12%" in mute_text(0.12)
    assert [mute_text(share) for share in (None, 0.99, 1.0)] == ["", "", ""]
