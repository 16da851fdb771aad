"""What `from advisor import ...` offers: the verbs of the command line as functions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from advisor.app.doctoring import doctor as diagnose
from advisor.app.estimating import Plan, estimate, plan_question
from advisor.app.results import StudySummary
from advisor.app.setup import Question
from advisor.app.tuning import How, open_session
from advisor.domain.ports import Asked, TrialEvent
from advisor.domain.trial import TrialRecord

__all__ = ["diagnose", "estimate", "plan", "tune"]


class _Quiet:
    """Nobody watches, nobody cancels."""

    cancelled = False

    def trial_started(self, asked: Asked) -> None:
        """Nothing to say."""

    def event(self, event: TrialEvent) -> None:
        """Nothing to say."""

    def trial_ended(self, record: TrialRecord) -> None:
        """Nothing to say."""

    def note(self, text: str) -> None:
        """Nothing to say."""


def tune(
    *,
    workloads: Sequence[str] = (),
    study: str | None = None,
    slo: str = "",
    objective: str | None = None,
    gpu_price_usd_per_hour: float | None = None,
    engine: str = "auto",
    container_image: str | None = None,
    launch_prefix: str | None = None,
    rescue: str | Path | None = None,
    sampler: str = "advisor",
    seed: int = 0,
    max_launches: int | None = None,
    out: str | Path = "results",
    resume: bool = False,
    transfer: bool = True,
) -> StudySummary:
    """Run a study and write its ledger below `out`, as `advisor tune` does.

    Args:
        workloads: Short names such as `4k1k_c256`; none for the study's own.
        study: Name or file; none for the default study.
        slo: Limits, such as `ttft:p95<2s`.
        objective: What is compared, such as `goodput`; none for the study's own.
        gpu_price_usd_per_hour: Of one GPU, for the cost of a million output tokens.
        engine: `auto`, or an engine by name.
        container_image: Launch `trtllm-serve` in this image.
        launch_prefix: Words before the command, such as `srun -N2 --mpi=pmix trtllm-llmapi-launch`.
        rescue: A YAML file that does not run: find the nearest configuration that does, in few launches.
        sampler: `tpe`, `random` ...
        seed: Same seed, same machine, same result.
        max_launches: Process starts in all; none for the study's own budget.
        out: Folder for results.
        resume: Go on with a run that is already there.
        transfer: Learn from earlier studies of this model below `out`.

    Raises:
        BadInput: anything that cannot be meant.
        EngineMissing: the engine asked for is not here.
        NothingFeasible: the twin finds no configuration that could serve the workload.
    """
    question = Question(
        study=study,
        workloads=tuple(workloads),
        slo=slo,
        objective=objective,
        gpu_price_usd_per_hour=gpu_price_usd_per_hour,
        max_launches=max_launches,
    )
    how = How(
        engine=engine,
        container_image=container_image,
        launch_prefix=launch_prefix,
        rescue=None if rescue is None else str(rescue),
        sampler=sampler,
        seed=seed,
        out=Path(out),
        resume=resume,
        transfer=transfer,
    )
    session = open_session(question, how)
    quiet = _Quiet()
    with session.open_ledger() as ledger:
        return session.run(ledger, quiet, quiet)


def plan(*, workload: str, study: str | None = None, slo: str = "", top_n: int = 10) -> Plan:
    """Rank the whole space of a study on the twin, without a launch.

    Raises:
        BadInput: anything that cannot be meant.
        NothingFeasible: no configuration of the space serves the workload.
    """
    return plan_question(Question(study=study, workloads=(workload,), slo=slo), top_n)[0]
