"""Where in a server's life a failure happened: by the line itself, by TensorRT-LLM's memory report, by the traceback
before it, or by the last stage the log had reached, in this order.
"""

from __future__ import annotations

from dataclasses import replace

from advisor.domain.outcome import Phase
from advisor.memory.case import Candidate, Case, Place
from advisor.memory.events import LogEvent

_TEMPORARY = "(temporary for KV cache size estimation)"
# Friendly names of TensorRT-LLM's memory report and the internal ones of 1.2, in order of creation.
_COMPONENTS: tuple[tuple[tuple[str, ...], Place], ...] = (
    (("model",), Place("load", "weight_load", "model weights")),
    (("draft model", "draft_model"), Place("load", "weight_load", "draft model weights")),
    (("guided decoder", "guided_decoder"), Place("load", "executor_init", "Guided Decoder")),
    (("sampler",), Place("load", "executor_init", "Sampler")),
    (
        ("initial kv cache", "_no_capture_init_kv_cache"),
        Place("kv_estimate", "kv_cache_estimation", f"Initial KV cache {_TEMPORARY}"),
    ),
    (
        ("speculative decoding", "spec_resource_manager"),
        Place("kv_estimate", "extra_resources", "Speculative decoding resources"),
    ),
    (("drafter",), Place("kv_estimate", "extra_resources", "Drafter")),
    (
        ("additional executor resources (temporary", "_no_capture_init_extra_resources"),
        Place("kv_estimate", "extra_resources", f"Additional executor resources {_TEMPORARY}"),
    ),
    (
        ("model resources created", "model_extra"),
        Place("kv_estimate", "kv_cache_estimation", "Model resources created during usage"),
    ),
    (("kv cache", "kv_cache"), Place("kv_allocate", "kv_cache_alloc", "KV cache")),
    (
        ("additional executor resources", "executor_extra"),
        Place("warm_up", "post_kv_resources", "Additional executor resources"),
    ),
)
_AFTER_POOL = Place("warm_up", "post_kv_resources", "resources created after the KV pool")
_USUAL_DETAIL: dict[Phase, str] = {
    "load": "weight_load",
    "kv_estimate": "kv_cache_estimation",
    "kv_allocate": "kv_cache_alloc",
    "warm_up": "warmup",
    "serve": "serving",
}
# Free memory before the final executor is what the pool left over; more than this share means there was no pool yet.
_MOST_LEFT_BESIDE_POOL = 0.15
_NOTHING_BUT_TORCH = 0.9  # share of the process's memory that is PyTorch's: the KV pool, which is not, cannot exist


def place_of(cause: Candidate, case: Case) -> Place:
    """Stage, finer stage and component of a cause, as far as the log tells."""
    meaning = cause.event.meaning
    if meaning.stage:
        return Place(meaning.stage, meaning.detail)
    reported = _reported_place(cause, case) if cause.kind == "oom" else None
    if reported is not None:
        return reported
    if meaning.name == "step_oom" and not case.ready and cause.mark.stage not in (None, "serve"):
        return Place("kv_estimate", "kv_cache_estimation", "Model resources created during usage")
    if cause.kind == "oom" and cause.frame.stage:
        return cause.frame
    if meaning.name == "executor_oom" and cause.mark.stage in (None, "launch", "connect", "load"):
        return Place("load", "executor_init", "model / executor init")
    if _only_torch(cause.event) and cause.mark.stage in (None, "launch", "connect"):
        return Place("load", "weight_load", "model weights")
    stage = cause.mark.stage or meaning.usual_stage or case.place.stage
    detail = meaning.detail if not cause.mark.stage or stage == meaning.usual_stage else cause.mark.detail
    return Place(stage, detail or _USUAL_DETAIL.get(stage or "configure", ""), cause.frame.component)


def _reported_place(cause: Candidate, case: Case) -> Place | None:
    """Where the memory report of a failed creation puts it; None where there is no report, or it is of no help."""
    heading = [each for each in case.candidates if each.event.meaning.name.startswith("creation_")]
    if not heading and case.report.component is None:
        return None
    if cause.event.meaning.name == "step_oom" and cause.mark.stage == "serve":
        return None
    if case.report.component is not None:
        return _component_place(case.report.component.values["component"], case)
    created = [_listed_place(name) for name in case.report.rows]
    if created:
        stages = {place.stage for place in created}
        past_estimate = any("extra_resources" in name or name == "kv_cache" for name in case.report.rows)
        return _AFTER_POOL if past_estimate or "warm_up" in stages else Place("kv_estimate", "extra_resources")
    if cause.frame.stage:
        return cause.frame
    return _AFTER_POOL if cause.mark.stage in (None, "launch", "connect") else None


def _component_place(name: str, case: Case) -> Place:
    """The place of a component as the report names it."""
    place = _listed_place(name)
    if place.detail != "post_kv_resources":
        weights = case.facts.get("weights_gib")
        fits = weights and case.report.before_gib and (weights.number("weights_gib") or 0) < case.report.before_gib
        if place.component == "model weights" and fits:
            return Place("load", "weight_post_load", "model weights (post-load pass, such as FP8 scale resmoothing)")
        return place
    listed = [row.lower() for row in case.report.rows]
    final_pool = any(row.startswith(("kv cache", "kv_cache")) for row in listed)
    first_pass = any("initial kv" in row or "init_kv" in row for row in listed) and not final_pool
    if not listed and case.report.before_gib and case.report.total_gib:
        first_pass = case.report.before_gib / case.report.total_gib > _MOST_LEFT_BESIDE_POOL
    return replace(place, stage="kv_estimate", detail="extra_resources") if first_pass else place


def _listed_place(name: str) -> Place:
    lowered = name.lower()
    matches = [(len(key), place) for keys, place in _COMPONENTS for key in keys if lowered.startswith(key)]
    return max(matches, key=lambda match: match[0])[1] if matches else Place("load", "executor_init", name)


def _only_torch(event: LogEvent) -> bool:
    """True where PyTorch holds all the process has: no KV pool was there yet."""
    torch, mine = event.size_gib("torch"), event.size_gib("mine") or event.size_gib("total")
    return bool(torch and mine and torch / mine > _NOTHING_BUT_TORCH)
