"""`tune`, wired: a question and how to answer it become a session, a session runs and leaves its results on disk."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from advisor.app.admission import MemoryGate
from advisor.app.asking_again import as_asked
from advisor.app.baseline_choice import choose_baselines
from advisor.app.calibrate import calibrated, label_of
from advisor.app.calibration import taught
from advisor.app.choosing import choose
from advisor.app.concluding import summarise
from advisor.app.context import StudyContext
from advisor.app.distance import with_expected_distances
from advisor.app.drawn_twins import DrawnTwins
from advisor.app.earlier import Asking, EarlierRuns, calibration_of, earlier_runs, note_earlier
from advisor.app.energy import check_measurable
from advisor.app.forecast import Forecaster, forecaster_of
from advisor.app.lessons import lessons
from advisor.app.machine import this_machine
from advisor.app.misses import with_nearest_misses
from advisor.app.prices import with_prices
from advisor.app.probing import LAUNCHES_PER_PROBE, Prober
from advisor.app.rescue import Rescuer
from advisor.app.results import StudySummary
from advisor.app.setup import Question, Resolved
from advisor.app.starts import NoStarts, TwinStarts
from advisor.app.trial_maker import TrialMaker
from advisor.app.tuner import Tuner
from advisor.app.twin_prior import TwinPrior, belief_of
from advisor.app.verifiable import with_noticeable_losses
from advisor.domain.errors import BadInput
from advisor.domain.ports import CancelToken, Closable, Engine, Proposer, Reporter
from advisor.domain.serving_config import OptionValue, ServingConfig
from advisor.domain.strict import StrictModel, changed, unknown_name
from advisor.domain.trial import TrialRecord
from advisor.engines.spoken import ENGINES_SPOKEN
from advisor.host.process import end_leftovers
from advisor.host.secrets import Redactor
from advisor.search.baselines import Baseline, baseline_named
from advisor.search.loads import USUAL_LOADS
from advisor.search.proposer import OwnProposer
from advisor.search.space import widened
from advisor.search.standings import deciding
from advisor.search.stopping import search_launches
from advisor.store.ledger import OptunaLedger
from advisor.store.run_card import Machine, RunCard, write_card
from advisor.store.stock_samplers import STOCK_SAMPLERS, make_proposer
from advisor.store.trial_folder import has_trials
from advisor.twin.constants import STARTUP

OWN_SAMPLER = "advisor"
SAMPLERS = (OWN_SAMPLER, *STOCK_SAMPLERS)
RESCUE_LAUNCHES = 8
PREDICTED_EXACTLY = 20  # of the approximate ranking's best


class How(StrictModel):
    """How the study is to be run, as opposed to what it is about."""

    engine: str = "auto"
    twin_world: int = Field(default=0, ge=0)
    container_image: str | None = None
    launch_prefix: str | None = None
    client_check: bool = True
    hold_next: bool = False
    sampler: str = OWN_SAMPLER
    baselines: tuple[str, ...] = ()
    rescue: str | None = Field(default=None, description="YAML file of a configuration that does not run")
    seed: int = Field(default=0, ge=0)
    out: Path = Path("results")
    storage: str | None = None
    resume: bool = False
    transfer: bool = Field(default=True, description="Learn from earlier studies below `out`")
    calibration: bool = Field(default=True, description="Go by the calibration below `out`, where there is one")
    max_probes: int | None = Field(default=None, ge=0, description="Memory-only probes; none for a quarter of launches")
    top_n: int = Field(default=5, ge=1)
    early_stop: bool = True
    soak: bool = Field(default=True, description="Who would win must survive the heaviest load of the study")
    verifiable: bool = Field(default=False, description="Launch each winner until a verification can tell a loss")

    @property
    def engine_options(self) -> dict[str, dict[str, OptionValue]]:
        """What was said to each engine."""
        launch: dict[str, OptionValue | None] = {
            "container_image": self.container_image,
            "launch_prefix": self.launch_prefix,
            "client_check": None if self.client_check else False,
        }
        spoken = {option: said for option, said in launch.items() if said is not None}
        return {
            "twin": {"world": self.twin_world} if self.twin_world else {},
            **dict.fromkeys(ENGINES_SPOKEN, spoken),
            "vllm": {**spoken, "hold_next": True} if self.hold_next else spoken,
        }


@dataclass(frozen=True)
class Session:
    """A resolved study ready to run: nothing was launched and nothing written yet."""

    resolved: Resolved
    how: How
    context: StudyContext
    engine: Engine
    forecaster: Forecaster
    gate: MemoryGate
    starts: TwinStarts
    proposer: Proposer
    earlier: EarlierRuns
    why_twin: str | None

    @property
    def study_folder(self) -> Path:
        """`results/<study>/`."""
        return self.how.out / self.context.name

    @property
    def run_folder(self) -> Path:
        """`results/<study>/<run>/`."""
        return _run_folder(self.how, self.context)

    @property
    def max_probes(self) -> int:
        """Memory-only probes that the search may buy."""
        said = self.how.max_probes
        return self.context.budget.max_launches // LAUNCHES_PER_PROBE if said is None else said

    @property
    def n_starts(self) -> int:
        """Choices of the twin that are launched first: none without a twin, or where the sampler knows it itself."""
        without = self.how.sampler == OWN_SAMPLER or self.context.unmodelled is not None
        return 0 if without else self.starts.n

    def is_begun(self) -> bool:
        """True when the run folder already holds finished trials."""
        return has_trials(self.run_folder)

    def expected_hours(self) -> float | None:
        """Server time that the budget allows; None where nobody can say."""
        launch = self.expected_launch_hours
        return None if launch is None else min(self.context.server_hours, self.context.budget.max_launches * launch)

    @functools.cached_property
    def expected_launch_hours(self) -> float | None:
        """Server time of one launch, from the predicted baseline or the first start that would run.

        None where nobody can say: without a twin, or where the twin expects none of them to run.
        """
        if self.context.unmodelled is not None:
            return None
        tried = [self.context.baseline.config, *self.starts.considered[0][:3]]
        for config in tried:
            if config is None:
                continue
            predictions = [self.forecaster.predict(config, workload) for workload in self.context.workloads]
            metrics = [prediction.metrics for prediction in predictions if prediction.metrics is not None]
            if len(metrics) == len(predictions):
                n_loads = USUAL_LOADS if self.context.objective.metric == "goodput" else 1
                loads_s = n_loads * sum(each.duration_s for each in metrics)
                start_s = STARTUP.total_s(predictions[0].memory_gib.weights, n_graphs=20)
                return (start_s + loads_s) / 3600
        return None

    def predicted_gain(self) -> float | None:
        """The most that the twin expects over the baseline, 1.0 = equal; None where the baseline would not do."""
        if self._log_gain(self.context.baseline.config) is None:
            return None
        gains = [self._log_gain(config) for config in self.starts.considered[0][:PREDICTED_EXACTLY]]
        return math.exp(max([0.0, *(gain for gain in gains if gain is not None)]))

    def _log_gain(self, config: ServingConfig | None) -> float | None:
        """Mean log gain over the prediction at the baseline; None where memory or a limit forbids it."""
        context, logs = self.context, []
        for workload in context.workloads if config is not None else ():
            prediction = None if config is None else context.predict(config, workload)
            metrics = None if prediction is None else prediction.metrics
            value = None if metrics is None or not context.slo.met(metrics) else context.objective.value(metrics)
            if not value:
                return None
            logs.append(math.log(context.objective.gain(value, context.references[workload.name])))
        return sum(logs) / len(logs) if logs else None

    def open_ledger(self) -> OptunaLedger:
        """The run's ledger, opened and repaired.

        Raises:
            BadInput: results exist and `resume` was not said, another process is at it, or another study lies there.
        """
        context = self.context
        ledger = OptunaLedger(
            self.run_folder,
            name=f"{context.name}/{context.run_name}",
            space=context.space,
            proposer=self.proposer,
            slo=context.slo,
            value_of=context.value_of,
            seed=context.seed,
            identity={
                "study": context.fingerprint,
                "engine": context.identity.label,
                "source": context.identity.source,
                "sampler": context.sampler,
                "seed": str(context.seed),
            },
            storage=self.how.storage,
            resume=self.how.resume,
        )
        try:
            note_earlier(self.run_folder, self.earlier)
            card = changed(_card(context), machine=self._machine(), as_asked=as_asked(context, self.resolved.study))
            write_card(self.run_folder, card)
        except BadInput:
            ledger.close()
            raise
        return ledger

    def _machine(self) -> Machine | None:
        measured = self.context.identity.source == "measured"
        return this_machine(self.how.container_image, os.environ) if measured else None

    def redacted(self, text: str) -> str:
        """A text without the secrets that this process knows, or that look like one."""
        return Redactor(os.environ).text(text)

    def run(self, ledger: OptunaLedger, reporter: Reporter, cancel: CancelToken) -> StudySummary:
        """Run to the end and say what came out. Files are the caller's business.

        Servers that an earlier advisor left in this run, killed together with its guardian, are ended first.
        """
        left = end_leftovers(str(self.run_folder.absolute()))
        if left:
            reporter.note(f"Ended what an earlier run left behind: processes {', '.join(map(str, left))}.")
        try:
            return self._run(ledger, reporter, cancel)
        finally:
            if isinstance(self.engine, Closable):
                self.engine.close()

    def _run(self, ledger: OptunaLedger, reporter: Reporter, cancel: CancelToken) -> StudySummary:
        trials = TrialMaker(context=self.context, engine=self.engine, ledger=ledger, reporter=reporter)
        if self.how.rescue is not None:
            rescuer = Rescuer(trials=trials, gate=self.gate, forecaster=self.forecaster, cancel=cancel)
            ending = rescuer.run()
            return changed(self.summary(ledger.records(), ending), rescue=rescuer.report(ledger.records()))
        starts = self.starts if self.n_starts else NoStarts()
        prober = Prober(trials, self.gate, self.max_probes)
        tuner = Tuner(trials=trials, admission=self.gate, starts=starts, cancel=cancel, probes=prober)
        stopped_by = tuner.run()
        return self.summary(ledger.records(), stopped_by)

    @property
    def taught_by(self) -> tuple[str, ...]:
        """Earlier runs that the search learns from, each with what it was about."""
        runs = self.earlier.runs if self.how.sampler == OWN_SAMPLER else ()
        return tuple(run.about(self.context.deployment) for run in runs)

    @property
    def twin_calibration(self) -> str:
        """Launches that the twin's constants were fitted to, in words, or `none`."""
        return label_of(self.earlier.calibration)

    def summary(self, records: Sequence[TrialRecord], stopped_by: str) -> StudySummary:
        """The study as its records tell it."""
        found = summarise(self.context, records, stopped_by, self.how.top_n)
        found = changed(
            found,
            taught_by=self.taught_by,
            unmodelled=self.context.unmodelled,
            twin_calibration=self.twin_calibration,
            kernels=self.forecaster.kernels,
        )
        if self.how.sampler == OWN_SAMPLER:
            found = with_expected_distances(found, self.context, deciding(records), self.gate.frontier)
        found = with_noticeable_losses(found)
        return with_prices(with_nearest_misses(found, self.context, records, self.forecaster), self.gate, records)


def open_session(question: Question, how: How) -> Session:
    """Resolve a question.

    Raises:
        BadInput: anything that cannot be meant.
        EngineMissing: an engine asked for by name that is not here.
    """
    chosen = choose(question, how.engine, how.engine_options, os.environ)
    resolved, engine = chosen.resolved, chosen.engine
    identity = engine.identity()
    check_measurable(resolved.objective, identity.source, resolved.deployment.gpus)
    forecaster = forecaster_of(resolved)
    asked = how.baselines if how.rescue is None else (*how.baselines, how.rescue)
    baselines, launched = choose_baselines(resolved, asked, forecaster)
    if how.rescue is not None and how.verifiable:
        raise BadInput("--verifiable means nothing to --rescue, which ends at the first that serves: leave one out.")
    if how.rescue is None:
        _check_room(resolved, launched)
    else:
        resolved, launched = _for_rescue(resolved, question, baselines, how.rescue), (how.rescue,)
    prior = TwinPrior(forecaster, resolved.space, resolved.objective, resolved.slo)
    context = StudyContext(
        name=resolved.study.name,
        title=resolved.title,
        deployment=resolved.deployment,
        facts=forecaster.facts,
        gpu=forecaster.gpu,
        workloads=resolved.workloads,
        space=resolved.space,
        objective=resolved.objective,
        slo=resolved.slo,
        budget=resolved.budget,
        deadlines=resolved.study.deadlines,
        baselines=baselines,
        launched_baselines=launched,
        engine=chosen.ref,
        identity=identity,
        sampler=how.sampler,
        seed=how.seed,
        predict=forecaster.shown,
        memory_of_launch=forecaster.memory_of_launch,
        references=forecaster.references(baselines, launched, resolved.objective, resolved.space),
        prior=prior,
        belief=belief_of(forecaster),
        defaults=resolved.defaults,
        vary=resolved.vary,
        max_answer_drift=resolved.max_answer_drift,
        unmodelled=None if forecaster.stand_in is None else forecaster.stand_in.why,
        early_stop=how.early_stop,
        soak=how.soak,
        verifiable=how.verifiable,
    )
    asking = Asking(_run_folder(how, context), _card(context))
    earlier = earlier_runs(how.out, asking) if how.transfer else EarlierRuns()
    calibration = calibration_of(how.out, asking, wanted=how.calibration) if forecaster.stand_in is None else None
    if calibration is not None:
        earlier = changed(earlier, calibration=calibration)
        constants = calibrated(calibration, context.deployment)
        forecaster = Forecaster(resolved.deployment, resolved.workloads, resolved.slo, constants=constants)
        context, prior = _foreseen_by(forecaster, context)
    known = taught(earlier.runs, context.deployment, forecaster.stand_in, forecaster.twin.constants)
    gate = MemoryGate(context, forecaster, known)
    return Session(
        resolved=resolved,
        how=how,
        context=context,
        engine=engine,
        forecaster=forecaster,
        gate=gate,
        starts=TwinStarts(context, forecaster, gate),
        proposer=_proposer(how.sampler, context, prior, gate, earlier),
        earlier=earlier,
        why_twin=chosen.why_twin,
    )


def _foreseen_by(forecaster: Forecaster, context: StudyContext) -> tuple[StudyContext, TwinPrior]:
    """A study as a forecaster sees it."""
    prior = TwinPrior(forecaster, context.space, context.objective, context.slo)
    references = forecaster.references(context.baselines, context.launched_baselines, context.objective, context.space)
    foreseen = dataclasses.replace(
        context,
        predict=forecaster.shown,
        memory_of_launch=forecaster.memory_of_launch,
        references=references,
        prior=prior,
    )
    return foreseen, prior


def _run_folder(how: How, context: StudyContext) -> Path:
    return how.out / context.name / context.run_name


def _card(context: StudyContext) -> RunCard:
    return RunCard(
        study=context.name,
        source=context.identity.source,
        engine_label=context.identity.label,
        deployment=context.deployment,
        workloads=context.workloads,
        objective=context.objective,
        slo=context.slo,
    )


def _proposer(name: str, context: StudyContext, prior: TwinPrior, gate: MemoryGate, earlier: EarlierRuns) -> Proposer:
    """A sampler by name: advisor's own, or one of Optuna's.

    Raises:
        BadInput: unknown name, or a package it needs is not installed.
    """
    if name not in SAMPLERS:
        raise unknown_name("sampler", name, SAMPLERS)
    if name != OWN_SAMPLER:
        return make_proposer(name, context.space, context.slo, context.value_of)
    taught_before = functools.cache(lambda: lessons(earlier.runs, prior, context.deployment))
    sought = dataclasses.replace(context.sought, lessons=taught_before)
    drawing = DrawnTwins(prior) if context.unmodelled is None else None
    return OwnProposer(sought, frontier=gate.frontier, admissible=gate.is_legal, drawing=drawing)


def _check_room(resolved: Resolved, launched: Sequence[str]) -> None:
    room = search_launches(resolved.budget, len(resolved.workloads))
    if len(launched) > room:
        raise BadInput(
            f"--max-launches {resolved.budget.max_launches} leaves room for {room} launches before the confirmation, "
            f"fewer than the {len(launched)} baselines {', '.join(launched)}: raise it, or ask for fewer."
        )


def _for_rescue(resolved: Resolved, question: Question, baselines: Sequence[Baseline], name: str) -> Resolved:
    """The study of a rescue: the file is a point of the space, and the budget a small one unless more was said."""
    config = baseline_named(name, baselines).config
    assert config is not None
    launches = question.max_launches or min(RESCUE_LAUNCHES, resolved.budget.max_launches)
    budget = changed(resolved.budget, max_launches=launches)
    return changed(resolved, space=widened(resolved.space, config), budget=budget)
