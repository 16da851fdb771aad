"""What the tables of a measured study are made from: its trials, the words for their settings, Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from advisor.domain.trial import TrialRecord
from advisor.domain.workload import Workload

CALIBRATION_TRIALS = 3
"""The first launches of a study, which the twin may be calibrated on before the others are foretold."""


def read_trials(folder: Path) -> list[TrialRecord]:
    """The finished trials of a run folder, in order."""
    return [TrialRecord.model_validate_json(path.read_text()) for path in sorted(folder.glob("trials/*/outcome.json"))]


def benchmarked(trials: Sequence[TrialRecord], *workloads: Workload) -> list[TrialRecord]:
    """Those whose benchmarks of all these workloads came to their end: none was stopped early, and no server died."""
    return [
        trial
        for trial in trials
        if all((outcome := trial.workload(each.name)) and outcome.metrics is not None for each in workloads)
    ]


def settings(trial: TrialRecord) -> list[str]:
    """Trial, batch, tokens, graphs, fraction and stream interval."""
    config = trial.config
    sizes = (config.max_batch_size, config.max_num_tokens, config.cuda_graph_max_batch_size)
    interval = config.options.get("stream_interval", 1)
    return [f"#{trial.number}", *map(str, (*sizes, config.kv_cache_free_gpu_memory_fraction, interval))]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
