"""What stands in for a twin that does not exist: a typical model of the checkpoint's size on the nearest known GPU.

Of a model that nobody described two things are known on the machine that serves it: GiB of weights and GiB of the GPU.
They are kept; everything else is a weak guess about how a server of that size behaves, with errors as wide as that. It
guides the first launches and is never shown as a prediction. Where only the layout is beyond the twin, the rest stays.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from advisor.domain.deployment import Deployment, GpuFacts, ModelFacts
from advisor.domain.errors import BadInput
from advisor.domain.strict import changed
from advisor.domain.units import GIB_BYTES
from advisor.host.gpus import find_gpus, visible
from advisor.memory.frontier import FITTED_ERROR, N_FEATURES, Frontier
from advisor.store import catalog
from advisor.store.checkpoints import weights_gib
from advisor.store.hub import cached_snapshot, hub_cache
from advisor.twin.layout import quant_modes
from advisor.twin.predict import TablesFor
from advisor.twin.roofline import weight_bytes
from advisor.twin.step_tables import StepTables
from advisor.twin.typical import typical_model

WIDER = {"weights_factor": 3.0, "activations_factor": 3.0, "runtime_factor": 2.0, "logits_copies": 2.0}
"""Assumed: how much further off than a twin's constants of memory those of a stand-in may be."""
MISFIT_FACTOR = 6.0  # assumed: what no constant explains, likewise
MEMORY_PRIOR = Frontier(
    np.zeros(N_FEATURES), np.diag([*(WIDER.get(name, 1.0) ** 2 for name in FITTED_ERROR), MISFIT_FACTOR**2])
)


@dataclass(frozen=True)
class StandIn:
    """A model, GPUs and a layout that the twin can play.

    Attributes:
        deployment: Pipeline stages count as tensor parallelism, which cuts the same weights over the same GPUs.
        facts: Of the model, typical where nobody described it.
        gpu: With the memory that is really there.
        tables_for: Step tables of a deployment, as the twin asks for them.
        why: What the twin does not know, in words.
        is_typical: The architecture is a guess.
    """

    deployment: Deployment
    facts: ModelFacts
    gpu: GpuFacts
    tables_for: TablesFor
    why: str
    is_typical: bool


def check_known(model: str, here: bool, env: Mapping[str, str] = os.environ) -> None:
    """Refuse a model of which nothing is known.

    Raises:
        BadInput: it is not described and, where it is to be served here, not on this disk.
    """
    if catalog.described(model) is None:
        _ = _checkpoint_gib(model, env) if here else catalog.model_facts(model)


def stand_in_here(deployment: Deployment, env: Mapping[str, str] = os.environ) -> StandIn | None:
    """What this machine shows of a deployment that the twin cannot play; None where the twin can.

    Raises:
        BadInput: a model that is neither described nor on this disk, or a GPU that is neither described nor here.
    """
    facts, gpu = catalog.described(deployment.model), catalog.gpus().get(deployment.gpu)
    gaps = []
    if facts is None:
        gaps.append(f"nobody described {deployment.model}, of which only the checkpoint's size is known")
    if gpu is None:
        gaps.append(f"of {deployment.gpu} only the memory is known")
    if deployment.pp > 1:
        gaps.append(f"there are no kernel times for pipeline parallelism (pp {deployment.pp})")
    if not gaps:
        return None
    size_gib = None if facts is not None else _checkpoint_gib(deployment.model, env) / deployment.gpus
    return stand_in(deployment, gpu or _gpu_here(deployment.gpu, env), facts, size_gib, "; ".join(gaps))


def stand_in(
    deployment: Deployment, gpu: GpuFacts, facts: ModelFacts | None, size_gib: float | None, why: str
) -> StandIn:
    """A stand-in for a deployment.

    Args:
        deployment: As asked for.
        gpu: Its memory counts; its speed is that of the known GPU with the nearest memory where it is not known.
        facts: Of the model; none for a typical one of its size.
        size_gib: Of the weights on one GPU; none where the facts tell.
        why: What the twin does not know, in words.
    """
    near = catalog.nearest_gpu(gpu)
    played = changed(deployment, gpu=near, tp=deployment.gpus, pp=1)
    shape = facts or _typical(played, size_gib or 0.0)

    def tables_for(asked: Deployment) -> StepTables:
        tables = catalog.tables_of(asked, shape)
        weights = tables.memory.weights_gib if size_gib is None else size_gib
        memory = replace(tables.memory, weights_gib=weights, capacity_gib=gpu.memory_bytes / GIB_BYTES)
        return replace(tables, memory=memory)

    return StandIn(played, shape, gpu, tables_for, why, is_typical=facts is None)


def _typical(played: Deployment, size_gib: float) -> ModelFacts:
    """Experts, or attention data parallelism, are asked of models that have experts."""
    modes = quant_modes(played.model, played.quantization, played.kv_dtype, played.gpu)
    n_parameters = size_gib * played.gpus * GIB_BYTES / weight_bytes(modes.gemm)
    return typical_model(played.model, n_parameters, played.tp, is_moe=played.ep > 1 or played.attention_dp)


def _checkpoint_gib(model: str, env: Mapping[str, str]) -> float:
    folder = Path(model) if Path(model).is_dir() else cached_snapshot(hub_cache(env), model)
    size_gib = 0.0 if folder is None else weights_gib(folder)
    if not size_gib:
        catalog.model_facts(model)  # raises, and names what is near
        raise BadInput(f"{model} holds no weights: is the checkpoint complete?")
    return size_gib


def _gpu_here(name: str, env: Mapping[str, str]) -> GpuFacts:
    here = next((gpu for gpu in visible(find_gpus().gpus, env) if gpu.system == name), None)
    if here is None:
        return catalog.gpu_facts(name)  # raises, and names what is known
    return GpuFacts(
        name=name,
        title=here.name,
        memory_bytes=round(here.total_gib * GIB_BYTES),
        compute_capability=here.compute_capability,
    )
