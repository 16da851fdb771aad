"""Whether the energy of a launch can be had, before anything is launched for it."""

from __future__ import annotations

import os

from advisor.domain.errors import BadInput
from advisor.domain.measurement import Source
from advisor.domain.objective import ENERGY, Objective
from advisor.host.gpus import energy_j, find_gpus, visible


def check_measurable(objective: Objective, source: Source, n_gpus: int) -> None:
    """Refuse the energy objective where nobody counts it.

    Raises:
        BadInput: on the twin, and where a GPU of the launch is not here or has no counter.
    """
    if objective.metric != ENERGY:
        return
    way_out = "Take --objective cost_per_million_tok with --gpu-price, or output_tok_per_s_per_gpu, instead."
    if source != "measured":
        raise BadInput(f"{ENERGY} is read from the counters of GPUs, and the twin has none. {way_out}")
    devices = [gpu.index for gpu in visible(find_gpus().gpus, os.environ)][:n_gpus]
    if len(devices) < n_gpus or energy_j(devices) is None:
        raise BadInput(
            f"{ENERGY} needs the energy counters (NVML) of all {n_gpus} GPUs of a launch, and {len(devices)} of them "
            f"are here or one does not tell. {way_out}"
        )
