"""Server time that early stops save, and what they cost: `make bench-early-stop`.

Each study is played twice in a drawn world of the twin, from the same seed: with benchmarks that stop early, and with
whole ones (`--no-early-stop`). Benchmarks have eight waves, the default on a real server, so that hours are those that
a real study would spend if its server were like that world.

    hours      virtual server time of the study, start-up and confirmation included: whole, early, saved
    stopped    benchmarks that were stopped, of those that could be: of the search, not out of memory
    wrong      stopped although the configuration is truly more than 1 % better than all that was measured whole
    same       studies that end with the same configuration for every workload
    worse %    how much worse the true value of the early winner is than that of the whole one: median, mean and most

`--benchmarks N` watches N drawn configurations and the baseline instead, each against the median of them as incumbent:
how many are behind by 3 % and more, how many are stopped and after which share of their time, and how many of those
would have been better than the incumbent.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from advisor.app.concluding import result
from advisor.app.setup import Question
from advisor.app.starts import NoStarts
from advisor.app.trial_maker import TrialMaker
from advisor.app.tuner import Tuner
from advisor.app.tuning import How, Session, open_session
from advisor.domain.objective import Objective, Slo
from advisor.domain.ports import Incumbent, PartialResult
from advisor.domain.serving_config import ServingConfig
from advisor.domain.trial import TrialRecord
from advisor.domain.workload import Workload
from advisor.engines.simulated import SimulatedEngine
from advisor.metrics.schedule import draw_requests
from advisor.search.hopeless import LAUNCH_NOISE, Watch
from advisor.search.space import all_configs
from advisor.twin.predict import metrics_of
from advisor.twin.scheduler import Progress
from advisor.twin.simulation import Simulation
from benchmarks.search_quality import MemoryLedger, Nobody, truth, world_twin

STUDIES = ("llama3.1-8b-h100", "llama3.3-70b-fp8-h200", "llama4-maverick-fp8-h100")
WORKLOADS = ("1k1k_c256", "4k1k_c256", "1k8k_c256", "1k1k_c64+4k1k_c256")
SAMPLERS = ("advisor", "random")
LAUNCHES, WAVES = 12, 8
WATCHED = ("output_tok_per_s_per_gpu", "ttft:p95", "tpot:mean", "e2e:mean", "output_tok_per_s_per_user")


@dataclass(frozen=True)
class Played:
    """One study, played to its end."""

    hours: float
    n_benchmarks: int
    n_stopped: int
    n_wrong: int
    winners: tuple[ServingConfig | None, ...]
    values: tuple[float, ...]


def play(study: str, names: str, world: int, sampler: str, early_stop: bool) -> Played:
    """One study in one world."""
    how = How(engine="twin", twin_world=world, sampler=sampler, seed=world, early_stop=early_stop)
    question = Question(study=study, workloads=tuple(names.split("+")), max_launches=LAUNCHES)
    session = dataclasses.replace(open_session(question, how), engine=SimulatedEngine(world, WAVES))
    ledger, nobody = MemoryLedger(session), Nobody()
    trials = TrialMaker(context=session.context, engine=session.engine, ledger=ledger, reporter=nobody)
    ended = Tuner(trials=trials, admission=session.gate, starts=NoStarts(), cancel=nobody).run()
    records, workloads = ledger.records(), session.context.workloads
    best = [result(session.context, records, workload, ended).best for workload in workloads]
    winners = tuple(None if each is None else each.serving_config for each in best)
    searched = [w for r in records if r.role in ("start", "search") and r.served for w in r.workloads]
    true = World(session, world)
    return Played(
        hours=sum(record.duration_s for record in records) / 3600,
        n_benchmarks=len(searched),
        n_stopped=sum(each.stopped_early for each in searched),
        n_wrong=sum(true.wrong(records, workload) for workload in workloads),
        winners=winners,
        values=tuple(true.value(config, workload) for config, workload in zip(winners, workloads, strict=True)),
    )


class World:
    """What configurations are worth in a world, without noise."""

    def __init__(self, session: Session, world: int) -> None:
        self._session, self._twin = session, world_twin(session, world)

    def value(self, config: ServingConfig | None, workload: Workload) -> float:
        """0 where there is none, or it does not serve."""
        return 0.0 if config is None else truth(self._twin, self._session, config, workload) or 0.0

    def wrong(self, records: Sequence[TrialRecord], workload: Workload) -> int:
        """Stopped configurations that are truly more than 1 % better than everything that was measured whole."""
        outcomes = [(record.config, record.workload(workload.name)) for record in records]
        whole = [self.value(config, workload) for config, each in outcomes if each and each.metrics]
        stopped = [self.value(config, workload) for config, each in outcomes if each and each.stopped_early]
        return sum(value > 1.01 * max(whole, default=0.0) for value in stopped)


def _job(job: tuple[str, str, int, str]) -> tuple[tuple[str, str, str], Played, Played]:
    study, names, world, sampler = job
    whole, early = (play(study, names, world, sampler, early_stop) for early_stop in (False, True))
    return (study, names, sampler), whole, early


def watch_benchmarks(study: str, name: str, metric: str, n: int) -> str:
    """A line about single benchmarks of one workload under one objective, in the first drawn world."""
    session = open_session(Question(study=study, workloads=(name,)), How(engine="twin", twin_world=1))
    twin, workload, objective = world_twin(session, 1), session.context.workloads[0], Objective(metric=metric)
    n_requests, gpus = workload.requests(WAVES), session.context.deployment.gpus
    osl = draw_requests(workload, n_requests, 0).osl
    grid = all_configs(session.context.space)
    drawn = np.random.default_rng(0).choice(len(grid), min(n, len(grid)), replace=False)

    def serve(config: ServingConfig, stop: Callable[[Progress], bool] | None = None) -> Simulation | None:
        return twin.serve(
            session.context.deployment, config, workload, n_requests=n_requests, seed=0, stop=stop
        ).run  # fmt: skip

    configs = [session.context.baseline.config, *(grid[place] for place in drawn)]
    runs = [(config, run) for config in configs if config is not None and (run := serve(config)) is not None]
    values = [objective.value(metrics_of(run, gpus)) or 0.0 for _, run in runs]
    to_beat = Incumbent(workload=workload.name, value=statistics.median_low(values), log_noise=LAUNCH_NOISE)
    shares, wrong = [], 0
    for (config, run), value in zip(runs, values, strict=True):
        watch = Watch(to_beat, objective, Slo(), gpus, workload.concurrency)

        def stop(seen: Progress, watch: Watch = watch) -> bool:
            arrays = (seen.arrival_ms, seen.first_token_ms, seen.done_ms, seen.n_output)
            return watch(PartialResult(seen.now_ms / 1e3, *arrays, osl))

        stopped = serve(config, stop)
        if stopped is not None and watch.reason is not None:
            shares.append(stopped.duration_ms / run.duration_ms)
            wrong += objective.gain(value, to_beat.value) > 1
    behind = sum(objective.gain(value, to_beat.value) < 0.97 for value in values)
    share = 100 * statistics.mean(shares) if shares else float("nan")
    return f"{study:24} {name:10} {metric:26} {behind:3d}/{len(runs):<3d} {len(shares):8d} {share:9.0f}% {wrong:6d}"


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=2)
    parser.add_argument("--studies", nargs="*", default=list(STUDIES))
    parser.add_argument("--workloads", nargs="*", default=list(WORKLOADS))
    parser.add_argument("--samplers", nargs="*", default=list(SAMPLERS))
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--benchmarks", type=int, metavar="N", help="watch single benchmarks instead of studies")
    args = parser.parse_args(argv)
    if args.benchmarks is not None:
        print("simulated by the twin in drawn world 1")
        print(f"{'study':24} {'load':10} {'objective':26} {'behind':>7} {'stopped':>8} {'after':>10} {'wrong':>6}")
        for study, name in (("llama3.1-8b-h100", "4k1k_c256"), ("llama3.3-70b-fp8-h200", "1k1k_c256")):
            for metric in WATCHED:
                print(watch_benchmarks(study, name, metric, args.benchmarks), flush=True)
        return 0
    started = time.monotonic()
    jobs = [
        (study, names, world, sampler)
        for study in args.studies for names in args.workloads
        for world in range(1, args.worlds + 1) for sampler in args.samplers
    ]  # fmt: skip
    played: dict[tuple[str, str, str], list[tuple[Played, Played]]] = {}
    with multiprocessing.get_context("spawn").Pool(args.processes) as pool:
        for key, whole, early in pool.imap_unordered(_job, jobs, chunksize=2):
            played.setdefault(key, []).append((whole, early))
    print(f"simulated by the twin in {args.worlds} drawn worlds each; {time.monotonic() - started:.0f} s")
    print(f"{'study':26} {'load':18} {'sampler':7} {'hours: whole  early saved':>26} {'stopped':>8} {'wrong':>5} "
          f"{'same':>5} {'worse %: median, mean, most':>28}")  # fmt: skip
    for key in sorted(played):
        _print_row(key, played[key])
    for sampler in args.samplers:
        _print_row(("all", "", sampler), [pair for key, pairs in played.items() if key[2] == sampler for pair in pairs])
    return 0


def _print_row(key: tuple[str, str, str], pairs: Sequence[tuple[Played, Played]]) -> None:
    whole_h, early_h = (sum(pair[side].hours for pair in pairs) / len(pairs) for side in (0, 1))
    stopped, could = (sum(getattr(early, name) for _, early in pairs) for name in ("n_stopped", "n_benchmarks"))
    same = sum(whole.winners == early.winners for whole, early in pairs)
    worse = [
        100 * (1 - ours / theirs)
        for whole, early in pairs
        for theirs, ours in zip(whole.values, early.values, strict=True)
        if theirs > 0
    ] or [0.0]
    print(f"{key[0]:26} {key[1]:18} {key[2]:7} {whole_h:12.2f} {early_h:6.2f} {100 * (1 - early_h / whole_h):4.0f}% "
          f"{stopped:3d}/{could:<4d} {sum(early.n_wrong for _, early in pairs):5d} {same:2d}/{len(pairs):<2d} "
          f"{statistics.median(worse):10.2f} {statistics.mean(worse):8.2f} {max(worse):8.2f}")  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
