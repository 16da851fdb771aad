"""Earlier launches of a deployment as knowledge of its memory: their records are the frontier that is kept.

Only launches of the same model, quantization, GPU, parallelism and release count. What a law of another release or GPU
is wrong about is just what a release or a GPU changes, so those teach nothing here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from advisor.app.earlier import Asking, EarlierRun, find_earlier
from advisor.app.engines import load_engine
from advisor.app.forecast import Forecaster
from advisor.app.stand_in import StandIn
from advisor.domain.deployment import Deployment
from advisor.domain.measurement import Source
from advisor.domain.objective import Objective, Slo
from advisor.domain.ports import EngineRef
from advisor.domain.trial import TrialRecord
from advisor.domain.workload import Workload, parse_workload
from advisor.memory.frontier import Frontier, Law, Observation, fit, observations
from advisor.search.kinship import distance
from advisor.store import catalog
from advisor.store.run_card import RunCard
from advisor.twin.constants import NOMINAL, TwinConstants

NO_CALIBRATION = "none"
ANY = (parse_workload("1k1k"),)


class Run(Protocol):
    """A run as one learns from it: where it lies, what it was about, its finished trials."""

    @property
    def folder(self) -> str | Path: ...
    @property
    def card(self) -> RunCard: ...
    @property
    def records(self) -> Sequence[TrialRecord]: ...


@dataclass(frozen=True)
class Taught:
    """What launches of earlier runs said of the memory law, and the folders of those runs."""

    said: tuple[Observation, ...] = ()
    n_launches: int = 0
    folders: tuple[str, ...] = ()

    @cached_property
    def frontier(self) -> Frontier:
        """The memory law as those launches left it."""
        return fit(self.said, n_launches=self.n_launches)

    @property
    def label(self) -> str:
        """`14 launches in a/b, a/c`, or `none`."""
        if not self.n_launches:
            return NO_CALIBRATION
        launches = "1 launch" if self.n_launches == 1 else f"{self.n_launches} launches"
        return f"{launches} in {', '.join(self.folders)}"


UNTAUGHT = Taught()


def taught(
    runs: Sequence[EarlierRun],
    deployment: Deployment,
    stand_in: StandIn | None = None,
    constants: TwinConstants = NOMINAL,
) -> Taught:
    """What earlier runs teach about the memory of a deployment, each under the workloads that it had.

    Nothing where there is no memory law of it: neither the twin's nor, on the machine that serves it, a stand-in's.
    """
    if stand_in is None and (deployment.pp > 1 or catalog.described(deployment.model) is None):
        return UNTAUGHT
    return said_in([run for run in runs if distance(run.card.deployment, deployment) == 0], stand_in, constants)


def said_in(runs: Sequence[Run], stand_in: StandIn | None = None, constants: TwinConstants = NOMINAL) -> Taught:
    """What all trials of some runs say of the law with these constants, each under the workloads of its run."""
    said: list[Observation] = []
    n_launches, folders = 0, []
    for run in runs:
        forecaster = Forecaster(run.card.deployment, run.card.workloads, run.card.slo, stand_in, constants)
        found = [said_of(record, forecaster) for record in run.records]
        said += [each for one in found for each in one]
        n_launches += sum(map(bool, found))
        folders += [str(run.folder)] if any(found) else []
    return Taught(tuple(said), n_launches, tuple(folders))


def taught_below(
    root: Path,
    deployment: Deployment,
    workloads: Sequence[Workload] = ANY,
    twin_world: int = 0,
    constants: TwinConstants = NOMINAL,
) -> Taught:
    """The same of the nearest runs below a results folder.

    Args:
        root: Folder with studies.
        deployment: Whose launches count.
        workloads: Runs of these come first.
        twin_world: World whose simulated launches are meant; 0 for measured ones, as the nominal twin teaches nothing.
        constants: Those that the launches correct.
    """
    source, engine_label = launches_of(twin_world)
    card = RunCard(
        study="",
        source=source,
        engine_label=engine_label,
        deployment=deployment,
        workloads=tuple(workloads),
        objective=Objective(),
        slo=Slo(),
    )
    known = taught(find_earlier(root, Asking(root, card)).runs, deployment, constants=constants)
    return Taught(known.said, known.n_launches, tuple(str(root / folder) for folder in known.folders))


def launches_of(twin_world: int) -> tuple[Source, str]:
    """Source and label of the launches that are meant: those simulated in a world, measured ones for 0."""
    if not twin_world:
        return "measured", ""
    world = load_engine(EngineRef(name="twin", options={"world": twin_world})).identity()
    return world.source, world.label


def said_of(record: TrialRecord, forecaster: Forecaster) -> list[Observation]:
    """What one trial says of the law that the forecaster knows."""
    constants = forecaster.twin.constants
    return observations(record, _law_of(record, forecaster, constants), constants)


def _law_of(record: TrialRecord, forecaster: Forecaster, constants: TwinConstants) -> Law:
    """The law of a start that compiled its graph, or of one that found it: whichever is nearer to what it profiled.

    A run does not tell: a machine, or a cache, that it goes on with may be a fresh one.
    """
    compiling, said = forecaster.law(record.config), record.profiled_gib
    if record.source == "simulated" or said is None or said.activations is None:
        return compiling
    seen_gib = said.activations
    laws = (compiling, forecaster.law(record.config, compiled=True))
    return min(laws, key=lambda law: abs(float(law(constants).profiled_gib) - seen_gib))
