"""Published TensorRT-LLM configurations, and the one nearest to a deployment and workload."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence

from advisor.domain.deployment import Deployment
from advisor.domain.strict import StrictModel, parse
from advisor.domain.workload import Workload
from advisor.search.shapes import octaves
from advisor.twin.layout import table_model

_VARIANT = re.compile(r"[-_ ](?:instruct|fp8|fp4|nvfp4|mxfp4|bf16)(?=$|[-_ ])")


class CuratedConfig(StrictModel):
    """One published configuration of aggregated serving. None = not stated in the source: the engine's default."""

    source: str
    scenario: str
    model: str
    quant: str | None = None
    gpus: tuple[str, ...] = ()
    num_gpus: int | None = None
    tp: int | None = None
    ep: int | None = None
    pp: int | None = None
    attention_dp: bool | None = None
    isl: int | None = None
    osl: int | None = None
    concurrency: int | None = None
    trtllm_version: str | None = None
    max_batch_size: int | None = None
    max_num_tokens: int | None = None
    max_seq_len: int | None = None
    cuda_graph_max_batch_size: int | None = None
    kv_fraction: float | None = None
    stream_interval: int | None = None
    chunked_prefill: bool | None = None

    @property
    def place(self) -> str:
        """Repository and file, without the commit."""
        return self.source.partition("@")[0]


def curated_configs(rows: Iterable[Mapping[str, str]]) -> tuple[CuratedConfig, ...]:
    """Rows of `curated_configs.csv` (all cells text, blank = not stated) as models.

    Raises:
        BadInput: a cell that cannot be meant.
    """
    return tuple(parse(CuratedConfig, _plain(row), f"curated_configs.csv, {row.get('source', '')}") for row in rows)


def _plain(row: Mapping[str, str]) -> dict[str, object]:
    plain: dict[str, object] = {"gpus": [name for name in row["gpu"].split(";") if name]}
    for name, cell in row.items():
        if cell == "" or name == "gpu":
            continue
        kinds = str(CuratedConfig.model_fields[name].annotation) if name in CuratedConfig.model_fields else ""
        if "bool" in kinds:
            plain[name] = {"true": True, "false": False}.get(cell, cell)
        elif "int" in kinds:
            plain[name] = int(cell) if cell.lstrip("-").isdigit() else cell
        else:
            plain[name] = float(cell) if "float" in kinds else cell
    return plain


def family(model: str) -> str:
    """What two names of one architecture share: `llama_v4_scout_17b_16e_instruct_fp8` is Llama-4-Scout."""
    name = model.replace("_", "-").replace("llama-v", "llama-")
    name = re.sub(r".*alias dsr1.*", "deepseek-r1", name)
    short = table_model(name).rstrip("/").rpartition("/")[2].partition(" (")[0].lower()
    while (shorter := _VARIANT.sub("", short)) != short:
        short = shorter
    return short


def nearest(configs: Sequence[CuratedConfig], deployment: Deployment, workload: Workload) -> CuratedConfig | None:
    """The published configuration of the same model that is nearest; None when the model has none.

    In order: same GPU, same tp, same attention DP, same quantization; then the least distance in ISL, OSL and
    concurrency, in octaves; then the source's name, so that the choice is stable.
    """
    wanted = family(deployment.model)
    own = [config for config in configs if family(config.model) == wanted]
    return min(
        own,
        key=lambda config: (*_mismatches(config, deployment), octaves(config, workload), config.source),
        default=None,
    )


def _mismatches(config: CuratedConfig, deployment: Deployment) -> tuple[float, ...]:
    tp = abs(math.log2((config.tp or 1) / deployment.tp))
    attention_dp = float((config.attention_dp or False) != deployment.attention_dp)
    return _gpu_mismatch(config, _chip(deployment)), tp, attention_dp, float(config.quant != deployment.quantization)


def _gpu_mismatch(config: CuratedConfig, chip: str) -> float:
    if chip in config.gpus:
        return 0.0
    architecture = "Hopper" if chip.startswith("H") else "Blackwell"
    return 0.5 if config.gpus in ((), ("any",)) or architecture in config.gpus else 1.0


def _chip(deployment: Deployment) -> str:
    return deployment.gpu.partition("_")[0].upper()


def differences(config: CuratedConfig, deployment: Deployment, workload: Workload) -> str:
    """How far the published configuration is from what was asked, in words; empty when it is the same."""
    chip = _chip(deployment)
    said = []
    if chip not in config.gpus:
        said.append(f"GPU {'/'.join(config.gpus) or 'not stated'} instead of {chip}")
    for name, theirs, ours in (
        ("tp", config.tp, deployment.tp),
        ("ep", config.ep or 1, deployment.ep),
        ("quantization", config.quant, deployment.quantization),
        ("ISL", config.isl, workload.isl),
        ("OSL", config.osl, workload.osl),
        ("concurrency", config.concurrency, workload.concurrency),
    ):
        if theirs != ours and ours is not None:
            said.append(f"{name} {'not stated' if theirs is None else theirs} instead of {ours}")
    return ", ".join(said)
