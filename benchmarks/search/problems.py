"""What a contender may know of a search problem, and where problems are drawn from: the shipped studies, varied."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from advisor.app.forecast import Forecaster
from advisor.domain.deployment import Deployment
from advisor.domain.objective import Objective, Slo
from advisor.domain.serving_config import ServingConfig
from advisor.domain.strict import changed
from advisor.domain.study import SearchSpace
from advisor.domain.workload import Workload, parse_workload
from advisor.engines.trtllm.dialects import default_config, dialect
from advisor.search.baselines import Baseline, baselines
from advisor.search.space import completed, restrict
from advisor.store import catalog

SHAPES = ("1k1k", "1k2k", "2048-512", "4k1k", "8k1k", "512-2048", "3000-700")
CONCURRENCIES = (32, 64, 128, 256, 512, 1024)
FAMILIES: tuple[tuple[str, tuple[tuple[str, int], ...]], ...] = (
    (
        "llama3.1-8b-h100",
        (("h100_sxm", 1), ("h200_sxm", 1), ("b200_sxm", 1), ("h100_sxm", 2)),
    ),
    (
        "llama3.3-70b-fp8-h200",
        (("h200_sxm", 4), ("h200_sxm", 2), ("h200_sxm", 1), ("h100_sxm", 2), ("h100_sxm", 4), ("b200_sxm", 2)),
    ),
    ("llama4-maverick-fp8-b200", (("b200_sxm", 8), ("b200_sxm", 4), ("h200_sxm", 8), ("h100_sxm", 8))),
)
"""Studies of one model each, and the (GPU, TP) that a problem may run it on."""
BUSY = 512
"""Requests in flight from which a problem may also be a max_throughput study."""


@dataclass(frozen=True, eq=False)
class Problem:
    """All that a contender may know.

    Attributes:
        name: Says what it is about, for people.
        deployment: Fixed for the study.
        workloads: Every launch measures all of them; each gets a pick of its own.
        space: The grid of configurations.
        objective: What to maximise or minimise, per workload.
        slo: Limits that each pick must keep under its workload.
        baseline: Launched first.
        forecaster: The nominal twin; None where no twin knows the model.
        weights_gib: Size of the checkpoint on one GPU.
        capacity_gib: Memory of one GPU.
    """

    name: str
    deployment: Deployment
    workloads: tuple[Workload, ...]
    space: SearchSpace
    objective: Objective
    slo: Slo
    baseline: ServingConfig
    forecaster: Forecaster | None
    weights_gib: float
    capacity_gib: float


def named_baselines(deployment: Deployment, workloads: tuple[Workload, ...]) -> tuple[Baseline, ...]:
    """What people use without a tuner; several workloads are sized for the longest."""
    longest = max(workloads, key=lambda workload: workload.max_tokens_per_request)
    facts, gpu = catalog.model_facts(deployment.model), catalog.gpu_facts(deployment.gpu)
    default = default_config(dialect(deployment.engine_version))
    return baselines(deployment, facts, gpu, longest, default, catalog.curated())


def draw_problem(rng: np.random.Generator, n_workloads: int) -> Problem:
    """A study of the pool without limits: model, GPUs, loads and space at random."""
    study_name, places = FAMILIES[rng.integers(len(FAMILIES))]
    study = catalog.study(study_name)
    gpu, tp = places[rng.integers(len(places))]
    ep = tp if study.deployment.ep > 1 else 1
    deployment = changed(study.deployment, gpu=gpu, gpus=tp, tp=tp, ep=ep)
    shapes = rng.choice(len(SHAPES), size=n_workloads, replace=False)
    loads = rng.choice(CONCURRENCIES, size=n_workloads)
    workloads = tuple(parse_workload(SHAPES[i], int(load)) for i, load in zip(shapes, loads, strict=True))
    busy = int(loads.max()) >= BUSY and rng.random() < 0.5
    space = search_space("max_throughput" if busy else "default", study.vary)
    return make_problem(study.baseline, deployment, workloads, space)


def make_problem(baseline: str, deployment: Deployment, workloads: tuple[Workload, ...], space: SearchSpace) -> Problem:
    """A problem of throughput per GPU without limits, whose twin is nominal."""
    known = {entry.name: entry.config for entry in named_baselines(deployment, workloads)}
    start = known[baseline] or known["default"]
    assert start is not None
    forecaster = Forecaster(deployment, workloads)
    terms = forecaster.twin.memory_terms(deployment)
    loads = "+".join(workload.name for workload in workloads)
    return Problem(
        name=f"{deployment.model.split('/')[-1]} on {deployment.gpus} x {deployment.gpu}, {loads}, {space.name}",
        deployment=deployment,
        workloads=workloads,
        space=space,
        objective=Objective(),
        slo=Slo(),
        baseline=completed(space, start, deployment),
        forecaster=forecaster,
        weights_gib=terms.weights_gib,
        capacity_gib=terms.capacity_gib,
    )


@functools.cache
def search_space(name: str, vary: tuple[str, ...]) -> SearchSpace:
    """A shipped search space with further dimensions; the same object each time, whose grid is then kept."""
    return restrict(catalog.search_space(name), vary)
