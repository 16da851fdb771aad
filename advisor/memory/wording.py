"""A diagnosis in words."""

from __future__ import annotations

from advisor.domain.outcome import Phase
from advisor.memory.case import Place
from advisor.memory.events import Kind, LogEvent

HEADLINES: dict[Kind, str] = {
    "oom": "GPU memory ran out",
    "host_oom": "Host memory ran out",
    "insufficient_kv": "No room for the KV cache of one sequence",
    "config": "The configuration was refused",
    "request_rejected": "A request was refused; the server is fine",
    "unsupported_arch": "This GPU generation is not supported by a kernel the model needs",
    "unsupported_model": "The model is not supported by this release or backend",
    "checkpoint": "The checkpoint could not be read",
    "kernel_error": "A GPU kernel failed; memory is not the cause",
    "version_mismatch": "Two parts of the installation do not fit together",
    "nccl": "The GPUs could not talk to each other",
    "mpi": "The launcher could not start the ranks",
    "port": "The port is taken",
    "auth": "Access to the model was denied",
    "hang": "The server hangs: it is alive but does no work",
    "crash": "The process crashed",
}
STAGE_WORDS: dict[Phase, str] = {
    "configure": "while reading the configuration",
    "download": "while fetching the model",
    "launch": "at launch",
    "connect": "while the ranks connected",
    "load": "while loading the model",
    "build": "while building the engine",
    "kv_estimate": "while profiling memory for the KV cache",
    "kv_allocate": "while allocating the KV cache",
    "warm_up": "during warm-up, after the KV pool was taken",
    "serve": "while serving",
}


def sentence(kind: Kind, place: Place, component: str | None, short: float | None, event: LogEvent) -> str:
    """The verdict in one sentence."""
    headline = "Host shared memory (/dev/shm) ran out" if event.meaning.name == "shm" else HEADLINES[kind]
    where = f" {STAGE_WORDS[place.stage]}" if place.stage else ""
    what = f" ({component})" if component else ""
    lack = f", {short:.2f} GiB short for the allocation that failed first" if short is not None else ""
    return f"{headline}{where}{what}{lack}."
