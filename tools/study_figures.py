"""Tables of a measured study for docs, from its folder alone: what was measured, and what the twin says of the same.

Run as `python -m tools.study_figures FOLDER [--study NAME]`; the predictions are those of this checkout.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from advisor.app.forecast import Forecaster
from advisor.app.setup import Question
from advisor.app.tuning import How, open_session
from advisor.domain.trial import TrialRecord
from advisor.memory.profiled import residuals
from advisor.store import catalog
from advisor.store.run_card import RunCard, read_card
from advisor.twin.constants import TwinConstants
from tools import twin_figures
from tools.study_records import read_trials, settings, table

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


def memory(card: RunCard, trials: Sequence[TrialRecord], constants: TwinConstants) -> str:
    """GiB measured minus predicted by component; `used` is what the driver counted, and so all components.

    `other` holds what PyTorch keeps cached. `calibrated` is `used` after calibration on the first launches.
    """
    before, after = (
        Forecaster(card.deployment, card.workloads),
        Forecaster(card.deployment, card.workloads, constants=constants),
    )
    rows = []
    for place, trial in enumerate(trials):
        said, learnt = (each.memory_of_launch(trial.config, trials[:place]) for each in (before, after))
        seen = trial.memory_measured_gib
        assert seen is not None
        assert said is not None
        assert learnt is not None
        errors = residuals(said, seen)
        used = seen.used - said.used, seen.used - learnt.used
        values = (*(errors[name] for name in COMPONENTS), *used)
        rows.append([settings(trial)[0], *(f"{value:+.2f}" for value in values)])
    return table(["trial", *(name.replace("_", " ") for name in COMPONENTS), "used", "calibrated"], rows)


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
    constants = twin_figures.learnt(arguments.folder, catalog.step_tables)
    in_use = memory(read_card(arguments.folder), trials, constants)
    tables = throughput(trials, arguments.study), *twin, in_use, time_spent(trials)
    sys.stdout.write("\n".join(tables))


if __name__ == "__main__":
    main()
