"""What a study holds fixed: model, quantization, GPUs, parallel layout, engine release, stated options."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from pydantic import Field, ValidationError, model_validator

from advisor.domain.errors import BadInput
from advisor.domain.serving_config import OptionValue
from advisor.domain.strict import StrictModel, changed, explain
from advisor.domain.units import round_up
from advisor.domain.workload import Workload

KV_BLOCK_TOKENS = 32  # TensorRT-LLM's tokens_per_block
HOPPER = ("h100", "h200")  # how the system keys of such GPUs begin
Quantization = Literal["bf16", "fp8", "fp8_block", "nvfp4", "mxfp4"]
KvCacheDtype = Literal["auto", "bf16", "fp8"]

# The least compute capability with kernels for a precision.
# Source: NVIDIA/TensorRT-LLM docs/source/features/quantization.md (hardware support matrix), supported-hardware.md;
# mxfp4 on Hopper: tensorrt_llm/_torch/model_config.py (GptOssForCausalLM).
LEAST_CAPABILITY: dict[Quantization, tuple[int, int]] = {
    "bf16": (8, 0),
    "fp8": (8, 9),
    "fp8_block": (9, 0),
    "mxfp4": (9, 0),
    "nvfp4": (10, 0),
}

# Search-space dimension -> Deployment field that it overrides for one trial.
OPTION_FIELDS: dict[str, str] = {
    "enable_attention_dp": "attention_dp",
    "enable_chunked_prefill": "chunked_prefill",
    "stream_interval": "stream_interval",
    "kv_cache_dtype": "kv_cache_dtype",
    "moe_backend": "moe_backend",
    "enable_block_reuse": "block_reuse",
    "graph_padding": "graph_padding",
    "disable_overlap_scheduler": "overlap_scheduler",
    "tp": "tp",
    "ep": "ep",
}
_NEGATED = ("disable_overlap_scheduler",)  # said the other way round
GRAPH_SIZES = "cuda_graph_batch_sizes"  # the one dimension with a fixed meaning that is no field: `auto` for all


class ModelFacts(StrictModel):
    """Architecture numbers of one model, as its published `config.json` states them."""

    name: str
    architecture: str
    layers: int = Field(ge=1)
    hidden_size: int = Field(ge=1)
    num_heads: int = Field(ge=1)
    num_kv_heads: int = Field(ge=1)
    head_dim: int = Field(ge=1)
    intermediate_size: int | None = None
    vocab_size: int = Field(ge=1)
    max_position: int | None = Field(default=None, description="Longest context, tokens")
    num_experts: int | None = None
    experts_per_token: int | None = None
    moe_intermediate_size: int | None = None
    moe_layers: int | None = None
    shared_experts: int | None = None
    kv_lora_rank: int | None = Field(default=None, description="Set for multi-head latent attention (DeepSeek)")
    qk_rope_head_dim: int | None = None
    q_lora_rank: int | None = None

    @property
    def is_moe(self) -> bool:
        """True when the model routes tokens to experts."""
        return bool(self.num_experts)

    @property
    def is_mla(self) -> bool:
        """True for multi-head latent attention, whose KV cache is not split over ranks."""
        return self.kv_lora_rank is not None


class GpuFacts(StrictModel):
    """One GPU system as its data sheet and driver state it."""

    name: str = Field(description="System key, such as b200_sxm")
    title: str = Field(description="Name for people, such as B200 SXM")
    memory_bytes: int = Field(ge=1, description="Usable device memory of one GPU")
    compute_capability: tuple[int, int]


class Deployment(StrictModel):
    """Fixed for the whole study. `gpus` = `tp` x `pp`; `ep` divides `tp`, each expert is split `tp`/`ep` ways."""

    model: str = Field(min_length=1, description="Hugging Face name or checkpoint folder, as given to the server")
    quantization: Quantization
    gpu: str = Field(description="GPU system key, such as b200_sxm")
    gpus: int = Field(ge=1)
    tp: int = Field(ge=1)
    pp: int = Field(default=1, ge=1)
    ep: int = Field(default=1, ge=1)
    attention_dp: bool = False
    engine: str = "trtllm"
    engine_version: str = "1.2.0"
    max_seq_len: int | None = Field(default=None, ge=1, description="Tokens; none = longest ISL+OSL of the study")
    graph_padding: bool = True
    chunked_prefill: bool = False
    block_reuse: bool = True
    stream_interval: int = Field(default=1, ge=1)
    kv_cache_dtype: KvCacheDtype = "auto"
    moe_backend: str | None = None
    overlap_scheduler: bool = True
    trust_remote_code: bool = False
    engine_options: dict[str, OptionValue] = Field(
        default_factory=dict, description="Further options of the engine release, stated in every launch"
    )

    @model_validator(mode="after")
    def _layout(self) -> Deployment:
        if self.tp * self.pp != self.gpus:
            raise ValueError(
                f"tp {self.tp} x pp {self.pp} = {self.tp * self.pp} ranks, but {self.gpus} GPUs are given; "
                f"set tp to {max(1, self.gpus // self.pp)} or gpus to {self.tp * self.pp}."
            )
        if self.tp % self.ep:
            raise ValueError(f"ep {self.ep} does not divide tp {self.tp}; use one of {divisors(self.tp)}.")
        return self

    def __hash__(self) -> int:
        return hash(self.model_dump_json())

    @property
    def ranks_with_own_queue(self) -> int:
        """Schedulers side by side: tp under attention DP, else 1."""
        return self.tp if self.attention_dp else 1

    @property
    def moe_tp(self) -> int:
        """Ways each expert is split."""
        return self.tp // self.ep

    @property
    def kv_dtype(self) -> Literal["bf16", "fp8"]:
        """KV-cache type in effect: `auto` follows the checkpoint, and NVIDIA's FP8 and NVFP4 ones declare FP8."""
        if self.kv_cache_dtype != "auto":
            return self.kv_cache_dtype
        return "fp8" if self.quantization in ("fp8", "nvfp4") else "bf16"

    def ep_at(self, tp: int) -> int:
        """Expert-parallel size beside another tp: all ranks where it is all of several now, else at most as many."""
        return tp if self.ep == self.tp > 1 else min(self.ep, tp)

    def system_batch(self, max_batch_size: int) -> int:
        """Requests that can run at once over all ranks: per-rank limit x tp under attention DP."""
        return max_batch_size * self.ranks_with_own_queue

    def seq_len(self, workloads: Iterable[Workload]) -> int:
        """`max_seq_len` given to the server: as fixed, else the longest ISL+OSL rounded up to a KV block."""
        if self.max_seq_len is not None:
            return self.max_seq_len
        return round_up(max(workload.max_tokens_per_request for workload in workloads), KV_BLOCK_TOKENS)

    def with_options(self, options: Mapping[str, OptionValue]) -> Deployment:
        """This deployment as one trial runs it: options that name a fixed field override it, others join the engine's.

        The GPUs stay: with another `tp` there are as many pipeline stages as use them all, and `ep` follows it.

        Raises:
            BadInput: a value that the field cannot have.
        """
        updates: dict[str, object] = {
            OPTION_FIELDS[name]: _as_field(name, value) for name, value in options.items() if name in OPTION_FIELDS
        }
        further = {name: value for name, value in options.items() if name not in OPTION_FIELDS}
        if further:
            updates["engine_options"] = {**self.engine_options, **further}
        tp = updates.get("tp", self.tp)
        if isinstance(tp, int) and tp not in (0, self.tp):
            updates = {"pp": max(1, self.gpus // tp), "ep": self.ep_at(tp), **updates}
        try:
            return changed(self, **updates) if updates else self
        except ValidationError as error:
            raise BadInput(f"options: {explain(error, Deployment)}") from None

    def option(self, name: str) -> OptionValue | None:
        """What it fixes under the name of a dimension; None where it says nothing."""
        if name not in OPTION_FIELDS:
            return self.engine_options.get(name, "auto" if name == GRAPH_SIZES else None)
        value: OptionValue | None = getattr(self, OPTION_FIELDS[name])
        return None if value is None else _as_field(name, value)

    def check_model(self, facts: ModelFacts) -> None:
        """Refuse a layout that the model cannot be cut into.

        Raises:
            BadInput: tensor-parallel or expert-parallel size that does not divide, too many pipeline stages.
        """
        if facts.num_heads % self.tp:
            fitting = [n for n in divisors(facts.num_heads) if n <= 64]
            raise BadInput(
                f"Tensor-parallel size {self.tp} does not divide the {facts.num_heads} attention heads of "
                f"{facts.name}; use --tp with one of {fitting}."
            )
        if self.ep > 1 and not facts.is_moe:
            raise BadInput(f"{facts.name} has no experts, so --ep {self.ep} means nothing; leave it at 1.")
        if facts.num_experts and facts.num_experts % self.ep:
            raise BadInput(
                f"Expert-parallel size {self.ep} does not divide the {facts.num_experts} experts of {facts.name}."
            )
        if self.pp > facts.layers:
            raise BadInput(
                f"{facts.name} has {facts.layers} layers, fewer than the {self.pp} pipeline stages asked for."
            )

    def check_workload(self, workload: Workload, facts: ModelFacts) -> None:
        """Refuse a workload longer than the model's context or than a fixed `max_seq_len`.

        Raises:
            BadInput: with the limit and the way out.
        """
        longest = workload.max_tokens_per_request
        if facts.max_position is not None and longest > facts.max_position:
            raise BadInput(
                f"Workload {workload.name} needs {longest:,} tokens (ISL {workload.isl:,} + OSL {workload.osl:,}), "
                f"but the context of {facts.name} ends at {facts.max_position:,}; shorten ISL or OSL."
            )
        if self.max_seq_len is not None and longest > self.max_seq_len:
            raise BadInput(
                f"Workload {workload.name} needs {longest:,} tokens, but max_seq_len is fixed at {self.max_seq_len:,}; "
                "raise it or leave it out."
            )


def _as_field(name: str, value: OptionValue) -> OptionValue:
    """The value of a field from that of its dimension, and back."""
    return not value if name in _NEGATED and isinstance(value, bool) else value


def divisors(n: int) -> list[int]:
    """All divisors of n, ascending."""
    return [d for d in range(1, n + 1) if n % d == 0]
