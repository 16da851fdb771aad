"""Everything that a report is made from: a run folder as read, its evidence, and what the twin says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from advisor.app.foresight import Foresight, foresee
from advisor.app.results import Result, ResultEntry
from advisor.app.run_reading import RunRead, read_run
from advisor.app.trial_evidence import TrialEvidence, read_evidence, request_latencies_ms
from advisor.domain.errors import BadInput
from advisor.search.loads import at_load

Latencies = Mapping[str, NDArray[np.float64]]
"""TTFT and TPOT of single requests and the spread of ITL, ms, ascending, by name."""


@dataclass(frozen=True, eq=False)
class Sources:
    """What the pages and pictures of a run are a pure function of.

    Attributes:
        run: The folder as read.
        evidence: Of every trial, by number.
        foresight: Predictions; None where there is no twin of the deployment.
        latencies: By workload and contender.
    """

    run: RunRead
    evidence: Mapping[int, TrialEvidence] = field(default_factory=dict)
    foresight: Foresight | None = None
    latencies: Mapping[tuple[str, str], Latencies] = field(default_factory=dict)


def gather(folder: Path) -> Sources:
    """Read a run folder and foresee what belongs beside it. It runs nothing and writes nothing.

    Raises:
        BadInput: it is no run folder, cannot be read, or nothing in it says what the run is about.
    """
    try:
        return _gathered(folder)
    except OSError as error:
        raise BadInput(f"Cannot read {error.filename or folder}: {error.strerror or error}.") from None


def _gathered(folder: Path) -> Sources:
    run = read_run(folder)
    results = () if run.summary is None else run.summary.results
    latencies = {
        (result.workload_name, name): request_latencies_ms(
            run, entry.trials, at_load(result.workload, entry.concurrency).name
        )
        for result in results
        for name, entry in contenders(result)
    }
    return Sources(run, read_evidence(run), foresee(run), latencies)


def baseline_title(result: Result) -> str:
    """What the configuration compared with is called."""
    return f"nearest to {result.baseline.name}" if result.baseline.is_substitute else result.baseline.name


def contenders(result: Result, *, runner_up: bool = True) -> list[tuple[str, ResultEntry]]:
    """(name, entry) of best, baseline and runner-up, each configuration once."""
    base, best, name = result.baseline.compared, result.best, baseline_title(result)
    same = best is not None and base is not None and base.serving_config == best.serving_config
    named = [(f"best = {name}" if same else "best", best), (name, None if same else base)]
    if runner_up and (
        base is None or result.runner_up is None or result.runner_up.serving_config != base.serving_config
    ):
        named.append(("runner-up", result.runner_up))
    return [(title, entry) for title, entry in named if entry is not None]
