"""What the twin and the memory law say beside what was launched, for the charts: predictions, never measurements."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from advisor.app.admission import LearntFrontier
from advisor.app.calibrate import calibrated
from advisor.app.calibration import taught
from advisor.app.forecast import Forecaster
from advisor.app.run_reading import RunRead
from advisor.app.setup import SPACES
from advisor.domain.deployment import Deployment
from advisor.domain.errors import BadInput
from advisor.domain.serving_config import FOUR_SETTINGS, OptionValue, ServingConfig, config_from_flat
from advisor.domain.workload import Workload
from advisor.memory.frontier import Frontier
from advisor.store import catalog
from advisor.twin.constants import TwinConstants

Array = NDArray[np.float64]
MOST_CHANGED = 8  # settings whose worth is told apart: 2^8 configurations


@dataclass(frozen=True)
class Place:
    """Where the twin expects a configuration under a workload, as if memory sufficed."""

    output_tok_per_s_per_gpu: float
    output_tok_per_s_per_user: float


@dataclass(frozen=True, eq=False)
class MemoryMap:
    """P(fits) over two settings, the others as in `centre`.

    `p_fits`, `margin_gib` (the least expected margin) and its standard deviation have shape (len(y_steps),
    len(x_steps)).
    """

    x: str
    y: str
    x_steps: tuple[OptionValue, ...]
    y_steps: tuple[OptionValue, ...]
    centre: ServingConfig
    p_fits: Array
    margin_gib: Array
    margin_sd_gib: Array


@dataclass(frozen=True)
class Worth:
    """What one setting brought on the way from the baseline to the best: its mean share over all orders of changing."""

    setting: str
    before: OptionValue | None
    after: OptionValue | None
    tok_per_s_per_gpu: float
    kv_pool_gib: float
    beside_pool_gib: float


@dataclass(frozen=True, eq=False)
class Foresight:
    """Predictions of one run, with the memory law as its launches left it.

    Attributes:
        forecaster: The twin of the deployment.
        frontier: The memory law's posterior.
        n_launches: That taught it, earlier ones included.
        ladders: Steps of every numeric setting that memory depends on.
    """

    forecaster: Forecaster
    frontier: Frontier
    n_launches: int
    ladders: Mapping[str, tuple[OptionValue, ...]] = field(default_factory=dict)

    def places(self, configs: Sequence[ServingConfig], workload: Workload) -> list[Place | None]:
        """Where the twin expects some configurations, as if they all fitted."""
        if not configs:
            return []
        per_gpu, per_user = self._rates(configs, workload)
        pairs = zip(per_gpu.tolist(), per_user.tolist(), strict=True)
        return [Place(*pair) if all(map(math.isfinite, pair)) else None for pair in pairs]

    def _rates(self, configs: Sequence[ServingConfig], workload: Workload) -> tuple[Array, Array]:
        """Output tok/s per GPU and per user."""
        ranking = self.forecaster.rank(configs, workload, as_if_it_fitted=True)
        e2e_ms = ranking.ttft_ms + ranking.tpot_ms * (workload.osl - 1)
        return ranking.output_tok_per_s / self.forecaster.deployment.gpus, 1e3 * workload.osl / e2e_ms

    def maps(self, centre: ServingConfig) -> list[MemoryMap]:
        """P(fits) over every pair of settings around one configuration."""
        return [self._map(centre, x, y) for x, y in itertools.combinations(self.ladders, 2)]

    def _map(self, centre: ServingConfig, x: str, y: str) -> MemoryMap:
        x_steps, y_steps = self.ladders[x], self.ladders[y]
        flat = centre.flat()
        grid = [config_from_flat({**flat, x: right, y: up}) for up in y_steps for right in x_steps]
        margins_gib, slopes = self.forecaster.slopes(grid)
        mean, sd = self.frontier.margin_gib(slopes, margins_gib)
        tightest = (mean / sd).argmin(axis=1)[:, None]
        shape = (len(y_steps), len(x_steps))
        return MemoryMap(
            x=x,
            y=y,
            x_steps=x_steps,
            y_steps=y_steps,
            centre=centre,
            p_fits=self.frontier.p_fits(slopes, margins_gib).reshape(shape),
            margin_gib=np.take_along_axis(mean, tightest, axis=1).reshape(shape),
            margin_sd_gib=np.take_along_axis(sd, tightest, axis=1).reshape(shape),
        )

    def worth(self, before: ServingConfig, after: ServingConfig, workload: Workload) -> list[Worth]:
        """What each changed setting brought, as shares that add up to the whole predicted difference.

        The share is Shapley's: the mean over all orders in which the settings could have been changed.
        """
        old, new = before.flat(), after.flat()
        names = [name for name in dict.fromkeys([*old, *new]) if old.get(name) != new.get(name)][:MOST_CHANGED]
        if not names:
            return []
        subsets = [frozenset(chosen) for n in range(len(names) + 1) for chosen in itertools.combinations(names, n)]
        configs = [
            config_from_flat({**old, **{name: new[name] for name in chosen if name in new}}) for chosen in subsets
        ]
        per_gpu, _ = self._rates(configs, workload)
        budgets = [self.forecaster.law(config)(self._constants) for config in configs]
        values = np.stack(
            [
                per_gpu,
                [float(budget.kv_pool_gib) for budget in budgets],
                [float(budget.beside_pool_gib) for budget in budgets],
            ],
            axis=1,
        )
        if not np.isfinite(values).all():
            return []
        shares = shapley(names, dict(zip(subsets, values, strict=True)).__getitem__)
        return [Worth(name, old.get(name), new.get(name), *shares[name].tolist()) for name in names]

    @property
    def _constants(self) -> TwinConstants:
        """Of the memory law, as the launches left them."""
        return self.frontier.constants(self.forecaster.twin.constants)


def shapley(names: Sequence[str], value: Callable[[frozenset[str]], Array]) -> dict[str, Array]:
    """Each name's mean marginal contribution over all orders; they add up to value(all) - value(none).

    Args:
        names: The players.
        value: Of any set of them, an array of any shape.
    """
    n = len(names)
    shares = {}
    for name in names:
        others = [each for each in names if each != name]
        total = np.zeros_like(value(frozenset()))
        for size in range(n):
            weight = math.factorial(size) * math.factorial(n - size - 1) / math.factorial(n)
            for chosen in itertools.combinations(others, size):
                total = total + weight * (value(frozenset((*chosen, name))) - value(frozenset(chosen)))
        shares[name] = total
    return shares


def foresee(run: RunRead) -> Foresight | None:
    """The twin and the memory law of a run; None where there is no twin of its deployment."""
    card, earlier = run.card, run.earlier
    fixed = card.deployment
    unmodelled = run.summary is not None and run.summary.unmodelled is not None
    if unmodelled or fixed.pp > 1 or catalog.described(fixed.model) is None:
        return None
    try:
        constants = calibrated(earlier.calibration, fixed)
        forecaster = Forecaster(fixed, card.workloads, card.slo, constants=constants)
        known = taught(earlier.runs, fixed, constants=constants)
        frontier = LearntFrontier(forecaster, known)(run.records)
        ladders = _ladders(run, fixed)
    except BadInput:  # a GPU, a release or an option that this advisor does not know
        return None
    return Foresight(forecaster, frontier, frontier.n_launches, ladders)


def _ladders(run: RunRead, fixed: Deployment) -> dict[str, tuple[OptionValue, ...]]:
    """Steps of the four settings: those of the space, and whatever was launched beside it."""
    asked = run.card.as_asked
    space = catalog.search_space(SPACES[fixed.engine]) if asked is None else asked.space
    on_ladder = {dimension.name: dimension.values for dimension in space.active}
    launched = [record.config.flat() for record in run.records]
    steps = {
        name: tuple(sorted({*on_ladder.get(name, ()), *(flat[name] for flat in launched)}, key=float))
        for name in FOUR_SETTINGS
    }
    return {name: values for name, values in steps.items() if len(values) > 1}
