"""Everything that `advisor check-env` judges, read from this machine: nothing raises, and nothing hangs for long."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, TypeVar

from advisor.app.checks.facts import Engine, Facts, Fit, Gpus, Wanted, Weights
from advisor.app.checks.ways import release_of_image
from advisor.app.forecast import Forecaster, best_first, log_scores
from advisor.app.setup import Question, Resolved, announced, resolve, studied_engine
from advisor.domain.deployment import Deployment
from advisor.domain.errors import AdvisorError, BadInput
from advisor.domain.objective import Slo
from advisor.domain.strict import changed
from advisor.engines.checkpoint import FETCHERS
from advisor.engines.installed import PROGRAMS, Program, installation
from advisor.engines.packages import cuda_needed, read_packages
from advisor.engines.spoken import NEWEST
from advisor.engines.trtllm.environment import is_folder
from advisor.host.bounded import find_gpus_within, within
from advisor.host.gpus import visible
from advisor.host.machine import Host, read_host, space
from advisor.host.mpi import read_mpi
from advisor.host.runtimes import container_runtimes
from advisor.search.space import all_configs
from advisor.store import catalog
from advisor.store.checkpoints import read_checkpoint
from advisor.store.hub import HubAccess, cached_snapshot, hub_access, is_hub_name

DRIVER_TIMEOUT_S = 30.0  # a driver without its persistence daemon wakes eight GPUs one after the other
PROGRAM_TIMEOUT_S = 10.0
DISK_TIMEOUT_S = 20.0
ENGINE_TIMEOUT_S = 90.0  # several programs, each with a limit of its own

T = TypeVar("T")


class _Asker:
    """Asks what may fail or hang, and keeps why it did."""

    def __init__(self) -> None:
        self.unread: dict[str, str] = {}

    def __call__(self, area: str, timeout_s: float, question: Callable[[], T], otherwise: T) -> T:
        if area in self.unread:
            return otherwise  # one wait is enough
        try:
            return within(timeout_s, question)
        except (OSError, ValueError, AdvisorError) as error:
            said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            self.unread[area] = said.rstrip(".")
            return otherwise


def gather(question: Question, container_image: str | None, env: Mapping[str, str], root: Path) -> Facts:
    """All facts, for a question whose names are known ones."""
    ask, wanted = _Asker(), question.engine or studied_engine(question)
    reading = find_gpus_within(DRIVER_TIMEOUT_S, env)
    setting = env.get("CUDA_VISIBLE_DEVICES")
    gpus = Gpus(reading=reading, visible=visible(reading.gpus, env), cuda_visible_devices=setting)
    host = ask("host", DISK_TIMEOUT_S, lambda: read_host(root, env), Host())
    engine = ask("engine", ENGINE_TIMEOUT_S, lambda: _engine(PROGRAMS[wanted], container_image, env, root), Engine())
    model = question.model or (catalog.study(question.study).deployment.model if question.study else None)
    nowhere = Weights(hub=HubAccess(cache="", offline=False, token_from=None))
    weights = ask("checkpoint", DISK_TIMEOUT_S, lambda: _weights(model, env), nowhere)
    planned = ask("checkpoint", DISK_TIMEOUT_S, lambda: _planned(question, gpus, weights), _Planned())
    return Facts(
        wanted=_wanted(question, wanted, model, weights, planned, container_image, engine),
        python=sys.version.split()[0],
        engine=engine,
        gpus=gpus,
        host=host,
        weights=changed(weights, fit=planned.fit),
        unread=ask.unread,
    )


def _engine(program: Program, container_image: str | None, env: Mapping[str, str], root: Path) -> Engine:
    installed = installation(env, program) if container_image is None else None
    packages = read_packages(installed.interpreter, program.package, env, PROGRAM_TIMEOUT_S) if installed else None
    runtimes = container_runtimes(root, env, PROGRAM_TIMEOUT_S, container_image) if installed is None else ()
    toolkits = (env.get("CUDA_HOME"), env.get("CUDA_PATH"), str(root / "usr/local/cuda"))
    places = (Path(sys.executable).parent, Path(env.get("HOME", "/")) / ".local/bin")
    beside = (place / program.command for place in places)
    return Engine(
        installation=installed,
        beside_advisor=next((str(path) for path in beside if path.is_file()), None),
        same_environment=packages is not None and packages.prefix == sys.prefix,
        packages=packages,
        cuda_needed=cuda_needed(packages, root, env) if packages else None,
        cuda_home=next((path for path in toolkits if path and Path(path).is_dir()), None),
        mpi=read_mpi(root, env, packages.prefix if packages else None),
        runtimes=runtimes,
        has_srun=shutil.which("srun", path=env.get("PATH")) is not None,
    )


def _weights(model: str | None, env: Mapping[str, str]) -> Weights:
    """The folder that is named, or what the cache has of a model on the hub."""
    access = hub_access(env)
    by_folder = model is not None and (is_folder(model) or Path(model).is_dir())
    by_name = model is not None and not by_folder and is_hub_name(model)
    place = None
    if model is not None and by_folder:
        place = Path(model) if Path(model).is_dir() else None
    elif model is not None and by_name:
        place = cached_snapshot(Path(access.cache), model)
    found = read_checkpoint(place) if place is not None else None
    known = {facts.architecture for facts in catalog.models().values()}
    return Weights(
        checkpoint=found,
        is_folder=by_folder,
        is_hub_name=by_name,
        hub=access,
        hub_client=next((name for name in FETCHERS if shutil.which(name, path=env.get("PATH"))), None),
        cache_space=space(Path(access.cache)),
        knows_architecture=found is not None and found.architecture in known,
    )


class _Planned(NamedTuple):
    """What the words on the command line come to."""

    deployment: Deployment | None = None
    fit: Fit | None = None
    trouble: str | None = None


def _planned(question: Question, gpus: Gpus, weights: Weights) -> _Planned:
    """The deployment on the GPU of this machine and in the checkpoint's own precision, or why there is none."""
    if question.model is None and question.study is None:
        return _Planned()
    here: dict[str, str] = {}
    declared = weights.checkpoint.quantization if weights.checkpoint else None
    keys = {gpu.key for gpu in gpus.visible if gpu.key is not None}
    if question.study is None and question.gpu is None and len(keys) == 1:
        here["gpu"] = keys.pop()
    if question.study is None and question.quant is None and declared is not None:
        here["quant"] = declared
    try:
        resolved = resolve(changed(question, **here))
    except BadInput as error:
        return _Planned(trouble=str(error))
    try:
        return _Planned(resolved.deployment, _fit(resolved))
    except BadInput as error:
        return _Planned(resolved.deployment, trouble=str(error))


def _fit(resolved: Resolved) -> Fit:
    """How many configurations of the search space fit and serve every workload, by the memory law."""
    deployment, workloads = resolved.deployment, resolved.workloads
    forecaster, configs = Forecaster(deployment, workloads), all_configs(resolved.space)
    scores = (log_scores(forecaster.rank(configs, each), resolved.objective, Slo(), each) for each in workloads)
    serving = set.intersection(*(set(best_first(each)) for each in scores))
    terms = forecaster.twin.memory_terms(deployment)
    divided = forecaster.twin.memory_terms(changed(deployment, attention_dp=False))  # each weight on one GPU only
    return Fit(
        weights_gib=terms.weights_gib,
        all_weights_gib=divided.weights_gib * deployment.gpus,
        capacity_gib=terms.capacity_gib,
        n_configs=len(configs),
        n_serving=len(serving),
        why_not=None if serving else forecaster.why_not(configs[0]),
    )


def _wanted(
    question: Question,
    wanted: str,
    model: str | None,
    weights: Weights,
    planned: _Planned,
    container_image: str | None,
    engine: Engine,
) -> Wanted:
    """What is to be launched, in the words that `advisor tune` would take it in."""
    deployment, study = planned.deployment, catalog.study(question.study).deployment if question.study else None
    gpus = question.gpus
    if deployment is not None:
        gpus = deployment.gpus
    elif gpus is None and (question.tp or question.pp):
        gpus = (question.tp or 1) * (question.pp or 1)
    assumed = question.quant or (study.quantization if study else None)
    if assumed is None and model is not None:
        assumed = weights.checkpoint.quantization if weights.is_folder and weights.checkpoint else announced(model)
    gpu = question.gpu or (deployment.gpu if deployment else None)
    in_image = release_of_image(container_image) if container_image else None
    studied = deployment.engine_version if deployment else None
    releases = (question.engine_version, in_image, engine.version, studied, NEWEST[wanted])
    return Wanted.model_validate(
        {
            "engine": wanted,
            "model": model,
            "quantization": assumed,
            "gpu": gpu,
            "gpus": gpus,
            "capability": catalog.gpu_facts(gpu).compute_capability if gpu else None,
            "deployment": deployment,
            "unresolved": planned.trouble,
            "engine_version": question.engine_version,
            "release": next(release for release in releases if release),
            "container_image": container_image,
        }
    )
