"""The engine: is it here, which release, on what does it run, and how to get it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from advisor.app.checks import ways
from advisor.app.checks.facts import Facts, Wanted
from advisor.app.checks.finding import Finding, Way, miss, note, ok, warning
from advisor.domain.errors import BadInput
from advisor.engines.spoken import NEWEST, spoken
from advisor.host.mpi import FAMILIES
from advisor.host.runtimes import ContainerRuntime

# What a runtime's trouble is, in words, and what ends it.
_TROUBLE = {
    "silent": ("does not answer", Way(what="Restart it:", commands=("sudo systemctl restart docker",))),
    "denied": (
        "may not be used by this user",
        Way(what="Join its group, then log in again:", commands=("sudo usermod -aG docker $USER",)),
    ),
    "away": ("has no running daemon", Way(what="Start it:", commands=("sudo systemctl start docker",))),
    "other": ("does not work", Way(what="See what `docker info` or `podman info` says.")),
}
_DOCKER = Way(what="Install docker (https://docs.docker.com/engine/install/), then the NVIDIA Container Toolkit.")


def findings(facts: Facts) -> Iterator[Finding]:
    """Everything about the engine; of a container image only what can be told from outside."""
    image = facts.wanted.container_image
    if image is not None:
        yield from _image(facts, image)
    else:
        yield _serve(facts)
        yield from _installed(facts) if facts.engine.installation else _could_be_started(facts)
    if not facts.on_cpu:
        yield from _cuda(facts)
    if facts.wanted.engine == "trtllm":
        yield from _launcher(facts)


def _installed(facts: Facts) -> Iterator[Finding]:
    yield _version(facts.wanted, facts.engine.version)
    yield _packages(facts)
    if facts.wanted.engine != "trtllm":
        return
    yield _mpi(facts)
    if facts.engine.cuda_home is None:
        yield note(
            "engine.cuda_home",
            "No CUDA toolkit: CUDA_HOME is not set and /usr/local/cuda is not there.",
            "NVIDIA's guide asks for it; some kernels are compiled when they are first used.",
            Way(what="Once it is installed:", commands=("export CUDA_HOME=/usr/local/cuda",)),
        )


def _could_be_started(facts: Facts) -> Iterator[Finding]:
    """What the release container would be started with; inside a container that is the host's business."""
    if not facts.on_cpu and (facts.engine.runtimes or facts.host.container is None):
        why = f"{facts.wanted.title}'s release container is started with it."
        yield from _runtimes(facts.engine.runtimes, note, why)


def _serve(facts: Facts) -> Finding:
    engine, command = facts.engine, facts.wanted.program.command
    if engine.installation is not None:
        where = "the environment of advisor" if engine.same_environment else "an environment of its own, which is fine"
        return ok("engine.serve", f"{engine.installation.command}, in {where}.")
    if engine.beside_advisor is not None:
        return miss(
            "engine.serve",
            f"{command} is installed but not on the PATH.",
            "advisor starts it by its name.",
            Way(what="Put it there:", commands=(f"export PATH={Path(engine.beside_advisor).parent}:$PATH",)),
        )
    return miss(
        "engine.serve",
        f"{command} is not on the PATH.",
        f"{facts.wanted.title} is not installed here, or its environment is not active: advisor can only simulate "
        "(--engine twin).",
        *_ways_to_get_it(facts),
    )


def _ways_to_get_it(facts: Facts) -> Iterator[Way]:
    engine, release, runtimes = facts.wanted.engine, facts.wanted.release, facts.engine.runtimes
    if facts.on_cpu:
        yield Way(
            what="Install vLLM's build for processors, as "
            "https://docs.vllm.ai/en/stable/getting_started/installation/cpu/ shows, and put it on the PATH."
        )
        return
    runtime = next((each.name for each in (_usable(runtimes), *runtimes) if each is not None), "docker")
    folder = facts.wanted.model if facts.weights.is_folder else None
    yield ways.release_container(engine, release, runtime, facts.weights.hub.cache, folder)
    if runtimes and facts.host.container is None:
        yield ways.container_from_here(engine, release)
    if engine == "vllm":
        yield ways.vllm_wheel(release)
        return
    if facts.engine.has_srun:
        yield ways.slurm_container(release, facts.n_gpus)
    yield ways.wheel(release, facts.python, facts.capabilities)
    yield ways.source_build(release, facts.capabilities)


def _version(wanted: Wanted, found: str | None) -> Finding:
    """Whether advisor speaks the release, and whether it is the one that was asked for."""
    id_, asked, title = "engine.version", wanted.engine_version, wanted.title
    if found is None and asked is not None:
        return ok(id_, f"{title} {asked}, as said.")
    if found is None:
        why = "Its flags and keys are spelled by release. A build from source may have no version of its own."
        way = Way(what="Name it:", commands=(f"advisor check-env --engine-version {NEWEST[wanted.engine]}",))
        return warning(id_, f"The release of {title} is not told.", why, way)
    try:
        known = spoken(wanted.engine, found)
    except BadInput as error:
        return miss(
            id_,
            f"advisor does not know {title} {found}.",
            str(error),
            Way(what=f"Install another release, such as {NEWEST[wanted.engine]}."),
        )
    if asked is not None and (named := spoken(wanted.engine, asked)).release != known.release:
        return miss(
            id_,
            f"{title} {found} is here, but --engine-version {asked} was asked for.",
            f"They spell their options differently ({known.release} and {named.release}).",
            Way(what="Leave --engine-version out, or install that release."),
        )
    if known.warning is not None:
        what = f"{title} {found}: advisor speaks the nearest release that it knows, {known.release}."
        way = Way(what=f"Hold what advisor writes against `{_help(wanted)}` there, or take a known release.")
        return warning(id_, what, known.warning, way)
    return ok(id_, f"{title} {found}, a release that advisor knows.")


def _help(wanted: Wanted) -> str:
    return f"{wanted.program.command} serve --help"


def _packages(facts: Facts) -> Finding:
    id_, wanted, packages = "engine.packages", facts.wanted, facts.engine.packages
    if packages is None:
        why = f"Its Python does not start or has no metadata, so {wanted.program.command} will hardly start either."
        way = Way(what=f"Try: {_help(wanted)}")
        return warning(id_, f"The environment of {wanted.title} cannot be asked.", why, way)
    needed = ("torch", "mpi4py") if wanted.engine == "trtllm" else ("torch",)
    absent = [name for name in needed if name not in packages.versions]
    there = ", ".join(f"{name} {version}" for name, version in packages.versions.items() if "-" not in name)
    if absent:
        why = f"{wanted.title} imports them when it starts: the installation is not complete."
        way = Way(what="Again:", commands=(f"pip3 install --force-reinstall {wanted.program.package}",))
        return warning(id_, f"{' and '.join(absent)} missing beside {wanted.title}.", why, way)
    return ok(id_, f"Python {packages.python}, {there}.")


def _mpi(facts: Facts) -> Finding:
    mpi = facts.engine.mpi
    if mpi.library or mpi.mpirun:
        return ok("engine.mpi", f"Open MPI: {mpi.library or mpi.mpirun}.")
    why = "TensorRT-LLM starts its workers through libmpi.so, on one GPU too."
    way = Way(what="Install it:", commands=("sudo apt-get -y install libopenmpi-dev",))
    return warning("engine.mpi", "Open MPI is in none of the usual places.", why, way)


def _cuda(facts: Facts) -> Iterator[Finding]:
    """The newest CUDA that the driver runs, against the one that PyTorch or the release is built for."""
    newest, needed = facts.gpus.reading.cuda_version, facts.engine.cuda_needed
    is_here = needed is not None
    built = "PyTorch here is" if is_here else f"{facts.wanted.title} {facts.wanted.release} is"
    if facts.wanted.engine == "trtllm":
        needed = needed or ways.cuda_of_release(facts.wanted.release)
    if newest is None or needed is None:
        return
    here, there = _numbers(newest), _numbers(needed)
    if here >= there:
        yield ok("engine.cuda", f"The driver runs CUDA {newest}; {built} built for {needed}.")
    elif here[0] == there[0]:
        why = "Within one major version most things work; kernels that are compiled at run time may be refused."
        yield note(
            "engine.cuda", f"The driver runs CUDA {newest}, a little older than {needed}: {built} built for it.", why
        )
    else:
        say = miss if is_here else warning  # an image may bring NVIDIA's forward compatibility along
        yield say(
            "engine.cuda",
            f"The driver runs CUDA {newest} at most; {built} built for {needed}.",
            "CUDA does not start on a driver of an older major version.",
            Way(
                what=f"Update the NVIDIA driver to {ways.OLDEST_DRIVER.get(str(there[0]), 'a newer one')} or later, or "
                f"take an older release of {facts.wanted.title}."
            ),
            Way(
                what="Or, on data-center GPUs, install NVIDIA's forward compatibility and put it first:",
                commands=(
                    f"sudo apt-get install -y cuda-compat-{there[0]}-{there[1]}",
                    "export LD_LIBRARY_PATH=/usr/local/cuda/compat:$LD_LIBRARY_PATH",
                ),
            ),
        )


def _numbers(version: str) -> tuple[int, int]:
    major, _, minor = version.partition(".")
    return int(major), int(minor)


def _launcher(facts: Facts) -> Iterator[Finding]:
    """MPI inside MPI: a server that is started by a rank of another job takes itself for one of its ranks."""
    mpi = facts.engine.mpi
    if mpi.inside is None:
        return
    families = "|".join(FAMILIES)
    yield warning(
        "engine.launcher",
        f"advisor runs as a rank of {mpi.inside} ({', '.join(mpi.variables)}).",
        "A server started from here takes itself for a rank of that job: MPI fails to start, or cannot start workers.",
        Way(what="Start advisor outside of it (in the batch script itself, or on the node by ssh)."),
        Way(
            what="Or take its variables out of this shell, as TensorRT-LLM's own launcher does:",
            commands=(f"for v in $(compgen -e | grep -E '^({families})'); do unset $v; done",),
        ),
        Way(
            what="Or have job steps started:",
            commands=('advisor tune --launch-prefix "srun --mpi=pmix trtllm-llmapi-launch"',),
        ),
    )


# -- containers --------------------------------------------------------------------------------------------------------


def _image(facts: Facts, image: str) -> Iterator[Finding]:
    """The image, and the runtime that a launch takes: the first that is on the PATH."""
    taken = facts.engine.runtimes[:1]
    yield _version(facts.wanted, ways.release_of_image(image))
    yield from _runtimes(taken, miss, "A container image is launched with it.")
    usable = _usable(taken)
    if usable is not None and usable.has_image:
        yield ok("engine.image", f"{image} is here.")
    elif usable is not None:
        pull = Way(what="Fetch it:", commands=(f"{usable.name} pull {shlex.quote(image)}",))
        yield miss(
            "engine.image", f"{image} is not here.", "A download is no part of a trial: advisor pulls none.", pull
        )


def _usable(runtimes: Sequence[ContainerRuntime]) -> ContainerRuntime | None:
    return next((each for each in runtimes if each.trouble is None and each.gpus), None)


def _runtimes(runtimes: Sequence[ContainerRuntime], say: Callable[..., Finding], why: str) -> Iterator[Finding]:
    """One that hands GPUs to containers, or what each of them lacks."""
    usable = _usable(runtimes)
    if usable is not None:
        yield ok("engine.runtime", f"{usable.name} hands GPUs to containers.")
        return
    if not runtimes:
        yield say("engine.runtime", "Neither docker nor podman is on the PATH.", why, _DOCKER)
    for runtime in runtimes:
        if runtime.trouble is None:
            what = f"{runtime.name} has no way to hand GPUs to a container: no NVIDIA runtime, no CDI specification."
            yield say("engine.runtime", what, why, ways.toolkit(runtime.name))
        else:
            what, way = _TROUBLE[runtime.trouble]
            yield say("engine.runtime", f"{runtime.name} {what}.", why, way)
