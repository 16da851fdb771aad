"""What to change after a failure, by how much, what it frees and what it costs; cheapest first.

Sizes follow the engines' own formulas: the KV pool is a fraction of what is free (of the whole GPU in vLLM);
activations and the allocation that failed grow with the tokens of a step. One change must cover the shortfall with a
margin, since the allocation that failed first is rarely the last.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from pydantic import ConfigDict, Field

from advisor.domain.outcome import Phase
from advisor.domain.serving_config import OptionValue
from advisor.domain.strict import StrictModel
from advisor.memory.advice import ADVICE, PROBES, Advice
from advisor.memory.events import Kind, LogEvent, size_gib

MARGIN = 1.25  # of the first shortfall
FRACTION_STEP = 0.05
LEAST_TOKENS, LEAST_BATCH = 256, 1
MOST_FRACTION = 0.95
SAFE_SHARE = 0.9  # of a GPU that weights and pools together may take

EngineName = Literal["trtllm", "vllm"]
Setting = Literal["fraction", "tokens", "batch", "graphs", "seq", "tp"]

# Neutral name, and where the engine's configuration file has it.
NAMES: Mapping[EngineName, Mapping[Setting, tuple[str, str]]] = {
    "trtllm": {
        "fraction": ("kv_cache_free_gpu_memory_fraction", "kv_cache_config.free_gpu_memory_fraction"),
        "tokens": ("max_num_tokens", "max_num_tokens"),
        "batch": ("max_batch_size", "max_batch_size"),
        "graphs": ("cuda_graph_max_batch_size", "cuda_graph_config.max_batch_size"),
        "seq": ("max_seq_len", "max_seq_len"),
        "tp": ("tensor_parallel_size", "tensor_parallel_size"),
    },
    "vllm": {
        "fraction": ("gpu_memory_utilization", "gpu-memory-utilization"),
        "tokens": ("max_num_batched_tokens", "max-num-batched-tokens"),
        "batch": ("max_num_seqs", "max-num-seqs"),
        "graphs": ("max_cudagraph_capture_size", "max-cudagraph-capture-size"),
        "seq": ("max_model_len", "max-model-len"),
        "tp": ("tensor_parallel_size", "tensor-parallel-size"),
    },
}
_PROCESS = re.compile(r"Process \d+ has ([\d.]+) (\w+)")
DEFAULT_FRACTION = 0.9  # of both engines' usual releases


class Remedy(StrictModel):
    """One change. `to` is None where only a direction can be given."""

    model_config = ConfigDict(populate_by_name=True)

    setting: str
    from_: OptionValue | None = Field(default=None, alias="from")
    to: OptionValue | None = None
    frees_gib: float | None = Field(default=None, description="GiB of one GPU, an estimate")
    why: str
    confidence: Literal["high", "medium", "low"]
    yaml_patch: str | None = Field(default=None, description="To merge into the server's configuration file")


@dataclass(frozen=True)
class Known:
    """What is known of settings and GPU: from the log's own lines, a configuration file, or the command line."""

    engine: EngineName | None = None
    version: str | None = None
    settings: Mapping[Setting, float] = field(default_factory=dict)
    capacity_gib: float | None = None
    activations_gib: float | None = None

    def with_facts(self, facts: Mapping[str, LogEvent]) -> Known:
        """Complete what was said with what the log says.

        The log tells what the server really used, but its `max_seq_len` may be that of the first pass.
        """
        names: dict[str, Setting] = {
            "kv_fraction": "fraction",
            "max_num_tokens": "tokens",
            "max_batch_size": "batch",
            "max_seq_len": "seq",
            "tp": "tp",
        }
        logged = {
            setting: value
            for name, setting in names.items()
            if name in facts and (value := facts[name].number(name)) is not None
        }
        said_better = {"seq"} & set(self.settings)
        version = next((facts[name].values[name] for name in ("version", "engine") if name in facts), None)
        total, activations = facts.get("total"), facts.get("activations")
        is_vllm = any(event.meaning.name.startswith("vllm") for event in facts.values())
        return replace(
            self,
            engine=self.engine or ("vllm" if is_vllm else "trtllm" if facts else None),
            version=self.version or version,
            settings={**self.settings, **{name: value for name, value in logged.items() if name not in said_better}},
            capacity_gib=self.capacity_gib or (total.size_gib("total") if total else None),
            activations_gib=activations.size_gib("activations") if activations else self.activations_gib,
        )


@dataclass(frozen=True)
class Symptom:
    """What a remedy is for."""

    kind: Kind
    stage: Phase | None
    detail: str = ""
    component: str | None = None
    advice: str = ""
    cause: LogEvent | None = None
    tried_gib: float | None = None
    free_gib: float | None = None
    total_gib: float | None = None
    requested_gib: float | None = None
    shared_gpu: bool = False
    free_before_pool_gib: float | None = None
    given: float | None = None
    limit: float | None = None

    @property
    def missing_gib(self) -> float | None:
        """Tried minus free, where both are known."""
        if self.tried_gib is None or self.free_gib is None:
            return None
        return max(0.0, self.tried_gib - self.free_gib)


def remedies(symptom: Symptom, known: Known) -> tuple[Remedy, ...]:
    """Remedies for a symptom, cheapest first; what cannot be changed any further is left out."""
    advised = [*(ADVICE["one_gpu_a_rank"] if symptom.shared_gpu else ()), *ADVICE.get(symptom.advice, ())]
    found = [_advised(each) for each in advised]
    for maker in _MAKERS.get(_situation(symptom), ()):
        made = maker(symptom, known)
        if made is not None:
            found.append(made)
    return tuple(found)


def next_probe(symptom: Symptom) -> str | None:
    """What to look at next where the log does not settle it."""
    unsure = symptom.kind == "oom" and symptom.missing_gib is None
    return PROBES.get(symptom.advice) or (PROBES["capacity"] if unsure else None)


def yaml_patch(path: str, value: OptionValue) -> str:
    """A dotted path and its value as YAML to merge."""
    parts = path.split(".")
    word = str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
    return "".join(f"{'  ' * depth}{key}:\n" for depth, key in enumerate(parts[:-1])) + (
        f"{'  ' * (len(parts) - 1)}{parts[-1]}: {word}\n"
    )


def _advised(advice: Advice) -> Remedy:
    return Remedy(
        setting=advice.setting,
        to=advice.to,
        why=advice.why,
        confidence=advice.confidence,
        yaml_patch=advice.yaml_patch,
    )


def _change(
    known: Known,
    setting: Setting,
    to: OptionValue | None,
    why: str,
    confidence: Literal["high", "medium", "low"],
    frees_gib: float | None = None,
) -> Remedy:
    name, path = NAMES[known.engine or "trtllm"][setting]
    now = known.settings.get(setting)
    before: OptionValue | None = None if now is None else round(now, 4) if setting == "fraction" else int(now)
    return Remedy(
        setting=name,
        from_=before,
        to=to,
        frees_gib=None if frees_gib is None else round(frees_gib, 2),
        why=why,
        confidence=confidence,
        yaml_patch=None if to is None else yaml_patch(path, to),
    )


def _less_pool(symptom: Symptom, known: Known) -> Remedy | None:
    """Leave more beside the KV pool: the pool is a fraction of what was free when it was sized."""
    now = known.settings.get("fraction", DEFAULT_FRACTION)
    base = known.capacity_gib or symptom.total_gib if known.engine == "vllm" else symptom.free_before_pool_gib
    base = base or symptom.total_gib or known.capacity_gib
    missing = symptom.missing_gib
    needed = MARGIN * missing / base if missing is not None and base else 2 * FRACTION_STEP
    # One step is the least that means anything; an unstated fraction is only supposed, so it gets two.
    steps = 1 if "fraction" in known.settings and missing is not None else 2
    to = math.floor(100 * min(now - needed, now - steps * FRACTION_STEP) + 1e-6) / 100
    if to <= 0.05:
        return None
    told = "" if "fraction" in known.settings else f" (from the default {DEFAULT_FRACTION:g}, as the log does not say)"
    why = f"leaves more memory beside the KV pool{told}; costs KV tokens, so fewer requests at once, and nothing else"
    return _change(known, "fraction", to, why, "high", (now - to) * base if base else None)


def _more_pool(symptom: Symptom, known: Known) -> Remedy | None:
    """A KV pool too small for one sequence: the opposite of the out-of-memory remedy."""
    why = "gives the KV pool more of the memory; what is left must still hold activations and CUDA graphs"
    if "fraction" not in known.settings:
        return _change(known, "fraction", DEFAULT_FRACTION, f"if it is lower: {why}", "medium")
    now = round(known.settings["fraction"], 4)
    base = (known.capacity_gib or symptom.total_gib) if known.engine == "vllm" else symptom.free_before_pool_gib
    wanted, fits = (
        symptom.cause.number(name) if symptom.cause else None for name in ("wanted_tokens", "fitting_tokens")
    )
    needed = now + MARGIN * symptom.missing_gib / base if symptom.missing_gib and base else DEFAULT_FRACTION
    needed = now * wanted / fits if wanted and fits and known.engine != "vllm" else needed
    to = math.ceil(100 * min(MOST_FRACTION, max(needed, DEFAULT_FRACTION))) / 100
    if to <= now:
        return None
    short = f"; even {MOST_FRACTION:g} does not reach the full length" if needed > MOST_FRACTION else ""
    return _change(known, "fraction", to, why + short, "medium" if short else "high")


def _shorter(symptom: Symptom, known: Known) -> Remedy | None:
    wanted, fits = (
        symptom.cause.number(name) if symptom.cause else None for name in ("wanted_tokens", "fitting_tokens")
    )
    why = "the pool must hold one sequence of this length; take the longest request you really serve"
    if wanted:
        known = replace(known, settings={**known.settings, "seq": wanted})
    return _change(known, "seq", int(fits) if fits else None, why, "high" if fits else "medium")


def _fewer_tokens(symptom: Symptom, known: Known) -> Remedy | None:
    """Activations, and the allocation that failed, are in proportion to the tokens of a step."""
    now = known.settings.get("tokens")
    why = (
        "activations of a step grow with it; costs prefill throughput, and prompts longer than it need "
        "enable_chunked_prefill"
    )
    if now is None:
        return _change(known, "tokens", None, why, "medium")
    share = 0.5
    if symptom.tried_gib and symptom.missing_gib is not None:
        share = min(0.75, max(0.125, (symptom.tried_gib - MARGIN * symptom.missing_gib) / symptom.tried_gib))
    to = max(LEAST_TOKENS, 2 ** math.floor(math.log2(max(1.0, now * share))))
    if to >= now:
        return None
    peak = known.activations_gib or symptom.tried_gib
    return _change(known, "tokens", to, why, "medium", peak * (1 - to / now) if peak else None)


def _smaller(setting: Setting, why: str) -> Callable[[Symptom, Known], Remedy | None]:
    """Half of a setting; where it is unknown the direction alone."""

    def make(symptom: Symptom, known: Known) -> Remedy | None:
        now = known.settings.get(setting)
        if now is None:
            return _change(known, setting, None, why, "medium")
        to = int(now) // 2
        return _change(known, setting, to, why, "medium") if to >= LEAST_BATCH else None

    return make


def _more_gpus(symptom: Symptom, known: Known) -> Remedy | None:
    """Shard the weights: enough ranks that one share fits."""
    now, asked = known.settings.get("tp", 1), symptom.requested_gib
    capacity = known.capacity_gib or symptom.total_gib
    why = "each GPU then holds a smaller share of the weights"
    if asked:
        why += f" ({asked:.2f} GiB were asked for in one piece)"
    to: int | None = int(now) * 2 if "tp" in known.settings else None
    if asked and capacity:
        to = max(2, 2 ** math.ceil(math.log2(now * asked / (SAFE_SHARE * capacity))))
    return _change(known, "tp", to, why, "medium")


def _free_gpu(symptom: Symptom, known: Known) -> Remedy | None:
    """Other processes on the GPU, with what they hold where the message lists them."""
    listed = symptom.cause.values.get("others", "") if symptom.cause else ""
    held = [size_gib(amount, unit) for amount, unit in _PROCESS.findall(listed)]
    remedy = _advised(ADVICE["others"][0])
    return remedy.model_copy(update={"frees_gib": round(sum(held), 2)}) if held else remedy


def _smaller_model(symptom: Symptom, known: Known) -> Remedy | None:
    why = "FP8 or NVFP4 weights take half or a quarter; or a smaller model, or a GPU with more memory"
    return Remedy(setting="quantization", why=why, confidence="medium")


def _longer_steps(symptom: Symptom, known: Known) -> Remedy | None:
    asked = symptom.cause.number("prompt") if symptom.cause else None
    to = None if asked is None else int(2 ** math.ceil(math.log2(asked + 1)))
    limit = symptom.cause.number("limit") if symptom.cause else None
    made = _change(known, "tokens", to, "a prompt must fit one step unless it is chunked; costs activations", "high")
    return made.model_copy(update={"from_": int(limit)}) if limit and made.from_ is None else made


def _chunked(symptom: Symptom, known: Known) -> Remedy | None:
    why = "splits long prompts over several steps, so max_num_tokens may stay"
    return Remedy(
        setting="enable_chunked_prefill",
        to=True,
        why=why,
        confidence="high",
        yaml_patch=yaml_patch("enable_chunked_prefill", True),
    )


def _refused(symptom: Symptom, known: Known) -> Remedy | None:
    """The setting that the validator names, at the limit it names."""
    limit, given = symptom.limit, symptom.given
    name = symptom.component or "configuration"
    to = None if limit is None else int(limit)
    why = "at most what the engine was built for" if to else "the message says what is accepted; unknown keys go away"
    flat = name.replace("_", "").replace(".", "").isalnum()
    return Remedy(
        setting=name,
        from_=None if given is None else int(given),
        to=to,
        why=why,
        confidence="high",
        yaml_patch=yaml_patch(name, to) if to is not None and flat else None,
    )


_Maker = Callable[[Symptom, Known], Remedy | None]
_batch = _smaller("batch", "fewer requests in a step: smaller buffers, logits and graphs; costs peak throughput")
_graphs = _smaller("graphs", "fewer and smaller CUDA graphs; larger batches run eagerly, a little slower")
_seq = _smaller("seq", "buffers for the longest sequence shrink; longer requests are refused")

_MAKERS: Mapping[str, tuple[_Maker, ...]] = {
    "oom load": (_free_gpu, _more_gpus, _smaller_model, _fewer_tokens),
    "oom buffers": (_batch, _less_pool, _more_gpus),
    "oom build": (_batch, _fewer_tokens, _more_gpus, _smaller_model),
    "oom kv_estimate": (_fewer_tokens, _graphs, _batch, _more_gpus),
    "oom kv_allocate": (_less_pool, _seq, _batch),
    "oom warm_up": (_less_pool, _graphs, _fewer_tokens, _batch),
    "oom serve": (_less_pool, _fewer_tokens, _batch),
    "oom connect": (_free_gpu, _less_pool, _more_gpus),
    "oom launch": (_less_pool,),
    "insufficient_kv": (_more_pool, _shorter, _fewer_tokens, _more_gpus),
    "window": (_more_pool, _shorter),
    "long_prompt": (_chunked, _longer_steps),
    "refused": (_refused,),
}


def _situation(symptom: Symptom) -> str:
    """The row of `_MAKERS`."""
    by_advice = {"buffers": "oom buffers", "long_prompt": "long_prompt", "config": "refused", "window": "window"}
    if symptom.advice in by_advice:
        return by_advice[symptom.advice]
    return f"oom {symptom.stage}" if symptom.kind == "oom" else symptom.kind
