"""From the events of a log to a diagnosis: what failed, where, how much was missing, what to change.

A server that dies says so many times: worker, proxy, parent, peers that lose it, requests in flight. The cause is the
earliest event of the first rank in `case.CAUSAL_ORDER`; `locating` says where it happened.
"""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field

from advisor.domain.outcome import Evidence, Phase
from advisor.domain.strict import StrictModel
from advisor.memory.case import Candidate, Case, Place, root_cause
from advisor.memory.events import Kind, LogEvent, size_gib
from advisor.memory.exact import exact, prices, ready_patch
from advisor.memory.known import Known
from advisor.memory.locating import place_of
from advisor.memory.pricing import Price
from advisor.memory.remedies import Remedy, Symptom, next_probe, remedies
from advisor.memory.wording import sentence

MAX_EVIDENCE = 8
Confidence = Literal["high", "medium", "low"]


class Diagnosis(StrictModel):
    """`advisor doctor LOG --output json`."""

    schema_version: Literal[1] = 1
    verdict: Kind
    phase: Phase | None = Field(description="Stage of a server's life in which it happened")
    phase_detail: str = ""
    component: str | None
    short_gib: float | None = Field(description="Allocation tried minus memory free, both from one message")
    tried_gib: float | None = Field(default=None, description="The allocation that failed first")
    free_gib: float | None = Field(
        default=None, description="Free when it failed; for a KV pool what its budget left it, which may be below zero"
    )
    summary: str = Field(description="The verdict in one sentence")
    evidence: tuple[Evidence, ...]
    remedies: tuple[Remedy, ...] = Field(description="Cheapest first, those that are enough alone before the others")
    yaml_patch: str | None = Field(
        default=None, description="To merge: the cheapest change, or changes together, that cover the shortfall"
    )
    flags: tuple[str, ...] = Field(default=(), description="What the release takes on the command line only")
    prices: tuple[Price, ...] = Field(default=(), description="What one step of a setting is worth, by the memory law")
    calibration: str = Field(default="none", description="Launches that taught the memory law, and where")
    next_probe: str | None = Field(default=None, description="What to look at where the log alone does not settle it")
    notes: tuple[str, ...] = ()
    engine: Literal["trtllm", "vllm"] | None = None
    engine_version: str | None = None


_KEY = re.compile(r"[a-z]\w*(?:\.[\w-]+)*")
_NAMED = ("setting", "named", "option", "unknown", "argument")
_COMPONENT_OF_DETAIL = {"cuda_graph_capture": "CUDA graphs", "autotuner_warmup": "autotuner workspace"}
_KIND_OF_TYPE: dict[str, Kind] = {
    "ValueError": "config",
    "FileNotFoundError": "config",
    "ParserError": "config",
    "ScannerError": "config",
    "NotImplementedError": "unsupported_model",
}
_UNLOADED = (None, "configure", "launch", "connect")
_USUAL_COMPONENT: dict[Phase, str] = {
    "connect": "NCCL communicator",
    "load": "model weights",
    "build": "engine weights",
    "kv_estimate": "Model resources created during usage",
    "kv_allocate": "KV cache",
    "warm_up": "resources created after the KV pool",
    "serve": "activations",
}


def diagnose(case: Case, known: Known | None = None) -> Diagnosis:
    """The verdict on a log.

    Args:
        case: The log, read.
        known: Settings and GPU beside the log, which make remedies exact.
    """
    known = (known or Known()).with_facts(case.facts)
    cause = root_cause(case)
    if cause is None:
        return _without_cause(case, known)
    place = place_of(cause, case)
    short, source = _shortfall(cause, case)
    component = _component(cause, place, case)
    symptom = Symptom(
        kind=cause.kind,
        stage=place.stage,
        detail=place.detail,
        component=component,
        advice=cause.event.meaning.advice,
        cause=cause.event,
        tried_gib=source.size_gib("tried") if source else None,
        free_gib=_free_gib(cause, source, case),
        total_gib=_total_gib(source, case),
        requested_gib=_requested_gib(cause, case),
        shared_gpu=_ranks_share_a_gpu(cause.event),
        free_before_pool_gib=_free_before_pool(case),
        loaded_gib=case.facts["weights"].size_gib("weights") if "weights" in case.facts else None,
        given=_said(cause, case, "given"),
        limit=_said(cause, case, "limit"),
    )
    return Diagnosis(
        verdict=cause.kind,
        phase=place.stage,
        phase_detail=place.detail,
        component=component,
        short_gib=short,
        tried_gib=symptom.tried_gib,
        free_gib=symptom.free_gib,
        summary=sentence(cause.kind, place, component, short, cause.event),
        evidence=_evidence(cause, source, case),
        **_treatment(symptom, known),
        calibration=known.calibration,
        next_probe=next_probe(symptom),
        notes=_notes(case, known, symptom),
        engine=known.engine,
        engine_version=known.version,
    )


def _treatment(symptom: Symptom, known: Known) -> dict[str, Any]:
    """What to do about it, in the fields of a diagnosis."""
    found = exact(remedies(symptom, known), symptom, known)
    patch, flags = ready_patch(found, symptom, known)
    return {"remedies": found, "yaml_patch": patch, "flags": flags, "prices": prices(known)}


def _component(cause: Candidate, place: Place, case: Case) -> str | None:
    meaning, values = cause.event.meaning, cause.event.values
    if cause.kind == "oom" and place.component and not meaning.component:
        starved = any(each.event.meaning.name == "creation_nccl_oom" for each in case.candidates)
        return f"{place.component}: NCCL communicator" if starved else place.component
    if meaning.name == "async_step_oom" and "context" in case.facts:
        held = case.facts["context"].size_gib("context")
        return f"context logits (execution context already holds {held:.1f} GiB)"
    if meaning.name == "cuda_oom" and place.stage == "kv_allocate" and "kv_pool" in case.facts:
        return f"KV cache ({case.facts['kv_pool'].size_gib('kv_pool'):.2f} GiB pool)"
    if meaning.name == "moe_shared_memory" and "sm" in values:
        return f"fused MoE kernel for {values['sm'].upper()}"
    if meaning.name == "port" and "port" in values:
        return f"port {values['port']}"
    if meaning.name == "prompt_too_long" and "prompt" in values:
        return f"prompt of {float(values['prompt']):.0f} tokens"
    if meaning.name == "binding_arguments" and values.get("function") == "setup":
        return "DecoderState.setup()"
    if meaning.kind == "config" and meaning.component is None:
        return _setting(case)
    if cause.kind == "oom" and meaning.component is None:
        return (
            place.component
            or cause.frame.component
            or _COMPONENT_OF_DETAIL.get(place.detail)
            or _USUAL_COMPONENT.get(place.stage or "configure")
        )
    if meaning.name == "step_oom" and cause.frame.component == "sampler":
        return "sampler"
    return meaning.component


def _said(cause: Candidate, case: Case, name: str) -> float | None:
    """A number that the cause or a line of the same kind gives."""
    alike = [cause, *(each for each in case.candidates if each.kind == cause.kind)]
    return next((value for each in alike if (value := each.event.number(name)) is not None), None)


def _requested_gib(cause: Candidate, case: Case) -> float | None:
    """The one allocation that a TensorRT engine asked for, which its loader states on a line of its own."""
    asked = _said(cause, case, "requested")
    if asked is not None:
        return size_gib(asked, "bytes")
    return case.facts["requested"].size_gib("requested") if "requested" in case.facts else None


def _ranks_share_a_gpu(event: LogEvent) -> bool:
    """True where a rank fails on another rank's GPU, among several processes."""
    rank, gpu = event.values.get("rank"), event.values.get("gpu")
    return rank is not None and rank != gpu and event.values.get("others", "").count("Process") > 1


def _setting(case: Case) -> str | None:
    """The setting that a validation error is about, wherever in the error it stands."""
    about_config = [each.event.values for each in case.candidates if each.kind == "config"]
    keys = [values["previous"] for values in about_config if _KEY.fullmatch(values.get("previous", ""))]
    named = [values[name] for values in about_config for name in _NAMED if name in values]
    return next(iter([*keys, *named]), None)


def _shortfall(cause: Candidate, case: Case) -> tuple[float | None, LogEvent | None]:
    """Tried minus free, from the first message of the failure that has both."""
    alike = [each.event for each in case.candidates if each.kind == cause.kind and not each.event.meaning.soft]
    for event in (cause.event, *alike):
        tried, free = event.size_gib("tried"), event.size_gib("free")
        if tried is not None and free is not None:
            return max(0.0, round(tried - free, 4)), event
    return None, next((event for event in (cause.event, *alike) if event.size_gib("tried") is not None), None)


def _free_gib(cause: Candidate, source: LogEvent | None, case: Case) -> float | None:
    """From the message that states the allocation; of a pool that got nothing, from the budget."""
    if source is not None:
        return source.size_gib("free")
    budget = case.facts.get("kv_budget")
    return budget.size_gib("kv_budget") if budget and cause.kind == "insufficient_kv" else None


def _total_gib(source: LogEvent | None, case: Case) -> float | None:
    return (source.size_gib("total") if source else None) or case.report.total_gib


def _free_before_pool(case: Case) -> float | None:
    """GiB free when the KV pool was sized, from the budget line or the report's rows."""
    budget = case.facts.get("kv_budget")
    fraction = budget.number("kv_fraction") if budget else None
    available = budget.size_gib("kv_budget") if budget else None
    if fraction and available:
        return available / fraction
    pools = [before for name, (before, _) in case.report.rows.items() if "kv" in name.lower()]
    return pools[-1] if pools else None


def _evidence(cause: Candidate, source: LogEvent | None, case: Case) -> tuple[Evidence, ...]:
    """The cause first in the log's order, then what locates it, then what only repeats it."""
    report = [case.report.component] if cause.kind == "oom" else []
    wrappers = sorted(case.wrappers.values(), key=lambda event: event.line)[:2]
    alike = [each.event for each in case.candidates if each.kind == cause.kind][:3]
    chosen = [event for event in (cause.event, source, *report, *alike, *wrappers) if event is not None]
    unique = {event.line: event for event in reversed(chosen[:MAX_EVIDENCE])}
    return tuple(Evidence(line=line, text=unique[line].text) for line in sorted(unique))


def _notes(case: Case, known: Known, symptom: Symptom) -> tuple[str, ...]:
    notes = []
    if case.ready and symptom.stage == "serve" and symptom.kind in ("oom", "kernel_error", "hang"):
        notes.append("The server is dead or useless from here on even if /health still answers 200: restart it.")
    if symptom.kind == "oom" and symptom.stage in ("kv_estimate", "kv_allocate", "warm_up", "serve"):
        notes.append("The shortfall is of the first allocation that failed; more may follow it.")
    if symptom.shared_gpu:
        notes.append("Several processes hold memory on this GPU: ranks of one job must not share a GPU.")
    if known.version and known.engine == "trtllm" and symptom.kind == "benign":
        notes.append(f"TensorRT-LLM {known.version}.")
    return tuple(notes)


def _without_cause(case: Case, known: Known) -> Diagnosis:
    """Healthy, unfinished, or failed without saying why."""
    strong = min(
        (event for event in case.alarms.values() if event.meaning.strong), key=lambda event: event.line, default=None
    )
    weak = min(case.alarms.values(), key=lambda event: event.line, default=None)
    died = [event for name, event in case.wrappers.items() if name != "mpi_abort"] or list(case.wrappers.values())
    if died:
        return _unexplained(case, known, died)
    if case.last_words and not case.ready:
        return _unexplained(case, known, [case.last_words])
    cut = _window_cut(case)
    if strong is not None:
        shown, place = strong, Place(strong.meaning.stage, strong.meaning.detail)
        text = "Healthy: the line that speaks of memory is a candidate that was tried and skipped, not a failure."
    elif case.ready is not None:
        shown, place = case.ready, Place("serve", "ready")
        text = "Healthy: the server came up and answers."
    elif weak is not None:
        stage = weak.meaning.stage or case.place.stage
        shown, place = weak, Place(stage, weak.meaning.detail or case.place.detail)
        text = "No failure in this log; its warnings are routine."
    else:
        return _unfinished(case, known)
    component = "KV cache smaller than one full-length sequence" if cut and case.ready else None
    if component and cut:
        text = (
            f"Healthy, but the KV cache holds {cut[1]:,} tokens and the model asks for {cut[0]:,}: max_seq_len was cut "
            "to what fits, and longer requests will be clamped."
        )
    symptom = Symptom(
        kind="benign",
        stage=place.stage,
        component=component,
        advice="window" if component else "",
        cause=cut[2] if cut else None,
        free_before_pool_gib=_free_before_pool(case),
        loaded_gib=case.facts["weights"].size_gib("weights") if "weights" in case.facts else None,
    )
    return Diagnosis(
        verdict="benign",
        phase=place.stage,
        phase_detail=place.detail,
        component=component,
        short_gib=None,
        summary=text,
        evidence=_lines(shown, cut[2] if cut and component else None),
        **(_treatment(symptom, known) if component else {"remedies": ()}),
        notes=_notes(case, known, symptom),
        engine=known.engine,
        engine_version=known.version,
    )


def _window_cut(case: Case) -> tuple[int, int, LogEvent] | None:
    """(tokens wanted, tokens that fit, line) of the last cut, the only one that counts."""
    event, pool = case.facts.get("fitting_tokens"), case.facts.get("kv_tokens")
    if event is None or pool is None or pool.line < event.line:
        return None
    wanted, fits = event.number("wanted_tokens"), event.number("fitting_tokens")
    return (int(wanted), int(fits), event) if wanted and fits else None


def _unexplained(case: Case, known: Known, died: list[LogEvent]) -> Diagnosis:
    """Somebody reports a death and nobody its cause."""
    first = case.last_words or (case.exceptions[0] if case.exceptions else None)
    silent = "worker_died" in case.wrappers and first is None
    event = first or min(died, key=lambda each: each.line)
    verdict: Kind = "host_oom" if silent else _kind_of(first, case) if first else "unknown"
    place = Place(case.place.stage or "load", case.place.detail or "executor_init")
    symptom = Symptom(kind=verdict, stage=place.stage, advice="killed" if silent else "unexplained", cause=event)
    text = (
        "A worker died without a word during start-up: most often the kernel's out-of-memory killer (host memory)."
        if silent
        else f"The server failed with an error advisor has no rule for: {event.text[:160]}"
        if first
        else "The log says that the server failed, but not why: only the messages that repeat a cause are here."
    )
    return Diagnosis(
        verdict=verdict,
        phase=place.stage,
        phase_detail=place.detail,
        component="host memory" if silent else None,
        short_gib=None,
        summary=text,
        evidence=_lines(event, *died[:2]),
        **_treatment(symptom, known),
        next_probe=next_probe(symptom),
        engine=known.engine,
        engine_version=known.version,
    )


def _kind_of(error: LogEvent, case: Case) -> Kind:
    """What an error without a rule is, by its type: before anything is loaded a wrong value is a wrong setting."""
    kind = _KIND_OF_TYPE.get(error.values.get("type", ""), "crash")
    return kind if kind != "config" or case.place.stage in _UNLOADED else "crash"


def _unfinished(case: Case, known: Known) -> Diagnosis:
    """No failure, no readiness: the log just ends."""
    place, first = case.place, case.exceptions[0] if case.exceptions else None
    reached = f" The last stage it shows is {place.stage}." if place.stage else ""
    last = case.marks[-1] if case.marks else None
    said = f" Its first error is: {first.text[:160]}" if first else ""
    symptom = Symptom(kind="unknown", stage=place.stage, advice="unfinished")
    return Diagnosis(
        verdict="unknown",
        phase=place.stage,
        phase_detail=place.detail,
        component=None,
        short_gib=None,
        summary=f"The log ends without a failure that advisor knows and without a ready server.{reached}{said}",
        evidence=_lines(first, last),
        remedies=(),
        next_probe=next_probe(symptom),
        engine=known.engine,
        engine_version=known.version,
    )


def _lines(*events: LogEvent | None) -> tuple[Evidence, ...]:
    unique = {event.line: event for event in events if event is not None}
    return tuple(Evidence(line=line, text=unique[line].text) for line in sorted(unique))
