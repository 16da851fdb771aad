"""What to change after a failure, by how much, what it frees and what it costs; cheapest first.

Sizes follow the engines' own formulas: the KV pool is a fraction of what is free (of the whole GPU in vLLM);
activations and the allocation that failed grow with the tokens of a step. One change must cover the shortfall with a
margin, since the allocation that failed first is rarely the last.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import ConfigDict, Field

from advisor.domain.outcome import Phase
from advisor.domain.serving_config import OptionValue
from advisor.domain.strict import StrictModel, changed
from advisor.domain.units import GIB_BYTES, MIB_BYTES, gib
from advisor.memory.advice import ADVICE, PROBES, Advice
from advisor.memory.events import Kind, LogEvent, size_gib
from advisor.memory.known import Known, yaml_text
from advisor.memory.pricing import Setting

MARGIN = 1.25  # of the first shortfall
FRACTION_STEP = 0.05
LEAST_TOKENS, LEAST_BATCH = 256, 1
LEAST_FRACTION, MOST_FRACTION = 0.05, 0.95
SAFE_SHARE = 0.9  # of a GPU that weights and pools together may take

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
    flag: str | None = Field(default=None, description="The same on the command line")
    covers: bool | None = Field(default=None, description="Whether it is enough alone; null where nobody can say")
    kv_tokens_change: int | None = Field(default=None, description="Of the KV cache of one rank, an estimate")
    throughput_change: float | None = Field(
        default=None, description="Share of output tok/s won or lost under the workload, estimated by the twin"
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
    loaded_gib: float | None = None
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
    found = [_advised(each, known) for each in advised]
    found += [made for maker in _MAKERS.get(_situation(symptom), ()) if (made := maker(symptom, known)) is not None]
    return tuple(found)


def next_probe(symptom: Symptom) -> str | None:
    """What to look at next where the log does not settle it."""
    unsure = symptom.kind == "oom" and symptom.missing_gib is None
    return PROBES.get(symptom.advice) or (PROBES["capacity"] if unsure else None)


def _advised(advice: Advice, known: Known) -> Remedy:
    graphs_off = advice.setting == "cuda_graph_max_batch_size" and advice.to == 0
    return Remedy(
        setting=advice.setting,
        to=advice.to,
        why=advice.why,
        confidence=advice.confidence,
        yaml_patch=yaml_text(known.graphs_off) if graphs_off else advice.yaml_patch,
    )


def change(
    known: Known,
    setting: Setting,
    to: float | None,
    why: str,
    confidence: Literal["high", "medium", "low"],
    frees_gib: float | None = None,
) -> Remedy:
    """A changed setting as a remedy, spelled as the server's release has it."""
    spelled = known.spelling(setting)
    now = known.settings.get(setting)
    said = None if to is None else _value(setting, to)
    return Remedy(
        setting=spelled.name,
        from_=None if now is None else _value(setting, now),
        to=said,
        frees_gib=None if frees_gib is None else round(frees_gib, 2),
        why=why,
        confidence=confidence,
        yaml_patch=None if said is None else patch_of(known, {setting: said}),
        flag=None if said is None or spelled.flag is None else f"{spelled.flag} {said:g}",
    )


def patch_of(known: Known, changes: Mapping[Setting, float]) -> str | None:
    """Changed settings as YAML; None where the release cannot have them in its file."""
    entries: dict[str, OptionValue | None] = {}
    for setting, to in changes.items():
        path = known.spelling(setting).path
        if setting == "graphs" and to == 0:
            entries.update(known.graphs_off)
        elif path is not None:
            entries[path] = to
    return yaml_text(entries) if entries else None


def _value(setting: Setting, value: float) -> float:
    return round(value, 4) if setting == "fraction" else int(value)


def _less_pool(symptom: Symptom, known: Known) -> Remedy | None:
    """Leave more beside the KV pool: the pool is a fraction of what was free when it was sized, or given in bytes."""
    if known.kv_bytes is not None:
        return _fewer_bytes(symptom, known.kv_bytes)
    now = known.settings.get("fraction", DEFAULT_FRACTION)
    base = known.capacity_gib or symptom.total_gib if known.engine == "vllm" else symptom.free_before_pool_gib
    base = base or symptom.total_gib or known.capacity_gib
    missing = symptom.missing_gib
    needed = MARGIN * missing / base if missing is not None and base else 2 * FRACTION_STEP
    # One step is the least that means anything; an unstated fraction is only supposed, so it gets two.
    steps = 1 if "fraction" in known.settings and missing is not None else 2
    to = math.floor(100 * min(now - needed, now - steps * FRACTION_STEP) + 1e-6) / 100
    if to <= LEAST_FRACTION:
        return None
    told = "" if "fraction" in known.settings else f" (from the default {DEFAULT_FRACTION:g}, as the log does not say)"
    why = f"leaves more memory beside the KV pool{told}; costs KV tokens, so fewer requests at once, and nothing else"
    return change(known, "fraction", to, why, "high", (now - to) * base if base else None)


def _fewer_bytes(symptom: Symptom, now: float) -> Remedy | None:
    """A smaller pool where its bytes are given.

    A pool is allocated layer by layer, and the layer that failed tells nothing of those behind it. PyTorch then holds
    the weights and the layers before: these layers and what was free are the room that there is.
    """
    torch_gib = symptom.cause.size_gib("torch") if symptom.cause else None
    to_gib, room = None, ""
    if symptom.stage == "kv_allocate" and torch_gib and symptom.loaded_gib and symptom.free_gib is not None:
        room_gib = torch_gib - symptom.loaded_gib + symptom.free_gib
        to_gib, room = SAFE_SHARE * room_gib, f": of {gib(now):.1f} GiB asked for {room_gib:.1f} were there"
    elif symptom.missing_gib is not None:
        to_gib = gib(now) - MARGIN * symptom.missing_gib
    to = None if to_gib is None else MIB_BYTES * int(to_gib * GIB_BYTES / MIB_BYTES)
    if to is not None and not 0 < to < now:
        return None
    return Remedy(
        setting="kv_cache_memory_bytes",
        from_=int(now),
        to=to,
        frees_gib=None if to is None else round(gib(now - to), 2),
        why=f"the KV pool has this size whatever the fraction{room}; activations and graphs need room beside it",
        confidence="high",
        yaml_patch=None if to is None else yaml_text({"kv-cache-memory-bytes": to}),
        covers=True if room else None,
    )


def _more_pool(symptom: Symptom, known: Known) -> Remedy | None:
    """A KV pool too small for one sequence: the opposite of the out-of-memory remedy."""
    why = "gives the KV pool more of the memory; what is left must still hold activations and CUDA graphs"
    if "fraction" not in known.settings:
        return change(known, "fraction", DEFAULT_FRACTION, f"if it is lower: {why}", "medium")
    now = round(known.settings["fraction"], 4)
    base = (known.capacity_gib or symptom.total_gib) if known.engine == "vllm" else symptom.free_before_pool_gib
    wanted, fits = (
        symptom.cause.number(name) if symptom.cause else None for name in ("wanted_tokens", "fitting_tokens")
    )
    needed = now + MARGIN * symptom.missing_gib / base if symptom.missing_gib and base else DEFAULT_FRACTION
    needed = now * wanted / fits if wanted and fits and known.engine != "vllm" else needed
    to = math.ceil(100 * min(MOST_FRACTION, max(needed, DEFAULT_FRACTION))) / 100
    if to <= now:
        return change(known, "fraction", None, why, "medium") if known.pricing else None
    short = f"; even {MOST_FRACTION:g} does not reach the full length" if needed > MOST_FRACTION else ""
    return change(known, "fraction", to, why + short, "medium" if short else "high")


def _shorter(symptom: Symptom, known: Known) -> Remedy | None:
    wanted, fits = (
        symptom.cause.number(name) if symptom.cause else None for name in ("wanted_tokens", "fitting_tokens")
    )
    why = "the pool must hold one sequence of this length; take the longest request you really serve"
    if wanted:
        known = replace(known, settings={**known.settings, "seq": wanted})
    return change(known, "seq", int(fits) if fits else None, why, "high" if fits else "medium")


def _fewer_tokens(symptom: Symptom, known: Known) -> Remedy | None:
    """Activations, and the allocation that failed, are in proportion to the tokens of a step."""
    now = known.settings.get("tokens")
    why = (
        "activations of a step grow with it; costs prefill throughput, and prompts longer than it need "
        "enable_chunked_prefill"
    )
    if now is None:
        return change(known, "tokens", None, why, "medium")
    share = 0.5
    if symptom.tried_gib and symptom.missing_gib is not None:
        share = min(0.75, max(0.125, (symptom.tried_gib - MARGIN * symptom.missing_gib) / symptom.tried_gib))
    to = max(LEAST_TOKENS, 2 ** math.floor(math.log2(max(1.0, now * share))))
    if to >= now:
        return None
    peak = known.activations_gib or symptom.tried_gib
    kept = 1.0  # of what is freed: once the pool is sized after it, the pool takes its fraction
    if symptom.stage in ("warm_up", "serve") and known.engine != "vllm":
        kept -= known.settings.get("fraction", DEFAULT_FRACTION)
    return change(known, "tokens", to, why, "medium", kept * peak * (1 - to / now) if peak else None)


def _smaller(setting: Setting, why: str) -> Callable[[Symptom, Known], Remedy | None]:
    """Half of a setting; where it is unknown the direction alone."""

    def make(symptom: Symptom, known: Known) -> Remedy | None:
        now = known.settings.get(setting)
        if now is None:
            return change(known, setting, None, why, "medium")
        to = int(now) // 2
        return change(known, setting, to, why, "medium") if to >= LEAST_BATCH else None

    return make


def _more_gpus(symptom: Symptom, known: Known) -> Remedy | None:
    """Shard the weights: enough ranks that one share fits."""
    now, asked = known.settings.get("tp", 1), symptom.requested_gib
    capacity = known.capacity_gib or symptom.total_gib
    why = "each GPU then holds a smaller share of the weights"
    if asked:
        why += f" ({asked:.2f} GiB were asked for in one piece)"
    weights = known.pricing.terms.weights_gib if known.pricing else asked
    to: int | None = int(now) * 2 if "tp" in known.settings else None
    if weights and capacity:
        to = int(now) * max(2, 2 ** math.ceil(math.log2(weights / (SAFE_SHARE * capacity))))
    frees = weights * (1 - now / to) if weights and to else None
    return change(known, "tp", to, why, "medium", frees)


def _free_gpu(symptom: Symptom, known: Known) -> Remedy | None:
    """Other processes on the GPU, with what they hold where the message lists them."""
    listed = symptom.cause.values.get("others", "") if symptom.cause else ""
    held = [size_gib(amount, unit) for amount, unit in _PROCESS.findall(listed)]
    remedy = _advised(ADVICE["others"][0], known)
    return changed(remedy, frees_gib=round(sum(held), 2)) if held else remedy


def _smaller_model(symptom: Symptom, known: Known) -> Remedy | None:
    why = "FP8 or NVFP4 weights take half or a quarter; or a smaller model, or a GPU with more memory"
    return Remedy(setting="quantization", why=why, confidence="medium")


def _longer_steps(symptom: Symptom, known: Known) -> Remedy | None:
    asked = symptom.cause.number("prompt") if symptom.cause else None
    to = None if asked is None else int(2 ** math.ceil(math.log2(asked + 1)))
    limit = symptom.cause.number("limit") if symptom.cause else None
    made = change(known, "tokens", to, "a prompt must fit one step unless it is chunked; costs activations", "high")
    return changed(made, from_=int(limit)) if limit and made.from_ is None else made


def _chunked(symptom: Symptom, known: Known) -> Remedy | None:
    why = "splits long prompts over several steps, so max_num_tokens may stay"
    return Remedy(
        setting="enable_chunked_prefill",
        to=True,
        why=why,
        confidence="high",
        yaml_patch=yaml_text({"enable-chunked-prefill" if known.engine == "vllm" else "enable_chunked_prefill": True}),
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
        yaml_patch=yaml_text({name: to}) if to is not None and flat else None,
    )


_Maker = Callable[[Symptom, Known], Remedy | None]
_batch = _smaller("batch", "fewer requests in a step: smaller buffers, logits and graphs; costs peak throughput")
_graphs = _smaller("graphs", "fewer and smaller CUDA graphs; larger batches run eagerly, a little slower")
_seq = _smaller("seq", "buffers for the longest sequence shrink; longer requests are refused")

_MAKERS: Mapping[str, tuple[_Maker, ...]] = {
    "oom configure": (_more_gpus, _smaller_model),
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
