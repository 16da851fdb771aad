"""The pictures of docs/concepts.md, drawn from what the twin, the memory law and the search really compute.

`python -m tools.concept_figures` writes them to docs/images/; half a minute, most of it the study that is played.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from advisor.app.api import _Quiet
from advisor.app.context import StudyContext
from advisor.app.forecast import Forecaster
from advisor.app.setup import Question, resolve
from advisor.app.tuning import How, open_session
from advisor.domain.serving_config import ServingConfig
from advisor.domain.strict import changed
from advisor.domain.trial import TrialRecord
from advisor.memory.law import MemoryBudget
from advisor.memory.stages import FINAL_EXTRA, FIRST_EXTRA, UNDER_LOAD
from advisor.twin.scheduler import SchedulerSettings, simulate
from tools.drawing import Drawing, Scale

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "images"
STUDY, WORKLOAD = "llama3.1-8b-h100", "1k1k_c256"
LARGE = ServingConfig(
    max_batch_size=2048, max_num_tokens=16384, cuda_graph_max_batch_size=2048, kv_cache_free_gpu_memory_fraction=0.9
)
PROMPTS = (1200, 2600, 900, 1500, 2200, 700, 1800, 1100, 2500)
OUTPUTS = (30, 18, 40, 24, 12, 36, 20, 28, 16)


def forecaster() -> Forecaster:
    """The nominal twin of the study that the first two pictures are about."""
    resolved = resolve(Question(study=STUDY, workloads=(WORKLOAD,)))
    return Forecaster(resolved.deployment, resolved.workloads)


def batching(known: Forecaster) -> str:
    """Nine requests through a scheduler that runs four at once, and the time of each of its steps."""
    times = known.twin.times(known.deployment)
    settings = SchedulerSettings(max_batch_size=4, max_num_tokens=3000, kv_tokens=100_000, graph_sizes=(1, 2, 3, 4))
    run = simulate(times, settings, PROMPTS, OUTPUTS, concurrency=6, jump=False)
    fixed_ms = times.constants.ttft_fixed_ms
    ends_ms, firsts_ms, done_ms = run.step_end_ms, run.first_token_ms - fixed_ms, run.done_ms - fixed_ms
    starts_ms = np.concatenate([[0.0], ends_ms[:-1]])
    drawing = Drawing(
        860, 470, "In-flight batching: when each request waits, is read and answers; the time of each step"
    )
    x, bottom = Scale(0.0, float(ends_ms[-1]), 60, 840), 250
    drawing.words(16, 26, "Nine requests, six sent at once, max_batch_size 4", "head")
    drawing.legend(16, 48, [("grey", "waits"), ("orange", "prompt is read"), ("blue", "answers, a token a step")])
    for row in range(len(PROMPTS)):
        y = 66 + 20 * row
        step = int(np.searchsorted(ends_ms, firsts_ms[row] - 1e-6))
        drawing.words(50, y + 11, f"{row + 1}", "dim", "end")
        drawing.line([(x(run.arrival_ms[row]), y + 7), (x(starts_ms[step]), y + 7)], "wait")
        reading = x(ends_ms[step]) - x(starts_ms[step])
        drawing.box(x(starts_ms[step]), y, reading, 14, "orange", f"{PROMPTS[row]:,} tokens")
        drawing.box(x(firsts_ms[row]), y, x(done_ms[row]) - x(firsts_ms[row]), 14, "blue", f"{OUTPUTS[row]} tokens")
    height = Scale(0.0, float(np.ceil(max(np.diff(ends_ms, prepend=0.0)) / 20) * 20), 420, bottom + 60)
    drawing.words(16, bottom + 34, "Every step takes as long as what is in it: a prompt makes all others wait", "head")
    drawing.y_axis(height, 60, 840, range(0, int(height.high) + 1, 20), "ms")
    reads = np.isin(np.round(ends_ms, 6), np.round(firsts_ms, 6))
    for start, end, read in zip(starts_ms, ends_ms, reads, strict=True):
        top = height(end - start)
        drawing.box(
            x(start), top, x(end) - x(start) - 0.7, 420 - top, "orange" if read else "blue", f"{end - start:.1f} ms"
        )
    drawing.x_axis(x, 420, range(0, int(x.high) + 1, 100), "ms since the first request (simulated)")
    return drawing.svg()


def memory(known: Forecaster) -> str:
    """One GPU through a start, and what the memory fraction leaves over against what has to fit into it."""
    drawing = Drawing(
        860, 430, "GPU memory by component in each phase of a start, and what each memory fraction leaves"
    )
    config = changed(LARGE, kv_cache_free_gpu_memory_fraction=0.95)
    _phases(drawing, known.budget(config))
    _left_over(drawing, known)
    return drawing.svg()


def _phases(drawing: Drawing, budget: MemoryBudget) -> None:
    """Stacked columns: what each phase holds on the GPU."""
    resident = budget.weights_gib + budget.runtime_gib + budget.comm_gib
    temporary = budget.capacity_gib - resident - budget.free_gib[FIRST_EXTRA]
    after_pool = [resident - budget.weights_gib, budget.weights_gib, budget.activations_gib, budget.kv_pool_gib]
    other, weights = after_pool[0], budget.weights_gib
    columns = {
        "load": [other, weights],
        "kv_estimate": [other, weights, budget.activations_gib, temporary, budget.graphs_gib],
        "kv_allocate": after_pool,
        "warm_up": [*after_pool, budget.tried_gib[FINAL_EXTRA]],
        "serve": [*after_pool, budget.graphs_gib, budget.tried_gib[UNDER_LOAD]],
    }
    kinds = ("grey", "green", "orange", "blue", "pink", "red")
    capacity = float(budget.capacity_gib)
    y, width = Scale(0.0, 90.0, 350, 80), 62
    drawing.words(16, 26, "One H100 through a start, memory fraction 0.95", "head")
    drawing.y_axis(y, 56, 440, range(0, 81, 20), "GiB")
    for number, (phase, parts) in enumerate(columns.items()):
        left, held = 68 + 75 * number, 0.0
        for kind, part in zip(kinds, parts, strict=False):
            drawing.box(
                left, y(held + float(part)), width, y(held) - y(held + float(part)), kind, f"{float(part):.2f} GiB"
            )
            held += float(part)
        drawing.words(left + width / 2, 367, phase, "dim small", "middle")
    drawing.line([(56, y(capacity)), (440, y(capacity))], "limit")
    drawing.words(440, y(capacity) - 6, f"{capacity:.0f} GiB", "dim", "end")
    drawing.legend(16, 396, [("grey", "context, NCCL"), ("green", "weights"), ("orange", "activations")])
    drawing.legend(16, 418, [("blue", "KV pool"), ("pink", "CUDA graphs"), ("red", "sampling, fragments")])


def _left_over(drawing: Drawing, known: Forecaster) -> None:
    """Two lines over the fraction; where they cross memory runs out."""
    fractions = [round(0.8 + 0.01 * step, 2) for step in range(20)]
    budgets = [known.budget(changed(LARGE, kv_cache_free_gpu_memory_fraction=each)) for each in fractions]
    left = [float(each.free_gib[FINAL_EXTRA]) for each in budgets]
    graphs = [float(each.graphs_gib) for each in budgets]
    need = [
        max(float(each.tried_gib[FINAL_EXTRA]), held + float(each.tried_gib[UNDER_LOAD]))
        for each, held in zip(budgets, graphs, strict=True)
    ]
    x, y = Scale(0.8, 0.99, 520, 840), Scale(0.0, 14.0, 350, 80)
    fits = max(each for each, budget in zip(fractions, budgets, strict=True) if budget.fits)
    drawing.words(480, 26, "What a fraction leaves over, and what must fit", "head")
    drawing.y_axis(y, 520, 840, range(0, 15, 2), "GiB")
    drawing.box(x(fits + 0.005), 80, 840 - x(fits + 0.005), 270, "bad")
    drawing.words(836, 98, "out of memory", "dim", "end")
    drawing.line([(x(each), y(value)) for each, value in zip(fractions, left, strict=True)], "line blue")
    drawing.line([(x(each), y(value)) for each, value in zip(fractions, need, strict=True)], "line red")
    drawing.words(x(0.855), y(left[5]) - 10, "left over")
    drawing.words(x(0.81), y(need[1]) - 8, "graphs, sampling, fragments")
    drawing.x_axis(x, 350, (0.8, 0.85, 0.9, 0.95), "free_gpu_memory_fraction")
    shown = [(each, budget) for each, budget in zip(fractions, budgets, strict=True) if each in (0.8, 0.9, fits)]
    tokens = ", ".join(f"{int(budget.kv_tokens):,} at {each:g}" for each, budget in shown)
    drawing.words(480, 418, f"KV tokens: {tokens}", "dim small")


def play() -> tuple[StudyContext, tuple[TrialRecord, ...]]:
    """A study of 14 launches in a drawn world of the twin, which the search does not know."""
    question = Question(study="llama4-maverick-fp8-h100", workloads=("1k8k_c1024",), max_launches=14)
    with tempfile.TemporaryDirectory() as folder:
        session = open_session(question, How(engine="twin", twin_world=1, out=Path(folder)))
        with session.open_ledger() as ledger:
            session.run(ledger, _Quiet(), _Quiet())
            return session.context, ledger.records()


def search(context: StudyContext, records: Sequence[TrialRecord]) -> str:
    """What each launch was expected to bring, and what it brought."""
    workload = context.workloads[0]
    drawing = Drawing(
        860, 400, "A search: output per launch against what the twin predicted, and the gain expected of each"
    )
    x = Scale(-0.6, len(records) - 0.4, 60, 470)
    values = [_value(context, record) for record in records]
    predicted = [context.predict(record.config, workload) for record in records]
    expected = [each.metrics.output_tok_per_s_per_gpu if each and each.metrics else None for each in predicted]
    top = max(value for value in (*values, *expected) if value is not None)
    y = Scale(0.0, 200 * np.ceil(top / 200), 330, 80)
    drawing.words(16, 26, "Each launch: predicted and come", "head")
    drawing.y_axis(y, 60, 470, range(0, int(y.high) + 1, 400), "output tok/s per GPU (simulated)")
    kinds = {"baseline": "grey", "search": "blue", "confirmation": "green"}
    for record, value, wish in zip(records, values, expected, strict=True):
        if wish is not None:
            drawing.dot(x(record.number), y(wish), "ring", 6)
        if value is not None:
            drawing.dot(x(record.number), y(value), kinds.get(record.role, "blue"))
        else:
            drawing.words(x(record.number), y(0) - 6, "stopped", "dim", "start", -90)
    drawing.x_axis(x, 330, range(0, len(records), 2), "launch")
    drawing.legend(16, 390, [("grey", "baseline"), ("blue", "search"), ("green", "confirmation")])
    drawing.dot(340, 386, "ring", 6)
    drawing.words(352, 390, "the twin's prediction", "dim")
    _expectations(drawing, records)
    return drawing.svg()


def _value(context: StudyContext, record: TrialRecord) -> float | None:
    outcome = record.workload(context.workloads[0].name)
    return outcome.metrics.output_tok_per_s_per_gpu if outcome and outcome.metrics else None


def _expectations(drawing: Drawing, records: Sequence[TrialRecord]) -> None:
    """Bars on a logarithmic scale: what a proposal was expected to gain over the best so far."""
    said = [(record.number, 100 * record.expected_gain) for record in records if record.expected_gain]
    x, y = Scale(0.4, max(number for number, _ in said) + 0.6, 560, 840), Scale(-1.0, 2.0, 330, 80)
    drawing.words(520, 26, "What the sampler expected of each", "head")
    for power in (-1, 0, 1, 2):
        drawing.line([(560, y(power)), (840, y(power))], "grid")
        drawing.words(552, y(power) + 4, f"{10.0**power:g} %", "dim", "end")
    drawing.words(560, 68, "gain over the best so far", "dim")
    for number, percent in said:
        level = y(float(np.log10(max(percent, 0.1))))
        drawing.box(x(number) - 11, level, 22, 330 - level, "blue", f"{percent:.1f} %")
        drawing.words(x(number), level - 5, f"{percent:.0f}" if percent >= 10 else f"{percent:.1f}", "dim", "middle")
    drawing.line([(560, y(np.log10(0.5))), (840, y(np.log10(0.5)))], "limit")
    drawing.line([(560, 386), (580, 386)], "limit")
    drawing.words(588, 390, "below 0.5 %, the noise, it ends", "dim")
    drawing.x_axis(x, 330, [number for number, _ in said], "launch")


def main() -> None:
    """Write all pictures."""
    known = forecaster()
    drawn = {"batching": batching(known), "memory": memory(known), "search": search(*play())}
    for name, svg in drawn.items():
        (FOLDER / f"{name}.svg").write_text(svg, encoding="utf-8")
        print(f"docs/images/{name}.svg")


if __name__ == "__main__":
    main()
