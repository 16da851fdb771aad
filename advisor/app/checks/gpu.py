"""The GPUs: are there enough of the right kind, free, and able to compute what the checkpoint is made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from advisor.app.checks.facts import Facts
from advisor.app.checks.finding import Finding, Way, counted, miss, note, ok, warning
from advisor.domain.deployment import LEAST_CAPABILITY
from advisor.engines.served import CLEAN_GIB
from advisor.host.gpus import Gpu, GpuProcess

MANY = 4  # processes that are named one by one

_GENERATIONS = {(8, 0): "A100", (8, 9): "L40S, L4", (9, 0): "H100, H200", (10, 0): "B200"}


def findings(facts: Facts) -> Iterator[Finding]:
    """Everything about the GPUs."""
    reading, seen = facts.gpus.reading, facts.gpus.visible
    if facts.on_cpu:
        yield ok("gpu.driver", "None is needed: the server runs on this machine's processors.")
        return
    if reading.missing is not None:
        yield miss("gpu.driver", "No GPU can be used.", reading.missing, *_no_gpu(facts))
        return
    if not reading.gpus:
        yield miss(
            "gpu.driver", "The NVIDIA driver is here, but it has no GPU.", "A server needs one.", *_no_gpu(facts)
        )
        return
    yield ok("gpu.driver", f"NVIDIA driver {reading.driver_version}, CUDA up to {reading.cuda_version}.")
    yield from _visible(facts)
    if not seen:
        return
    yield from _kind(facts)
    yield _count(facts)
    yield from _memory(facts)
    yield from _mig(facts)
    yield from _compute(facts)
    yield from _nvlink(facts)


def _no_gpu(facts: Facts) -> Iterator[Way]:
    """Ways to a GPU, by the traces that hardware and driver leave."""
    host, traces = facts.host, facts.host.nvidia
    if traces.forbidden:
        nodes = " ".join(traces.forbidden)
        yield Way(what="See who may open the GPUs, and have this user added:", commands=(f"ls -l {nodes}",))
    if host.container == "kubernetes":
        yield Way(what=f"Ask for GPUs in the pod's resources.limits: nvidia.com/gpu: {facts.n_gpus}")
    elif host.container == "apptainer":
        yield Way(what="Start the container with --nv.")
    elif host.container == "enroot":
        yield Way(what="Ask Slurm for GPUs (--gpus-per-node), and start with NVIDIA_VISIBLE_DEVICES=all.")
    elif host.container == "podman":
        yield Way(what="Start the container with its GPUs: podman run --device nvidia.com/gpu=all ...")
    elif host.container is not None and traces.pci_gpus != 0:
        yield Way(what="Start the container with its GPUs: docker run --gpus all ...")
    elif traces.pci_gpus:
        there = f"{counted(traces.pci_gpus, 'NVIDIA GPU')} {_be(traces.pci_gpus)} on the PCI bus"
        yield Way(
            what=f"{there}: install the driver (on Ubuntu; then restart):",
            commands=("sudo ubuntu-drivers install --gpgpu",),
        )
    if traces.pci_gpus == 0:
        yield Way(what="No NVIDIA GPU is on the PCI bus: run advisor on the machine that has the GPUs.")
    yield Way(what="Without a GPU, tune on the simulator:", commands=("advisor tune --isl 4096 --osl 1024",))


def _visible(facts: Facts) -> Iterator[Finding]:
    setting, n_all, n_seen = facts.gpus.cuda_visible_devices, len(facts.gpus.reading.gpus), len(facts.gpus.visible)
    if setting is None or n_seen == n_all:
        return
    what = f"CUDA_VISIBLE_DEVICES={setting!r} leaves {n_seen} of {counted(n_all, 'GPU')} visible."
    way = Way(what="To see them all:", commands=("unset CUDA_VISIBLE_DEVICES",))
    if n_seen:
        yield note("gpu.visible", what, "A server gets those only.", way)
    else:
        yield miss(
            "gpu.visible", what, "A server would find no GPU. The first name that means nothing ends the list.", way
        )


def _kind(facts: Facts) -> Iterator[Finding]:
    seen, wanted = facts.gpus.visible, facts.wanted.gpu
    taken = seen[: facts.wanted.gpus or len(seen)]
    names = sorted({gpu.name for gpu in taken})
    sizes = "/".join(sorted({f"{gpu.total_gib:.1f}" for gpu in taken}))
    keys = sorted({gpu.key for gpu in taken if gpu.key is not None})
    what = f"{len(seen)} x {' and '.join(names)}, {sizes} GiB each."
    if len(names) > 1:
        why = "A server over unlike GPUs is as slow as the slowest and as small as the smallest."
        way = Way(
            what="Take those of one kind:", commands=(_choose(gpu.index for gpu in seen if gpu.name == taken[0].name),)
        )
        yield warning("gpu.kind", what, why, way)
    elif not keys:
        why = "No kernel times of this GPU are known here: advisor predicts nothing, and tunes by measurement alone."
        yield warning(
            "gpu.kind",
            what,
            why,
            Way(
                what="Name it in a study (--gpu); or simulate the nearest GPU that it knows, and run verify.sh here:",
                commands=("advisor tune --engine twin --gpu h100_sxm --isl 4096 --osl 1024",),
            ),
        )
    elif wanted is not None and wanted != keys[0]:
        yield miss(
            "gpu.kind",
            f"{what[:-1]}, but {wanted} is asked for.",
            "The study is about another GPU: its predictions do not hold for this one, so advisor does not launch it.",
            Way(what=f"Add --gpu {keys[0]}, or take a study for it (advisor studies)."),
        )
    else:
        yield ok("gpu.kind", f"{what[:-1]} (advisor's {keys[0]}).")


def _count(facts: Facts) -> Finding:
    wanted, n_seen = facts.wanted, len(facts.gpus.visible)
    if wanted.gpus is None or wanted.gpus <= n_seen:
        return ok("gpu.count", f"{n_seen} visible" + (f", {wanted.gpus} needed." if wanted.gpus else "."))
    ways = [Way(what=f"Say a smaller layout: --tp {_power_of_two(n_seen)}, if the model fits.")]
    if len(facts.gpus.reading.gpus) >= wanted.gpus:
        ways.insert(0, Way(what="Show them all to it:", commands=("unset CUDA_VISIBLE_DEVICES",)))
    elif (facts.host.nvidia.pci_gpus or 0) >= wanted.gpus:
        there = f"The machine has {facts.host.nvidia.pci_gpus}"
        ways.insert(
            0, Way(what=f"{there}: start the container with all of them (docker run --gpus all), or ask for more.")
        )
    return miss(
        "gpu.count",
        f"{counted(wanted.gpus, 'GPU')} {_be(wanted.gpus)} needed and {n_seen} {_be(n_seen)} visible.",
        "Each rank of the server takes a GPU of its own.",
        *ways,
    )


def _be(n: int) -> str:
    return "is" if n == 1 else "are"


def _power_of_two(limit: int) -> int:
    return 1 << max(0, limit.bit_length() - 1)


def _memory(facts: Facts) -> Iterator[Finding]:
    """Memory in use by others: a launch takes the first GPUs that it sees."""
    seen, wanted = facts.gpus.visible, facts.wanted.gpus
    free = [gpu for gpu in seen if gpu.used_gib <= CLEAN_GIB]
    taken = seen[:wanted] if wanted is not None else free[:1] or seen[:1]
    for gpu in (gpu for gpu in seen if gpu not in free):
        held = f"{gpu.used_gib:.1f} of {gpu.total_gib:.1f} GiB are in use, by {_holders(gpu.processes)}"
        ways = _ways_to_free(gpu, free, wanted or len(free))
        if gpu in taken:
            yield miss(
                "gpu.memory",
                f"GPU {gpu.index}: {held}.",
                "What others hold is missing from the KV cache, and what they compute disturbs every measurement: "
                "advisor does not launch beside them.",
                *ways,
            )
        elif wanted is None:
            yield warning(
                "gpu.memory", f"GPU {gpu.index}: {held}.", "A launch takes the first GPUs that it sees.", *ways
            )
        else:
            yield note("gpu.memory", f"GPU {gpu.index}: {held}.", "The layout does not need this GPU.")
    if all(gpu in free for gpu in seen):
        yield ok("gpu.memory", "Nobody else holds memory of the GPUs.")


def _choose(indices: Iterable[int]) -> str:
    """The command that leaves these GPUs visible; CUDA numbers them as the driver does only when told to."""
    return f"export CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES={','.join(map(str, indices))}"


def _ways_to_free(gpu: Gpu, free: Sequence[Gpu], needed: int) -> Iterator[Way]:
    if len(free) >= max(1, needed):
        yield Way(what="Take free ones:", commands=(_choose(each.index for each in free[:needed]),))
    if gpu.processes:
        pids = " ".join(str(process.pid) for process in gpu.processes)
        yield Way(
            what="See whose they are, and end them if they are yours:", commands=(f"ps -o pid,user,etime,args {pids}",)
        )
    else:
        yield Way(
            what="Look on the host, outside of this container:", commands=(f"sudo fuser -v /dev/nvidia{gpu.index}",)
        )


def _holders(processes: Sequence[GpuProcess]) -> str:
    named = [
        f"{each.name} (pid {each.pid}" + (")" if each.used_gib is None else f", {each.used_gib:.1f} GiB)")
        for each in processes[:MANY]
    ]
    if len(processes) > MANY:
        named.append(f"{len(processes) - MANY} more")
    return ", ".join(named) or "processes that this container does not see"


def _mig(facts: Facts) -> Iterator[Finding]:
    cut = [gpu for gpu in facts.gpus.visible[: facts.n_gpus] if gpu.mig]
    if not cut:
        return
    indices = ",".join(str(gpu.index) for gpu in cut)
    way = Way(what="Switch MIG off, when nobody uses the GPUs:", commands=(f"sudo nvidia-smi -i {indices} -mig 0",))
    what = f"MIG is on for GPU {indices}."
    if (facts.wanted.gpus or 1) > 1:
        why = "A process sees one MIG device at most, so a server over several GPUs cannot start."
        yield miss("gpu.mig", what, why, way)
    else:
        why = "A server gets one slice of the GPU; memory and speed predicted here are those of a whole one."
        yield warning("gpu.mig", what, why, way)


def _compute(facts: Facts) -> Iterator[Finding]:
    """Kernels for the precision of the checkpoint, as it declares itself, else as it was named."""
    found = facts.weights.checkpoint
    quantization = (found.quantization if found is not None else None) or facts.wanted.quantization
    weakest = min(gpu.compute_capability for gpu in facts.gpus.visible)
    least = LEAST_CAPABILITY[quantization or "bf16"]
    here = f"compute capability {weakest[0]}.{weakest[1]}"
    if weakest < least:
        yield miss(
            "gpu.compute",
            f"{quantization or 'bf16'} needs compute capability {least[0]}.{least[1]} "
            f"({_GENERATIONS[least]} or newer); this machine has {weakest[0]}.{weakest[1]}.",
            "There are no kernels for it: the server stops while it loads the model.",
            Way(what="Take a checkpoint in another precision, or another GPU."),
        )
    elif quantization is not None:
        yield ok("gpu.compute", f"{here[0].upper()}{here[1:]} has kernels for {quantization}.")


def _nvlink(facts: Facts) -> Iterator[Finding]:
    taken = facts.gpus.visible[: facts.n_gpus]
    tp = facts.wanted.deployment.tp if facts.wanted.deployment else facts.wanted.gpus or 1
    if tp < 2 or len(taken) < 2:
        return
    down = [gpu for gpu in taken if not gpu.nvlinks]
    if not down:
        yield ok("gpu.nvlink", f"NVLink is up, {min(gpu.nvlinks or 0 for gpu in taken)} links on each GPU.")
        return
    indices = ", ".join(str(gpu.index) for gpu in down)
    topology = Way(what="See how they are connected:", commands=("nvidia-smi topo -m", "nvidia-smi nvlink --status"))
    if any(gpu.nvlinks is not None or (gpu.key or "").endswith("_sxm") for gpu in down):
        yield warning(
            "gpu.nvlink",
            f"NVLink is not up on GPU {indices}.",
            "Tensor parallelism then goes over PCIe, or CUDA does not start at all. On systems with NVSwitch the "
            "fabric manager brings the links up.",
            Way(
                what="Have it run, in the version of the driver:",
                commands=("systemctl status nvidia-fabricmanager", "sudo systemctl restart nvidia-fabricmanager"),
            ),
            topology,
        )
    else:
        yield note(
            "gpu.nvlink", f"GPU {indices} has no NVLink.", "Tensor parallelism goes over PCIe, which is slow.", topology
        )
