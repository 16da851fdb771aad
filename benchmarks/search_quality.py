"""How much of what there is to gain the study loop finds, in drawn worlds: `make bench-search-quality`.

For every shipped study x {1k1k, 1k8k, 4k1k, 8k1k} (1,024 in flight) and each of 20 drawn worlds, one study of 24
launches (confirmation included) by the loop as shipped (the twin's choices, then TPE) and one by random search behind
the same memory gate. The truth is the world without noise:

    best      the best of the exhaustive ladder grid: the whole grid is ranked with the world's own constants, the best
              of that ranking are simulated exactly (`--check-screening` simulates many more and says what was missed)
    baseline  the configuration the study compares with (the nearest that runs, where its own does not)
    gap       best / baseline - 1
    closed    (winner - baseline) / (best - baseline), the winner as the study would hand it out

Exits 1 when a target is missed: where the gap is above 5 %, at least 80 % of it closed in the median with at most 3
out-of-memory launches. Elsewhere the table says in how many worlds the study keeps the baseline as within noise, and
how many of the gains that it claims there are real.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from advisor.app.concluding import result
from advisor.app.forecast import best_first, log_scores
from advisor.app.setup import Question
from advisor.app.starts import NoStarts
from advisor.app.trial_maker import TrialMaker
from advisor.app.tuner import Tuner
from advisor.app.tuning import How, Session, open_session
from advisor.domain.ports import Asked, EvidenceStore, NoEvidence, Proposal, TrialEvent
from advisor.domain.serving_config import ServingConfig
from advisor.domain.trial import Role, TrialRecord
from advisor.domain.workload import Workload
from advisor.search.space import all_configs
from advisor.search.standings import comparison
from advisor.store import catalog
from advisor.twin.predict import Twin
from advisor.twin.ranking import rank
from advisor.twin.worlds import draw_world

WORKLOADS = ("1k1k", "1k8k", "4k1k", "8k1k")
SAMPLERS = ("advisor", "tpe", "random")
LAUNCHES = 24
SCREENED = 40
LEAST_GAP, LEAST_CLOSED, MOST_OOM = 0.05, 0.80, 3


@dataclass
class MemoryLedger:
    """A ledger that forgets when the process ends."""

    session: Session
    kept: list[TrialRecord] = field(default_factory=list)
    opened: int = 0

    def __post_init__(self) -> None:
        self.proposer = self.session.proposer

    def records(self) -> tuple[TrialRecord, ...]:
        return tuple(self.kept)

    def ask(self, role: Role, fixed: Proposal | None = None) -> Asked:
        proposal = fixed or self.proposer.propose(self.kept, self.session.context.seed)
        self.opened += 1
        return Asked(number=self.opened - 1, config=proposal.config, role=role, origin=proposal.origin)

    def folder(self, number: int) -> EvidenceStore:
        return NoEvidence()

    def commit(self, record: TrialRecord) -> None:
        self.kept.append(record)


class Nobody:
    """Watches nothing and never cancels."""

    cancelled = False

    def trial_started(self, asked: Asked) -> None: ...
    def event(self, event: TrialEvent) -> None: ...
    def trial_ended(self, record: TrialRecord) -> None: ...
    def note(self, text: str) -> None: ...


@dataclass(frozen=True)
class Score:
    """One study in one world."""

    gap: float
    closed: float
    true_gain: float
    n_oom: int
    status: str


def truth(twin: Twin, session: Session, config: ServingConfig, workload: Workload) -> float | None:
    """The objective without noise, None where the configuration does not serve."""
    metrics = twin.predict(session.context.deployment, config, workload).metrics
    return None if metrics is None else session.context.objective.value(metrics)


def best_of_grid(twin: Twin, session: Session, workload: Workload, screened: int) -> float:
    """The best value of the whole grid in this world; 0 where nothing runs."""
    configs = all_configs(session.context.space)
    ranking = rank(twin, session.context.deployment, configs, workload)
    scores = log_scores(ranking, session.context.objective, session.context.slo, workload)
    values = [truth(twin, session, configs[place], workload) for place in best_first(scores)[:screened]]
    return max((value for value in values if value is not None), default=0.0)


def run(study: str, shape: str, world: int, sampler: str, screened: int) -> Score | None:
    """One study in one world; None where nothing can run at all."""
    how = How(engine="twin", twin_world=world, sampler=sampler, seed=world)
    session = open_session(Question(study=study, workloads=(shape,), max_launches=LAUNCHES), how)
    workload = session.context.workloads[0]
    ledger, nobody = MemoryLedger(session), Nobody()
    trials = TrialMaker(context=session.context, engine=session.engine, ledger=ledger, reporter=nobody)
    starts = session.starts if sampler == "tpe" else NoStarts()
    tuner = Tuner(trials=trials, admission=session.gate, starts=starts, cancel=nobody)
    stopped_by = tuner.run()
    records = ledger.records()
    outcome = result(session.context, records, workload, stopped_by)
    twin = world_twin(session, world)
    best = best_of_grid(twin, session, workload, screened)
    reference = comparison(records)
    if best == 0.0 or reference is None:
        return None
    base = truth(twin, session, reference.config, workload) or 0.0
    won = 0.0 if outcome.best is None else truth(twin, session, outcome.best.serving_config, workload) or 0.0
    best = max(best, won)
    closed = 1.0 if best <= base else (won - base) / (best - base)
    return Score(
        gap=best / base - 1, closed=closed, true_gain=won / base - 1, n_oom=outcome.counts.oom, status=outcome.status
    )


def check_screening(studies: Sequence[str], shapes: Sequence[str], world: int = 1) -> None:
    """Print how much better the best of 300 more configurations is than the best of those screened.

    The further ones are the next 200 of the ranking and 100 drawn from all the others.
    """
    rng = np.random.default_rng(0)
    print(f"{'study':28} {'load':5} {'missed by screening %':>22}")
    for study in studies:
        for shape in shapes:
            session = open_session(Question(study=study, workloads=(shape,)), How(engine="twin", twin_world=world))
            workload, twin = session.context.workloads[0], world_twin(session, world)
            configs = all_configs(session.context.space)
            ranking = rank(twin, session.context.deployment, configs, workload)
            order = best_first(log_scores(ranking, session.context.objective, session.context.slo, workload))
            rest = np.array(order[SCREENED + 200 :])
            drawn = rng.choice(rest, size=min(100, len(rest)), replace=False).tolist()
            more = [*order[SCREENED : SCREENED + 200], *drawn]
            values = [truth(twin, session, configs[place], workload) or 0.0 for place in [*order[:SCREENED], *more]]
            missed = max(values) / max(values[:SCREENED]) - 1
            print(f"{study:28} {shape:5} {100 * missed:22.2f}", flush=True)


def world_twin(session: Session, world: int) -> Twin:
    """The twin of a session's deployment in a drawn world."""
    return Twin(
        session.forecaster.facts,
        catalog.step_tables,
        constants=draw_world(world),
        ladder_rule=session.forecaster.dialect.graph_ladder,
    )


def _job(job: tuple[str, str, int, str, int]) -> tuple[tuple[str, str, str], Score | None]:
    study, shape, world, sampler, screened = job
    return (study, shape, sampler), run(study, shape, world, sampler, screened)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=20)
    parser.add_argument("--studies", nargs="*", default=catalog.study_names())
    parser.add_argument("--workloads", nargs="*", default=list(WORKLOADS))
    parser.add_argument("--samplers", nargs="*", default=list(SAMPLERS))
    parser.add_argument("--screened", type=int, default=SCREENED, help="configurations simulated exactly per world")
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--check-screening", action="store_true", help="only show what the screening misses")
    args = parser.parse_args(argv)
    if args.check_screening:
        check_screening(args.studies, args.workloads)
        return 0
    started = time.monotonic()
    jobs = [
        (study, shape, world, sampler, args.screened)
        for study in args.studies for shape in args.workloads
        for world in range(1, args.worlds + 1) for sampler in args.samplers
    ]  # fmt: skip
    scores: dict[tuple[str, str, str], list[Score | None]] = {}
    with multiprocessing.get_context("spawn").Pool(args.processes) as pool:
        for key, score in pool.imap_unordered(_job, jobs, chunksize=4):
            scores.setdefault(key, []).append(score)
    print(f"simulated by the twin in {args.worlds} drawn worlds each; {platform.processor() or platform.machine()}, "
          f"{os.cpu_count()} cores, {time.monotonic() - started:.0f} s")  # fmt: skip
    print(
        f"{'study':28} {'load':5} {'sampler':7} {'gap %':>6} {'>5%':>6} {'closed % (median)':>18} {'OOM med/max':>12} "
        f"{'elsewhere':>28}"
    )
    missed = 0
    for study, shape, sampler in sorted(scores):
        missed += _print_row(study, shape, sampler, scores[study, shape, sampler])
    print("all targets met" if not missed else f"{missed} targets missed")
    return 1 if missed else 0


def _print_row(study: str, shape: str, sampler: str, scores: list[Score | None]) -> int:
    ran = [score for score in scores if score is not None]
    if not ran:
        print(f"{study:28} {shape:5} {sampler:7} nothing can serve this workload in any world")
        return 0
    wide = [score for score in ran if score.gap > LEAST_GAP]
    narrow = [score for score in ran if score.gap <= LEAST_GAP]
    ooms = [score.n_oom for score in ran]
    claimed = [score for score in narrow if score.status != "baseline_within_noise"]
    real = sum(score.true_gain > 0 for score in claimed)
    closed = statistics.median(score.closed for score in wide) if wide else float("nan")
    failed = sampler != "random" and bool(wide) and (closed < LEAST_CLOSED or statistics.median(ooms) > MOST_OOM)
    elsewhere = f"{len(narrow) - len(claimed)} keep it, {real} of {len(claimed)} gains real" if narrow else "-"
    print(
        f"{study:28} {shape:5} {sampler:7} {100 * statistics.median(s.gap for s in ran):6.1f} "
        f"{len(wide):3d}/{len(ran):2d} {100 * closed:18.0f} {statistics.median(ooms):7.1f}/{max(ooms):<4d} "
        f"{elsewhere:>28}{'   MISSED' if failed else ''}"
    )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
