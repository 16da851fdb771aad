"""Tables of a measured study for docs, from its folder alone: what was measured, and what the twin says of the same.

Run as `python -m tools.study_figures FOLDER [--study NAME]`; the predictions are those of this checkout.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from advisor.app.setup import Question
from advisor.app.tuning import How, open_session
from advisor.domain.trial import TrialRecord
from tools import twin_figures
from tools.study_records import CALIBRATION_TRIALS, read_trials, settings, table

COMPONENTS = ("weights", "activations", "cuda_graphs", "kv_pool", "other")


def throughput(trials: Sequence[TrialRecord], study_name: str) -> str:
    """Output tok/s of each workload, measured and predicted, and what limited it."""
    names = [each.workload for each in trials[0].workloads]
    asked = Question(study=study_name, workloads=tuple(names))
    context = open_session(asked, How(engine="twin")).context
    by_name = {workload.name: workload for workload in context.workloads}
    rows = []
    for trial in trials:
        row = [*settings(trial), trial.role]
        for outcome in trial.workloads:
            prediction = context.predict(trial.config, by_name[outcome.workload])
            twin = None if prediction is None else prediction.metrics
            measured = outcome.metrics.output_tok_per_s if outcome.metrics else float("nan")
            expected = twin.output_tok_per_s if twin else float("nan")
            row += [f"{measured:,.0f}", f"{expected:,.0f} ({expected / measured - 1:+.0%})", outcome.limited_by or "-"]
        rows.append(row)
    header = ["trial", "batch", "tokens", "graphs", "fraction", "stream", "role"]
    return table(header + [word for name in names for word in (name, "twin", "limit")], rows)


def memory(trials: Sequence[TrialRecord]) -> str:
    """GiB measured minus predicted by component; `used` is all but what is left free.

    `corrected` is `used` less its mean error over the first three trials: what a constant added to the law would leave.
    """
    errors: list[dict[str, float]] = []
    for trial in trials:
        said, seen = trial.memory_predicted_gib, trial.memory_measured_gib
        assert said is not None
        assert seen is not None
        errors.append({name: getattr(seen, name) - getattr(said, name) for name in COMPONENTS})
    used = [sum(error.values()) for error in errors]
    offset = statistics.fmean(used[:CALIBRATION_TRIALS])
    rows = [
        [
            *settings(trial)[:1],
            *(f"{error[name]:+.2f}" for name in COMPONENTS),
            f"{total:+.2f}",
            f"{total - offset:+.2f}",
        ]
        for trial, error, total in zip(trials, errors, used, strict=True)
    ]
    return table(["trial", *(name.replace("_", " ") for name in COMPONENTS), "used", "corrected"], rows)


def time_spent(trials: Sequence[TrialRecord]) -> str:
    """Seconds by phase; `start` is from exec to the first token, `serve` holds both workloads with their warm-up."""
    names = list(dict.fromkeys(phase.name for trial in trials for phase in trial.phases))
    rows = []
    for trial in trials:
        spent = dict.fromkeys(names, 0.0)
        for phase in trial.phases:
            spent[phase.name] += phase.duration_s
        start = sum(seconds for name, seconds in spent.items() if name != "serve")
        rows.append([f"#{trial.number}", *(f"{spent[name]:.1f}" for name in names), f"{start:.1f}"])
    return table(["trial", *names, "start"], rows)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="results/<study>/<run>, or one under studies/evidence")
    parser.add_argument("--study", default="llama3.1-8b-h100-vllm")
    arguments = parser.parse_args()
    trials = read_trials(arguments.folder)
    twin = twin_figures.tables(arguments.folder, trials)
    tables = throughput(trials, arguments.study), *twin, memory(trials), time_spent(trials)
    sys.stdout.write("\n".join(tables))


if __name__ == "__main__":
    main()
