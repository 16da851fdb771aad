"""Charts of GiB and what they buy: the memory of each trial, P(fits) over two settings, the worth of each setting."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from advisor.app.foresight import Foresight, MemoryMap
from advisor.app.report_sources import baseline_title
from advisor.app.results import Result
from advisor.app.run_reading import RunRead
from advisor.domain.measurement import MemoryReport, Source
from advisor.domain.serving_config import ServingConfig
from advisor.domain.trial import TrialRecord
from advisor.report.charts_data import Cell, Chart, chart, group_of, outcome_of, short_gib, total
from advisor.report.console import short_name, value_text
from advisor.report.progress import config_text
from advisor.report.summary import setting_title

COMPONENTS = (
    ("weights", "weights"),
    ("activations", "activations"),
    ("cuda_graphs", "CUDA graphs"),
    ("other", "runtime, NCCL, buffers"),
    ("kv_pool", "KV pool"),
    ("cached", "cached by PyTorch"),
)


def memory_chart(run: RunRead) -> Chart:
    """GiB of the fullest GPU by component, predicted and as the launch showed it, of every trial that has either."""
    results = () if run.summary is None else run.summary.results
    rows: list[dict[str, Cell]] = []
    for record in run.records:
        reports: tuple[tuple[Source, MemoryReport | None], ...] = (
            ("predicted", record.memory_predicted_gib),
            (record.source, record.memory_measured_gib),
        )
        rows += [_memory_row(results, record, kind, report) for kind, report in reports if report is not None]
    n = len({row["number"] for row in rows})
    about = (
        f"Memory of the fullest GPU of {n} trials by component, as the memory law predicted it before the launch and "
        f"as {run.card.source}; the line is what the GPU has. Where an engine does not tell its CUDA graphs apart, "
        "they stand among the rest; so does what PyTorch keeps cached, which a driver counts as used though it would "
        "be given back."
    )
    return chart("memory", "memory", "Where the memory goes", about, run.card.source, rows)


def _memory_row(results: Sequence[Result], record: TrialRecord, kind: Source, report: MemoryReport) -> dict[str, Cell]:
    return {
        "number": record.number,
        "role": record.role,
        "group": group_of(results, record),
        "outcome": outcome_of(record),
        "short_gib": short_gib(record),
        "said_by": kind,
        **{f"{key}_gib": getattr(report, key) for key, _ in COMPONENTS},
        "used_gib": report.used,
        "left_free_gib": report.left_free,
        "capacity_gib": report.capacity,
        "configuration": config_text(record.config),
    }


def frontier_charts(run: RunRead, foresight: Foresight) -> list[Chart]:
    """P(fits) over every pair of settings around the best, with the launches on it; those that vary most come first."""
    centre = _centre(run)
    maps = [] if centre is None else foresight.maps(centre)
    return [_map_chart(run, foresight, found) for found in sorted(maps, key=lambda each: -float(each.p_fits.std()))]


def _centre(run: RunRead) -> ServingConfig | None:
    """The best of the first workload, else its baseline, else the last launch."""
    result = None if run.summary is None or not run.summary.results else run.summary.results[0]
    if result is not None and result.best is not None:
        return result.best.serving_config
    settings = None if result is None else result.baseline.settings
    last = run.records[-1].config if run.records else None
    return settings or last


def _map_chart(run: RunRead, foresight: Foresight, found: MemoryMap) -> Chart:
    engine = run.card.deployment.engine
    x, y = setting_title(engine, found.x), setting_title(engine, found.y)
    n = foresight.n_launches
    taught = "no launch has corrected it" if not n else f"corrected by {n} launch{'es' if n > 1 else ''}"
    about = (
        f"Probability that a launch does not run out of memory, by {x} and {y}, the other settings as in "
        f"{config_text(found.centre)}. A prediction of the memory law, {taught}. Large marks are launches with just "
        "these other settings, small ones differ in them too; a click opens the trial."
    )
    return chart(
        f"frontier-{short_name(found.x)}-{short_name(found.y)}".replace(" ", "_"),
        "frontier",
        "What fits into memory",
        about,
        "predicted",
        [*_cells(found), *_launches(run.records, found)],
        family="frontier",
        label=f"{x} and {y}",
        facts={"x_setting": x, "y_setting": y, "centre": config_text(found.centre), "n_launches": n},
    )


def _cells(found: MemoryMap) -> Iterator[dict[str, Cell]]:
    for row, up in enumerate(found.y_steps):
        for column, right in enumerate(found.x_steps):
            yield {
                "row": "map",
                "x": right,
                "y": up,
                "p_fits": float(found.p_fits[row, column]),
                "margin_gib": float(found.margin_gib[row, column]),
                "margin_sd_gib": float(found.margin_sd_gib[row, column]),
                **dict.fromkeys(_OF_LAUNCHES),
            }


_OF_MAP = ("p_fits", "margin_gib", "margin_sd_gib")
_OF_LAUNCHES = ("number", "outcome", "short_gib", "same_otherwise")


def _launches(records: Sequence[TrialRecord], found: MemoryMap) -> Iterator[dict[str, Cell]]:
    centre = found.centre.flat()
    for record in records:
        flat = record.config.flat()
        others = {*centre, *flat} - {found.x, found.y}
        yield {
            "row": "launch" if record.launched else "rejected",
            "x": flat[found.x],
            "y": flat[found.y],
            **dict.fromkeys(_OF_MAP),
            "number": record.number,
            "outcome": outcome_of(record),
            "short_gib": short_gib(record),
            "same_otherwise": all(flat.get(name) == centre.get(name) for name in others),
        }


def worth_chart(run: RunRead, result: Result, foresight: Foresight) -> Chart | None:
    """What each setting brought between baseline and best; None where nothing was changed."""
    before = result.baseline.settings
    if result.best is None or before is None or before == result.best.serving_config:
        return None
    shares = foresight.worth(before, result.best.serving_config, result.served)
    if not shares:
        return None
    engine = run.card.deployment.engine
    rows: list[dict[str, Cell]] = [
        {
            "setting": setting_title(engine, each.setting),
            "before": "–" if each.before is None else value_text(each.before),
            "after": "–" if each.after is None else value_text(each.after),
            "tok_per_s_per_gpu": each.tok_per_s_per_gpu,
            "kv_pool_gib": each.kv_pool_gib,
            "beside_pool_gib": each.beside_pool_gib,
        }
        for each in shares
    ]
    predicted = total(row["tok_per_s_per_gpu"] for row in rows)
    base = result.baseline.compared
    shown = (
        None if base is None else result.best.metrics.output_tok_per_s_per_gpu - base.metrics.output_tok_per_s_per_gpu
    )
    about = (
        f"From {baseline_title(result)} to the best, the twin predicts {predicted:+,.0f} tok/s per GPU in all"
        + ("" if shown is None else f"; {result.source} it was {shown:+,.0f}")
        + ". Each setting has its mean share over all orders of changing them: a prediction, as are the GiB of the KV "
        "pool and of everything beside it."
    )
    return chart(
        f"worth-{result.workload_name}",
        "worth",
        "What each setting bought",
        about,
        "predicted",
        rows,
        facts={"predicted_tok_per_s_per_gpu": predicted, f"{result.source}_tok_per_s_per_gpu": shown},
    )
