"""Tables of a measured study for docs, from its folder alone: what was measured, and what the twin says of the same.

Run as `python -m tools.study_figures FOLDER [--study NAME]`; the predictions are those of this checkout.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from advisor.app.calibrate import calibrate, calibrated
from advisor.app.forecast import Forecaster
from advisor.app.setup import Question
from advisor.app.tuning import How, open_session
from advisor.domain.trial import TrialRecord
from advisor.memory.profiled import residuals
from advisor.store.run_card import CARD, RunCard, read_card
from advisor.twin.constants import TwinConstants
from advisor.twin.predict import memory_report

CALIBRATION_TRIALS = 3
COMPONENTS = ("weights", "activations", "cuda_graphs", "kv_pool", "other")


def read_trials(folder: Path) -> list[TrialRecord]:
    """The finished trials of a run folder, in order."""
    return [TrialRecord.model_validate_json(path.read_text()) for path in sorted(folder.glob("trials/*/outcome.json"))]


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


def learnt(folder: Path, card: RunCard, trials: Sequence[TrialRecord]) -> TwinConstants:
    """The constants after calibration on the first launches."""
    with tempfile.TemporaryDirectory() as first:
        shutil.copy(folder / CARD, first)
        for trial in trials[:CALIBRATION_TRIALS]:
            place = Path("trials") / f"{trial.number:04d}"
            shutil.copytree(folder / place, Path(first) / place)
        return calibrated(calibrate([Path(first)]), card.deployment)


def unseen(card: RunCard, trials: Sequence[TrialRecord], constants: TwinConstants) -> str:
    """Output tok/s predicted over measured - 1 of every later launch, before and after calibration on the first ones.

    Only launches whose configuration is none of the first ones' count: nothing about them was known.
    """
    before = Forecaster(card.deployment, card.workloads)
    after = Forecaster(card.deployment, card.workloads, constants=constants)
    known, rows = {trial.config for trial in trials[:CALIBRATION_TRIALS]}, []
    for trial in trials[CALIBRATION_TRIALS:]:
        if trial.config not in known:
            row = settings(trial)
            for workload in card.workloads:
                outcome = trial.workload(workload.name)
                assert outcome is not None
                assert outcome.metrics is not None
                n, measured = outcome.metrics.n_requests, outcome.metrics.output_tok_per_s
                for forecaster in (before, after):
                    said = forecaster.twin.predict(
                        card.deployment, trial.config, workload, n_requests=n, seed=outcome.seed
                    ).metrics
                    row.append("-" if said is None else f"{said.output_tok_per_s / measured - 1:+.1%}")
            rows.append(row)
    header = ["trial", "batch", "tokens", "graphs", "fraction", "stream"]
    return table(header + [word for each in card.workloads for word in (each.name, "calibrated")], rows)


def memory(card: RunCard, trials: Sequence[TrialRecord], constants: TwinConstants) -> str:
    """GiB measured minus predicted by component; `used` is what the driver counted, and so all components.

    `other` holds what PyTorch keeps cached. `calibrated` is `used` after calibration on the first launches.
    """
    before, after = (
        Forecaster(card.deployment, card.workloads),
        Forecaster(card.deployment, card.workloads, constants=constants),
    )
    rows = []
    for trial in trials:
        seen, said = trial.memory_measured_gib, memory_report(before.budget(trial.config))
        assert seen is not None
        errors = residuals(said, seen)
        used = seen.used - said.used, seen.used - memory_report(after.budget(trial.config)).used
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
    card = read_card(arguments.folder)
    constants = learnt(arguments.folder, card, trials)
    tables = (
        throughput(trials, arguments.study),
        unseen(card, trials, constants),
        memory(card, trials, constants),
        time_spent(trials),
    )
    sys.stdout.write("\n".join(tables))


if __name__ == "__main__":
    main()
