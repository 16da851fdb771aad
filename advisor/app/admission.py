"""The gate before a launch: the engine's rules, then the memory law corrected by every GiB the study has seen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from advisor.app.calibration import UNTAUGHT, Taught, said_of
from advisor.app.context import StudyContext
from advisor.app.forecast import Forecaster
from advisor.app.stand_in import MEMORY_PRIOR
from advisor.domain.deployment import Deployment
from advisor.domain.outcome import Rejected
from advisor.domain.serving_config import ServingConfig
from advisor.domain.trial import TrialRecord
from advisor.domain.workload import Workload
from advisor.memory.frontier import AT_START, PRIOR, Frontier, Observation, fit, margins
from advisor.search.admission import MEMORY_RULE, Forecast, admit
from advisor.search.space import all_configs, indices_of

SAFE_P_FITS = 0.8  # for a stand-in baseline, which should run at the first try


class LearntFrontier:
    """The memory law of a deployment, fitted to all that launches of earlier studies and of this one said."""

    def __init__(self, forecaster: Forecaster, earlier: Taught = UNTAUGHT) -> None:
        self.forecaster, self.earlier = forecaster, earlier
        self.prior = PRIOR if forecaster.stand_in is None else MEMORY_PRIOR
        self._said: dict[int, list[Observation]] = {}
        self._fitted: tuple[int, Frontier] = (0, self._fit([]))

    def __call__(self, records: Sequence[TrialRecord]) -> Frontier:
        """After some records; as many as last time are the same."""
        launched = [record for record in records if record.launched]
        if self._fitted[0] != len(launched):
            self._fitted = len(launched), self._fit(launched)
        return self._fitted[1]

    def _fit(self, launched: Sequence[TrialRecord]) -> Frontier:
        for record in launched:
            if record.number not in self._said:
                self._said[record.number] = said_of(record, self.forecaster)
        said = [each for record in launched for each in self._said[record.number]]
        return fit([*self.earlier.said, *said], self.prior, n_launches=self.earlier.n_launches + len(launched))


class MemoryGate:
    """Implements the tuner's `Admission` for one study."""

    def __init__(self, context: StudyContext, forecaster: Forecaster, earlier: Taught = UNTAUGHT) -> None:
        self.context, self.forecaster = context, forecaster
        self.frontier = LearntFrontier(forecaster, earlier)

    def admit(self, config: ServingConfig, records: Sequence[TrialRecord]) -> Rejected | None:
        """Why a proposal should not be launched, or None."""
        return admit(
            config,
            self.context.deployment,
            self.context.workloads,
            lambda: self.forecast(config, records),
            engine_rules=(self._release_rule,),
        )

    def is_legal(self, config: ServingConfig) -> bool:
        """True when no static rule refuses a configuration, whatever becomes of its memory."""
        context = self.context
        rules = (self._release_rule,)
        return admit(config, context.deployment, context.workloads, None, engine_rules=rules) is None

    def forecast(self, config: ServingConfig, records: Sequence[TrialRecord]) -> Forecast:
        """P(fits) and the expected shortfall of one configuration, after what the records taught."""
        frontier = self.frontier(records)
        margin_gib, slopes = self.forecaster.slopes([config])
        return Forecast(
            p_fits=float(frontier.p_fits(slopes, margin_gib)[0]),
            shortfall_gib=float(frontier.expected_shortfall_gib(slopes, margin_gib)[0]),
            kv_tokens=self._kv_tokens(config),
        )

    def p_starts(self, config: ServingConfig, records: Sequence[TrialRecord]) -> float:
        """Probability that memory lasts until the server is up, before any load."""
        margins_gib, J = margins(self.forecaster.law(config), self.forecaster.twin.constants, AT_START)
        return float(self.frontier(records).p_fits(J[None], margins_gib[None])[0])

    def _kv_tokens(self, config: ServingConfig) -> int:
        """Predicted; without a twin nobody can say that a request would not fit."""
        known = self.forecaster.stand_in is None
        return int(self.forecaster.budget(config).kv_tokens) if known else self.forecaster.needed_tokens

    def nearest_fitting(self, config: ServingConfig, records: Sequence[TrialRecord]) -> ServingConfig | None:
        """The configuration fewest ladder steps away that most probably fits, else the one that lacks least memory.

        One surprising OOM can make the law doubt everything; the least doubtful launch then sets it right. None when
        rules other than memory refuse everything.
        """
        space = self.context.space
        tried = {record.config for record in records}
        alike = [each for each in all_configs(space) if each.options == config.options and each not in tried]
        if not alike:
            return None
        margins_gib, slopes = self.forecaster.slopes(alike)
        frontier = self.frontier(records)
        p_fits = frontier.p_fits(slopes, margins_gib)
        shortfalls_gib = frontier.expected_shortfall_gib(slopes, margins_gib)
        here = np.array(list(indices_of(space, config).values()))
        steps = np.array([np.abs(np.array(list(indices_of(space, each).values())) - here).sum() for each in alike])
        doubt = np.where(p_fits >= SAFE_P_FITS, 0.0, 1.0 + np.round(shortfalls_gib))  # a GiB weighs more than any step
        order: list[int] = np.lexsort((steps, doubt)).tolist()
        for candidate in (alike[place] for place in order):
            refusal = self.admit(candidate, records)
            if refusal is None or refusal.rule == MEMORY_RULE:
                return candidate
        return None

    def _release_rule(
        self, config: ServingConfig, deployment: Deployment, workloads: Sequence[Workload]
    ) -> Rejected | None:
        violations = self.forecaster.dialect.violations(deployment, config, workloads, self.context.max_seq_len)
        errors = [violation for violation in violations if violation.severity == "error"]
        if not errors:
            return None
        return Rejected(rule=errors[0].rule, reason=errors[0].message, excess=min(10.0, errors[0].excess))
