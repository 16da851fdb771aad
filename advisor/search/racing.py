"""Which configuration is the best of those launched, how sure that is, and which launch would tell more.

Everything follows from draws of the true outputs (`search/posterior.py`). Symbols: S draws, n configurations.
"Best" means that no other one that keeps its limits with `MARGIN` to spare is truly more than `MARGIN` better: a
configuration at the very edge of a limit is nothing to rely on, and no number of launches tells which side it is on.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from advisor.domain.objective import SloLimit
from advisor.domain.serving_config import ServingConfig
from advisor.domain.strict import changed
from advisor.domain.trial import TrialRecord
from advisor.domain.workload import Workload
from advisor.search.admission import LEAST_P_FITS
from advisor.search.expectation import Sought, belief_in, expectations
from advisor.search.posterior import N_DRAWS, Believed, Told, believed
from advisor.search.prior import OBJECTIVE, log_output, outputs, places_of
from advisor.search.robust import robust
from advisor.search.space import all_configs
from advisor.search.standings import TIE_FRACTION, Standing, comparison, fallen, preferred, standings
from advisor.search.stopping import MAX_ROUNDS

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

LEVEL = 0.95
GOAL = 0.98  # of the race while launches are left: who is at the level for one moment is there by luck more often
MARGIN = 0.01  # a lead that nobody would change a configuration for
LEAST_P_KEEPS = 0.5  # of a winner: rather within its limits than not
DOUBTFUL = (0.05, 0.95)  # P(limits) between which a launch of a rival is worth most as a test of its limits
UNBIASED = ("baseline", "confirmation")  # roles of trials that nobody picked for being high
LOOKED_AT, ASKED_AT = 600, 80  # of the grid, for its distance: first by a bound, then by what is expected
MOST_CONTENDERS = 24  # by value: whoever is behind these is not the best


@dataclass(frozen=True, eq=False)
class Contest:
    """One workload: what is believed of configurations in order of their standings.

    Attributes:
        table: Standings of the n configurations.
        log_values: Draws of the true log objective, larger is better, shape (S, n).
        keeps: Draws of whether all limits are kept with `MARGIN` to spare, as one must to be called better, (S, n).
        eligible: May win, shape (n,).
        noise: Standard deviation of the log objective between launches.
        drift: Of the objective's log over the study so far, with its standard deviation.
    """

    table: Sequence[Standing]
    log_values: Array
    keeps: Flags
    eligible: Flags
    noise: float
    drift: tuple[float, float]

    @functools.cached_property
    def means(self) -> Array:
        """Expected log objective, shape (n,)."""
        return np.asarray(self.log_values.mean(axis=0))

    def leader(self, among: Flags | None = None, default: ServingConfig | None = None) -> int | None:
        """The place that wins: most expected of the eligible, ties as in `preferred`; None where nobody may win.

        Args:
            among: Only these, shape (n,).
            default: The engine's own configuration.
        """
        may = np.flatnonzero(self.eligible if among is None else self.eligible & among)
        if not len(may):
            return None
        order = may[np.argsort(-self.means[may], kind="stable")]
        tied = order[self.means[order] >= self.means[order[0]] - math.log1p(TIE_FRACTION)]
        return self.place_of(preferred([self.table[place] for place in tied], default).config)

    def winner(self, among: Flags, default: ServingConfig | None = None) -> int | None:
        """Of some near the leader, who is the best for sure: the leader of those that are so with `LEVEL`.

        Where nobody is, it is the most probable. A leader by a hair that half of the others may beat is none.

        Args:
            among: Only these, shape (n,).
            default: The engine's own configuration.
        """
        leader = self.leader(default=default)
        if leader is None:
            return None
        may = self.eligible & among & (self.means >= self.means[leader] - math.log1p(MARGIN))
        sure = self.leader(may & (self.p_bests >= LEVEL), default)
        if sure is None and may.any():
            return int(np.where(may, self.p_bests, -1.0).argmax())
        return sure

    def place_of(self, config: ServingConfig) -> int | None:
        """Where a configuration stands in the table."""
        return next((place for place, standing in enumerate(self.table) if standing.config == config), None)

    def beaten(self, place: int) -> Flags:
        """Draws in which another one is truly better than `place` by more than `MARGIN`, and who, shape (S, n)."""
        return np.asarray((self.log_values > self.log_values[:, [place]] + math.log1p(MARGIN)) & self.keeps)

    def p_best(self, place: int) -> float:
        """Probability that nobody is truly more than `MARGIN` better."""
        return float(self.p_bests[place])

    @functools.cached_property
    def p_bests(self) -> Array:
        """Of each the probability that nobody is truly more than `MARGIN` better, shape (n,)."""
        return np.array([1.0 - self.beaten(place).any(axis=1).mean() for place in range(len(self.table))])

    def rivals(self, place: int) -> list[int]:
        """The fewest, likeliest first, that must be named so that the best is named with `LEVEL`; none when it is."""
        beaten, named = self.beaten(place).copy(), []
        while beaten.any(axis=1).mean() > 1 - LEVEL:
            named.append(int(beaten.sum(axis=0).argmax()))
            beaten[beaten[:, named[-1]]] = False
        return named

    def most_telling(self, place: int) -> int | None:
        """Whose launch says most about `place` and its likeliest rival; None where there is no rival.

        It is the one whose measurement explains most of the variance of their difference: often one of the two, or a
        third that moves with one of them. A rival whose limits are in doubt is launched itself.
        """
        chances = self.beaten(place).mean(axis=0)
        rival, likely = int(chances.argmax()), self.keeps.mean(axis=0)
        if not chances[rival]:
            return None
        if DOUBTFUL[0] < likely[rival] < DOUBTFUL[1]:
            return rival
        centred = self.log_values - self.means
        shared = ((centred[:, rival] - centred[:, place]) @ centred) / len(centred)
        explained = shared**2 / (centred.var(axis=0) + self.noise**2)
        return int(np.where(likely > DOUBTFUL[0], explained, 0.0).argmax())


@dataclass(frozen=True, eq=False)
class Decision:
    """One workload as it stands. `winner` is None where nothing keeps the limits; `p_best` is of the winner."""

    contest: Contest | None = None
    winner: int | None = None

    @property
    def standing(self) -> Standing | None:
        """The winner's."""
        return None if self.contest is None or self.winner is None else self.contest.table[self.winner]

    @functools.cached_property
    def p_best(self) -> float | None:
        """Probability that nothing launched is truly more than `MARGIN` better than the winner."""
        return None if self.contest is None or self.winner is None else self.contest.p_best(self.winner)


@dataclass(frozen=True)
class Repeat:
    """A configuration to launch again, and why; `is_winner` where it would win a workload."""

    config: ServingConfig
    why: str
    is_winner: bool


@dataclass(frozen=True)
class Race:
    """Decides from the records alone, so that a resumed study goes on as it would have.

    Attributes:
        sought: Space, workloads, objective, limits and prior.
        default: The engine's own configuration.
    """

    sought: Sought
    default: ServingConfig | None = None

    def decisions(self, records: Sequence[TrialRecord]) -> dict[str, Decision]:
        """By name of the workload."""
        return {workload.name: self.decision(records, workload) for workload in self.sought.workloads}

    def decision(self, records: Sequence[TrialRecord], workload: Workload) -> Decision:
        """The winner of a workload.

        One that was launched again is preferred to one that was not and is not expected to be `MARGIN` better.
        """
        contest = self.contest(records, workload)
        if contest is None:
            return Decision()
        again = {record.config for record in records if record.role == "confirmation" and record.measured}
        sure = contest.winner(np.array([each.config in again for each in contest.table]), self.default)
        return Decision(
            contest, contest.winner(np.ones(len(contest.table), bool), self.default) if sure is None else sure
        )

    def next(self, records: Sequence[TrialRecord], room: int) -> Repeat | None:
        """The next launch of the confirmation; None when everything is decided or nothing is left.

        Winner and what it is compared with come first and are owed two launches each. What the budget leaves beyond
        that goes, between the two rounds, to whoever tells most about the least decided workload.

        Args:
            records: All trials so far.
            room: Launches that the confirmation may still take.
        """
        if room <= 0:
            return None
        decisions = self.decisions(records)
        n_again = Counter(record.config for record in records if record.role == "confirmation" and record.measured)
        contenders = self._contenders(records, decisions)[: max(2, (room + sum(n_again.values())) // MAX_ROUNDS)]
        rounds = range(MAX_ROUNDS) if len(contenders) > 1 else ()
        owed = [(n, config) for n in rounds for config in contenders if n_again[config] <= n]
        telling = _most_telling(decisions.values()) if room > len(owed) and not (owed and owed[0][0] == 0) else None
        won = {each.standing.config for each in decisions.values() if each.standing is not None}
        if telling is not None:
            return Repeat(telling, "race of the best", telling in won)
        if not owed:
            return None
        number, config = owed[0]
        return Repeat(config, f"confirmation round {number + 1}", config in won)

    def _contenders(self, records: Sequence[TrialRecord], decisions: Mapping[str, Decision]) -> list[ServingConfig]:
        """Most useful first: the winner of most workloads, what it is compared with, the robust one, other winners."""
        won = [each.standing.config for each in decisions.values() if each.standing is not None]
        reference = comparison(records)
        if not won or reference is None or reference.config in fallen(records):
            return []
        for_all = robust(self.searched_tables(records), self.sought.objective)
        winners = sorted(dict.fromkeys(won), key=lambda config: (-won.count(config), config != for_all))
        return list(dict.fromkeys([winners[0], reference.config, *([for_all] if for_all else []), *winners[1:]]))

    def searched_tables(self, records: Sequence[TrialRecord]) -> dict[str, list[Standing]]:
        """Standings by workload as the search measured them: the confirmation chooses nothing but who falls."""
        sought, searched = self.sought, [record for record in records if record.role != "confirmation"]
        dead = fallen(records)
        tables = {w.name: standings(searched, w.name, sought.objective, sought.slo) for w in sought.workloads}
        return {
            name: [changed(each, feasible=each.feasible and each.config not in dead) for each in table]
            for name, table in tables.items()
        }

    def contest(self, records: Sequence[TrialRecord], workload: Workload) -> Contest | None:
        """What is believed of every configuration that was measured; None where none was."""
        sought = self.sought
        table = standings(records, workload.name, sought.objective, sought.slo)[:MOST_CONTENDERS]
        if not table:
            return None
        fair = [record for record in records if record.role in UNBIASED]
        again = {each.config: each for each in standings(fair, workload.name, sought.objective, sought.slo)}
        dead = fallen(records)
        ages = _ages(records)
        objective, spare = self._drawn(table, (), workload, ages)
        spare[:, [each.config in dead for each in table]] = -np.inf
        eligible = np.array([each.feasible and again.get(each.config, each).feasible for each in table])
        span = -min(ages.values())
        return Contest(
            table=table,
            log_values=objective.draws,
            keeps=spare >= math.log1p(MARGIN),
            eligible=eligible & ((spare >= 0).mean(axis=0) >= LEAST_P_KEEPS),
            noise=objective.noise,
            drift=(span * objective.drift, span * objective.drift_sd),
        )

    def expected_distance(
        self, records: Sequence[TrialRecord], workload: Workload, place: int, p_fits: Array
    ) -> float | None:
        """How much better the best of the whole grid is expected to be than the winner, a fraction: a prediction.

        Args:
            records: All trials so far.
            workload: Under which.
            place: Of the winner in the standings.
            p_fits: Probability that memory suffices, of the whole grid, shape (N,).

        Returns:
            None where the prior knows nothing of the grid.
        """
        sought, number = self.sought, self.sought.workloads.index(workload)
        table = standings(records, workload.name, sought.objective, sought.slo)[:MOST_CONTENDERS]
        view = expectations(sought, records)[number]
        hoped = np.where(p_fits >= LEAST_P_FITS, view.hoped_gain(), 0.0)
        rows = np.argsort(-hoped, kind="stable")[:LOOKED_AT]
        rows = rows[np.argsort(-np.where(hoped[rows] > 0, view.expected_gain(rows), 0.0), kind="stable")[:ASKED_AT]]
        configs = all_configs(sought.space)
        beside = [configs[row] for row in rows if configs[row] not in {each.config for each in table}]
        if not np.isfinite(sought.prior.at(beside).log_values[workload.name, OBJECTIVE]).all():
            return None
        objective, spare = self._drawn(table, beside, workload, _ages(records))
        best = np.where(spare >= 0, objective.draws, -np.inf).max(axis=1)
        lost = np.maximum(0.0, best - objective.draws[:, place])
        return -math.expm1(-float(lost.mean()))

    @property
    def _limits(self) -> tuple[SloLimit, ...]:
        """Those that may be broken: goodput is compared at loads that were searched to keep them just so."""
        return () if self.sought.objective.metric == "goodput" else self.sought.slo.limits

    def _drawn(
        self, table: Sequence[Standing], beside: Sequence[ServingConfig], workload: Workload, ages: Mapping[int, int]
    ) -> tuple[Believed, Array]:
        """What is believed of the objective, and draws of the least log(limit / latency): `table`, then `beside`."""
        told = {name: self._told(table, beside, workload, name, ages) for name in outputs(self.sought.slo)}
        found = {name: believed(each, seed) for seed, (name, each) in enumerate(told.items()) if each is not None}
        spare = np.full((N_DRAWS, len(table) + len(beside)), np.inf)
        for limit in self._limits:
            if limit.name in found:
                spare = np.minimum(spare, math.log(limit.limit_ms) - found[limit.name].draws)
        return found[OBJECTIVE], spare

    def _told(
        self,
        table: Sequence[Standing],
        beside: Sequence[ServingConfig],
        workload: Workload,
        name: str,
        ages: Mapping[int, int],
    ) -> Told | None:
        """The runs of one output; None where it is undefined, such as TPOT of one-token answers.

        Where the twin expects that one of the configurations could not be served, or knows no such output, its
        predictions are left out altogether.
        """
        runs = [
            (place, log_output(name, outcome.metrics, self.sought.objective), ages[number])
            for place, standing in enumerate(table)
            for number, outcome in zip(standing.numbers, standing.outcomes, strict=True)
            if outcome.metrics is not None
        ]
        known = [(place, value, age) for place, value, age in runs if value is not None]
        if len(known) < len(runs):
            return None
        at, log_values, run_ages = (np.array(column) for column in zip(*known, strict=True))
        configs = [*(standing.config for standing in table), *beside]
        prior = self.sought.prior.at(configs)
        log_prior, slopes = prior.log_values[workload.name, name], prior.slopes[workload.name, name]
        if not np.isfinite(log_prior).all():
            log_prior, slopes = np.full(len(configs), log_values.mean()), np.zeros((len(configs), 0))
        return Told(
            places=places_of(self.sought.space, configs),
            slopes=slopes,
            log_prior=log_prior,
            bias=belief_in(self.sought, name).bias,
            at=at,
            log_values=log_values,
            ages=run_ages.astype(float),
        )


def _ages(records: Sequence[TrialRecord]) -> dict[int, int]:
    """Launches from every launched trial to the latest, by trial number, <= 0."""
    launched = [record.number for record in records if record.launched]
    return {number: place - len(launched) + 1 for place, number in enumerate(launched)}


def _most_telling(decisions: Iterable[Decision]) -> ServingConfig | None:
    """Whom to launch for the least decided workload; None where all are decided or nobody would tell more."""
    undecided = [each for each in decisions if each.p_best is not None and each.p_best < GOAL]
    for decision in sorted(undecided, key=lambda each: each.p_best or 0.0):
        assert decision.contest is not None and decision.winner is not None
        place = decision.contest.most_telling(decision.winner)
        if place is not None:
            return decision.contest.table[place].config
    return None
