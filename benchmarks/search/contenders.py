"""Who plays: `make(problem, seed)` gives a contender, which is asked for the next launch until it gives up.

To enter another one, add a line to `CONTENDERS`. Every run launches the baseline first, as the product does; the first
question therefore comes with one record of history.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from advisor.app.admission import LearntFrontier
from advisor.app.drawn_twins import DrawnTwins
from advisor.app.forecast import Forecaster
from advisor.app.stand_in import stand_in
from advisor.app.twin_prior import TwinPrior, belief_of
from advisor.domain.errors import BadInput
from advisor.domain.ports import Proposer
from advisor.domain.serving_config import ServingConfig, config_from_flat
from advisor.domain.strict import changed
from advisor.domain.trial import TrialRecord
from advisor.domain.units import GIB_BYTES
from advisor.search.baselines import baseline_named
from advisor.search.expectation import Sought
from advisor.search.proposer import OwnProposer
from advisor.search.space import completed, config_at, indices_of
from advisor.store import catalog
from advisor.store.stock_samplers import STOCK_SAMPLERS, OptunaProposer, StockSampler, derived_seed
from advisor.store.telling import ValueOf
from benchmarks.search.problems import Problem, named_baselines

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

OURS = "advisor"
"""Name of the contender whose targets are checked."""


class Contender(Protocol):
    """One run of one search: history to the next launch, None when it has nothing more to try."""

    def next(self, history: Sequence[TrialRecord]) -> ServingConfig | None: ...


@dataclass(frozen=True)
class Entry:
    """How a contender enters.

    Attributes:
        make: From a problem and a seed.
        about: For the list of contenders.
        needs: Packages without which it is named as skipped.
        is_optuna: True for the stock samplers that the targets compare with.
    """

    make: Callable[[Problem, int], Contender]
    about: str
    needs: tuple[str, ...] = ()
    is_optuna: bool = False

    @property
    def missing(self) -> tuple[str, ...]:
        """Packages that are not installed."""
        return tuple(name for name in self.needs if importlib.util.find_spec(name) is None)


def value_of(problem: Problem) -> ValueOf:
    """Value of a record for a sampler, larger is better: mean over workloads of the log objective."""

    def value(record: TrialRecord) -> float | None:
        found = [record.workload(workload.name) for workload in problem.workloads]
        values = [problem.objective.value(each.metrics) for each in found if each is not None and each.metrics]
        known = [each for each in values if each is not None and each > 0]
        if not record.measured or len(known) < len(problem.workloads):
            return None
        return sum(math.log(problem.objective.gain(each, 1.0)) for each in known) / len(known)

    return value


@dataclass(frozen=True)
class Sampler:
    """advisor's own sampler, or one of Optuna's, shown the outcomes as `advisor.store.stock_samplers` shows them."""

    proposer: Proposer
    seed: int

    def next(self, history: Sequence[TrialRecord]) -> ServingConfig | None:
        """Its proposal; None when everything was tried."""
        return self.proposer.propose(history, self.seed).config


@dataclass(frozen=True)
class ForgetsFailures:
    """As public tuners do: a launch that failed is told as FAIL, which samplers ignore, so that it may come again."""

    proposer: OptunaProposer
    seed: int

    def next(self, history: Sequence[TrialRecord]) -> ServingConfig | None:
        """Its proposal from what was measured alone."""
        kept = [record for record in history if record.measured]
        return self.proposer.propose(kept, derived_seed(self.seed, len(history))).config


@dataclass(frozen=True)
class Listed:
    """Fixed configurations in order, then nothing."""

    configs: tuple[ServingConfig, ...]

    def next(self, history: Sequence[TrialRecord]) -> ServingConfig | None:
        """The next of the list; the baseline was launched before it."""
        place = len(history) - 1
        return self.configs[place] if place < len(self.configs) else None


BATCHES, TOKENS = (128, 256), (512, 1024, 2048, 4096)


@dataclass(frozen=True)
class CoarseGrid:
    """A coarse grid in the manner of vLLM's `benchmarks/auto_tune`: eight pairs of batch and tokens.

    First the memory fraction comes down from the top of its ladder until the largest pair serves; then every pair is
    launched with it. Chunked prefill is on where the space allows it, as in vLLM, and graphs cover the batch.
    """

    problem: Problem

    def next(self, history: Sequence[TrialRecord]) -> ServingConfig | None:
        """The next step down, or the next pair."""
        steps = next(each.values for each in self.problem.space.active if each.name == FRACTION)
        largest = [self._config(BATCHES[-1], TOKENS[-1], float(step)) for step in reversed(steps)]
        tried = history[1:]
        serving = next((i for i, record in enumerate(tried) if record.measured), None)
        if serving is None:
            return largest[len(tried)] if len(tried) < len(largest) else None
        fraction = tried[serving].config.kv_cache_free_gpu_memory_fraction
        return next((pair for pair in self._pairs(fraction) if pair not in {each.config for each in tried}), None)

    def _pairs(self, fraction: float) -> Iterator[ServingConfig]:
        return (self._config(batch, tokens, fraction) for batch in BATCHES for tokens in TOKENS)

    def _config(self, batch: int, tokens: int, fraction: float) -> ServingConfig:
        space = self.problem.space
        chunked = (
            {"enable_chunked_prefill": True} if any(d.name == "enable_chunked_prefill" for d in space.active) else {}
        )
        wanted = config_from_flat(
            {
                "max_batch_size": batch,
                "max_num_tokens": tokens,
                "cuda_graph_max_batch_size": batch,
                FRACTION: fraction,
                **chunked,
            }
        )
        return config_at(space, indices_of(space, completed(space, wanted, self.problem.deployment)))


FRACTION = "kv_cache_free_gpu_memory_fraction"


def _sampler(stock: StockSampler, name: str) -> Callable[[Problem, int], Contender]:
    return lambda problem, seed: Sampler(_proposer(stock, name, problem), seed)


def _proposer(stock: StockSampler, name: str, problem: Problem) -> OptunaProposer:
    return OptunaProposer(name, stock, problem.space, problem.slo, value_of(problem))


def _tpe_as_shipped(seed: int) -> BaseSampler:
    from optuna.samplers import TPESampler

    return TPESampler(seed=seed)


def _stock(name: str, about: str) -> Entry:
    stock = STOCK_SAMPLERS[name]
    return Entry(_sampler(stock, name), about, stock.needs, is_optuna=True)


def _single_shot(name: str) -> Callable[[Problem, int], Contender]:
    def make(problem: Problem, seed: int) -> Contender:
        found = baseline_named(name, named_baselines(problem.deployment, problem.workloads)).config
        return Listed(() if found is None else (completed(problem.space, found, problem.deployment),))

    return make


def own_proposer(problem: Problem) -> OwnProposer:
    """advisor's own sampler for a problem, with the twin or, of a model that nobody described, a stand-in."""
    forecaster = problem.forecaster or _guessing(problem)
    prior = TwinPrior(forecaster, problem.space, problem.objective, problem.slo)
    sought = Sought(
        problem.space, problem.workloads, problem.objective, problem.slo, prior, problem.baseline, belief_of(forecaster)
    )
    drawing = None if problem.forecaster is None else DrawnTwins(prior)
    return OwnProposer(sought, LearntFrontier(forecaster), drawing=drawing)


def _own(problem: Problem, seed: int) -> Contender:
    return Sampler(own_proposer(problem), seed)


def _guessing(problem: Problem) -> Forecaster:
    """From the size of the checkpoint and the GPU alone."""
    gpu = changed(catalog.gpu_facts(problem.deployment.gpu), memory_bytes=round(problem.capacity_gib * GIB_BYTES))
    nameless = changed(problem.deployment, model="unknown")
    return Forecaster(
        nameless, problem.workloads, stand_in=stand_in(nameless, gpu, None, problem.weights_gib, "nobody described it")
    )


CONTENDERS: dict[str, Entry] = {
    OURS: Entry(_own, "advisor's own sampler"),
    "random": _stock("random", "random search"),
    "qmc": _stock("qmc", "scrambled Sobol points"),
    "tpe": Entry(
        _sampler(StockSampler(_tpe_as_shipped, "states"), "tpe"),
        "TPE as shipped: 10 startup trials, failures PRUNED with constraints",
        is_optuna=True,
    ),
    "tpe-fail": Entry(
        lambda problem, seed: ForgetsFailures(_proposer(STOCK_SAMPLERS["tpe"], "tpe", problem), seed),
        "TPE, 4 startup trials, failures FAIL",
        is_optuna=True,
    ),
    "tpe-constraints": _stock("tpe", "TPE, 4 startup trials, failures PRUNED with constraints"),
    "gp": _stock("gp", "GPSampler, 4 startup trials, memory as a constraint in GiB"),
    "cmaes": _stock("cmaes", "CMA-ES, what is broken folded into the value"),
    "vllm-grid": Entry(lambda problem, seed: CoarseGrid(problem), "coarse grid in the manner of vLLM's auto_tune"),
    "aiconfigurator": Entry(_single_shot("aiconfigurator"), "AIConfigurator's rules, one launch"),
    "trtllm-bench": Entry(_single_shot("trtllm-bench"), "trtllm-bench's heuristic, one launch"),
    "baseline": Entry(lambda problem, seed: Listed(()), "the baseline alone"),
}


def entry(name: str) -> Entry:
    """One contender by name.

    Raises:
        BadInput: unknown name.
    """
    if name not in CONTENDERS:
        raise BadInput(f"Unknown contender {name!r}: use one of {', '.join(CONTENDERS)}.")
    return CONTENDERS[name]
