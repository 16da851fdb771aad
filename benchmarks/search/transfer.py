"""What an earlier study of a neighbour is worth to the next one, and what a misleading one costs.

`python -m benchmarks.search.transfer --first 100 --truths 12` plays drawn truths four times: without any earlier study,
after one of the same server under another workload, after one of another GPU or TP of the same server's form, and after
one of a stranger that calls itself the same deployment. Earlier studies have 12 launches of advisor's own search.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
from collections.abc import Sequence

import numpy as np

from advisor.app.admission import LearntFrontier
from advisor.app.earlier import EarlierRun
from advisor.app.lessons import lessons
from advisor.app.twin_prior import TwinPrior
from advisor.domain.deployment import Deployment
from advisor.domain.strict import changed
from advisor.domain.trial import TrialRecord
from advisor.domain.workload import Workload, parse_workload
from advisor.search.expectation import Sought
from advisor.search.proposer import OwnProposer
from advisor.store.run_card import RunCard
from benchmarks.search.play import confirmed, launches_to_near
from benchmarks.search.problems import CONCURRENCIES, FAMILIES, SHAPES, make_problem
from benchmarks.search.truths import CLASSES, LABEL, DrawnTruth, draw_constants, draw_truth

LAUNCHES = 12
MARKS = (2, 3, 4, 6, 8, 12)
NEVER = LAUNCHES + 1


def neighbour(truth: DrawnTruth, deployment: Deployment, workload: Workload, *, stranger: bool = False) -> DrawnTruth:
    """The same server on another deployment or workload; a stranger has constants of its own."""
    problem = dataclasses.replace(
        make_problem("default", deployment, (workload,), truth.problem.space), slo=truth.problem.slo
    )
    assert problem.forecaster is not None
    constants = draw_constants(np.random.default_rng([*truth.seed, 7])) if stranger else truth.twin.constants
    twin = dataclasses.replace(problem.forecaster.twin, constants=constants)
    return DrawnTruth(problem, twin, truth.effects, () if stranger else truth.fields, truth.spreads, truth.seed)


def neighbours(truth: DrawnTruth) -> dict[str, DrawnTruth | None]:
    """The earlier studies of a truth, by name."""
    rng = np.random.default_rng([*truth.seed, 3])
    here, (own,) = truth.problem.deployment, truth.problem.workloads
    names = [shape for shape in SHAPES if shape != own.name.partition("_")[0]]
    other = parse_workload(str(rng.choice(names)), int(rng.choice(CONCURRENCIES)))
    places = next(family for family in FAMILIES if (here.gpu, here.tp) in family[1])[1]
    elsewhere = [place for place in places if place != (here.gpu, here.tp)]
    gpu, tp = elsewhere[rng.integers(len(elsewhere))]
    moved = changed(here, gpu=gpu, tp=tp, gpus=tp, ep=tp if here.ep > 1 else 1)
    return {
        "alone": None,
        "other workload": neighbour(truth, here, other),
        "other GPUs": neighbour(truth, moved, own),
        "stranger": neighbour(truth, here, own, stranger=True),
    }


def search(truth: DrawnTruth, earlier: Sequence[EarlierRun], n: int = LAUNCHES) -> list[TrialRecord]:
    """So many launches of advisor's own search, the baseline first."""
    problem = truth.problem
    assert problem.forecaster is not None
    prior = TwinPrior(problem.forecaster, problem.space, problem.objective, problem.slo)
    taught = lessons(earlier, prior, problem.deployment)
    sought = Sought(
        problem.space,
        problem.workloads,
        problem.objective,
        problem.slo,
        prior,
        problem.baseline,
        lessons=lambda: taught,
    )
    proposer, history = OwnProposer(sought, LearntFrontier(problem.forecaster)), [truth.launch(problem.baseline, 0)]
    while len(history) < n:
        history.append(truth.launch(proposer.propose(history).config, len(history)))
    return history


def as_earlier(truth: DrawnTruth) -> EarlierRun:
    """The run that a search of a truth leaves."""
    problem = truth.problem
    card = RunCard(
        study="earlier",
        source="simulated",
        engine_label=LABEL,
        deployment=problem.deployment,
        workloads=problem.workloads,
        objective=problem.objective,
        slo=problem.slo,
    )
    return EarlierRun(folder="earlier/run", card=card, records=tuple(search(truth, ())))


def regret(truth: DrawnTruth, history: Sequence[TrialRecord]) -> float:
    """1 - value of the pick over the best, 1 where there is none."""
    (workload,) = truth.problem.workloads
    config = confirmed(truth, history, workload)
    value = None if config is None else truth.value(config, workload)
    return 1.0 if value is None else max(0.0, 1.0 - value / truth.best(workload))


def main() -> None:
    """Print one table a class."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", nargs="*", default=["right-form", "wrong-form"], choices=list(CLASSES))
    parser.add_argument("--truths", type=int, default=12, help="of each class")
    parser.add_argument("--first", type=int, default=100, help="seed of the first truth")
    args = parser.parse_args()
    for name in args.classes:
        regrets: dict[str, list[list[float]]] = {}
        near: dict[str, list[int]] = {}
        for seed in range(args.first, args.first + args.truths):
            truth = draw_truth(name, seed)
            for who, other in neighbours(truth).items():
                history = search(truth, () if other is None else (as_earlier(other),))
                regrets.setdefault(who, []).append([regret(truth, history[:mark]) for mark in MARKS])
                near.setdefault(who, []).append(launches_to_near(truth, history) or NEVER)
        print(f"{name}, simulated: {args.truths} drawn truths from seed {args.first}; median (mean) regret in %")
        print(f"{'earlier study':16}" + "".join(f"{f'@{mark}':>13}" for mark in MARKS) + f"{'to 5 %':>10}")
        for who, rows in regrets.items():
            cells = [(statistics.median(column), statistics.fmean(column)) for column in zip(*rows, strict=True)]
            text = "".join(f"{100 * median:6.1f}{f'({100 * mean:.1f})':>7}" for median, mean in cells)
            print(f"{who:16}{text}{statistics.median(near[who]):>10g}")


if __name__ == "__main__":
    main()
