"""`advisor explain`: what a server's file says, costs and hides, and what looks wrong with it for a workload."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field

from advisor.app.calibration import UNTAUGHT, taught_below
from advisor.app.estimating import Estimate, Estimator
from advisor.app.forecast import Forecaster
from advisor.app.setup import Question, Resolved, resolve, studied_engine
from advisor.app.suspicions import FRACTION, GRAPHS, suspicions
from advisor.domain.deployment import GRAPH_SIZES, Deployment
from advisor.domain.errors import BadInput
from advisor.domain.measurement import Source
from advisor.domain.outcome import OutOfMemory
from advisor.domain.serving_config import ServingConfig
from advisor.domain.strict import StrictModel, changed
from advisor.engines.dialect import EngineDialect
from advisor.engines.explained import FileKey, FileReading, Finding
from advisor.engines.spoken import engine_of, spoken_by
from advisor.memory.law import MemoryBudget
from advisor.search.curated import CuratedConfig, differences, nearest
from advisor.store import catalog
from advisor.store.yaml_files import load_yaml, read_text

MOST_KEYS = 200  # every key is held against every release
LARGEST_NUMBER = 2**48  # bytes of a large host's memory are below it
SURE_ENOUGH = 0.9  # P(fits) below it deserves a word

# Setting -> what it takes of the memory law, GiB of one GPU.
_COMPONENTS: Mapping[str, str] = {
    "max_batch_size": "logits_gib",
    "max_num_tokens": "activations_gib",
    GRAPHS: "graphs_gib",
    GRAPH_SIZES: "graphs_gib",
    FRACTION: "kv_pool_gib",
}
# What a file says of the layout, in either engine's words -> field of a question.
_LAYOUT = {"tensor-parallel-size": "tp", "pipeline-parallel-size": "pp", "moe-expert-parallel-size": "ep"}
_OF_STUDY = ("model", "quantization", "gpu", "gpus", "tp", "pp", "ep", "engine")
_SEQ_LEN = ("max-seq-len", "max-model-len")


class ExplainedKey(FileKey):
    """One key of the file, or one of the four settings where the file is silent, with what it costs."""

    takes_gib: float | None = Field(
        description="GiB of one GPU that it takes as it is, by the memory law; null where it is no part of it"
    )
    kv_tokens_gained: int | None = Field(
        description="KV tokens of the server more (below zero: fewer) than without this key; null where nobody can say"
    )


class Explanation(StrictModel):
    """`advisor explain --output json`: memory and speed are predicted, never measured."""

    schema_version: Literal[1] = 1
    source: Source = "predicted"
    file: str
    engine: str
    engine_version: str = Field(description="As asked for, or that of the study")
    release: str = Field(description="The known release whose words are used")
    warnings: tuple[str, ...] = Field(description="What is not known about the release")
    starts: bool = Field(description="False where the release refuses the file, or memory runs out, as far as is known")
    accepted_as_is: tuple[str, ...] = Field(description="Known releases that obey every key of the file")
    study: str = Field(description="Whose deployment and workload stand where nothing else was said")
    deployment: Deployment
    serving_config: ServingConfig | None = Field(description="What the server uses; null where a value cannot be meant")
    keys: tuple[ExplainedKey, ...] = Field(description="Of the file, then settings on which it is silent")
    findings: tuple[Finding, ...] = Field(description="Errors first")
    changes: tuple[str, ...] = Field(description="What the server makes of it without saying so")
    published: tuple[str, ...] = Field(description="The published configuration that is nearest, a workload each")
    estimates: tuple[Estimate, ...] = Field(description="A workload each; empty where nothing can be predicted")


def explain(path: Path, question: Question, results: Path | None = None) -> Explanation:
    """Explain a file.

    Args:
        path: An `extra-llm-api-config.yml` of TensorRT-LLM, or a `--config` file of vLLM.
        question: Deployment and workloads; the engine and the layout are the file's where nothing is said.
        results: Folder with studies whose launches of the same deployment correct the memory law; none for no such.

    Raises:
        BadInput: no such file, not a YAML mapping; unknown names, an impossible layout or workload.
    """
    document = load_yaml(read_text(path), str(path))
    _check_sizes(document, str(path))
    resolved = resolve(_worked_in(question, document))
    deployment = _served_by_file(resolved.deployment, question.engine_version, document)
    spoken = spoken_by(deployment)
    reading = spoken.explain(document, deployment)
    case = _Case(resolved, deployment, document, reading, results)
    findings = sorted(case.findings(), key=lambda each: ("error", "warning", "note").index(each.severity))
    return Explanation(
        file=str(path),
        engine=spoken.engine,
        engine_version=deployment.engine_version,
        release=spoken.release,
        warnings=() if spoken.warning is None else (spoken.warning,),
        starts=all(each.severity != "error" for each in findings),
        accepted_as_is=reading.accepted_as_is,
        study=resolved.study.name,
        deployment=case.deployed,
        serving_config=case.config,
        keys=tuple(case.keys()),
        findings=tuple(dict.fromkeys(findings)),
        changes=tuple(case.changes()),
        published=tuple(case.published()),
        estimates=case.predicted.estimates,
    )


def _worked_in(question: Question, document: Mapping[str, Any]) -> Question:
    """The question with the engine and the layout of the file, where it does not say its own; of any release."""
    engine = question.engine or engine_of(document) or studied_engine(question)
    said = {_LAYOUT.get(key.replace("_", "-")): value for key, value in document.items()}
    layout = {
        name: value
        for name, value in said.items()
        if name and type(value) is int and value > 0 and getattr(question, name) is None
    }
    if question.gpus is not None:
        layout.pop("tp", None)
    return changed(question, engine=engine, engine_version=None, **layout)


def _served_by_file(study: Deployment, engine_version: str | None, document: Mapping[str, Any]) -> Deployment:
    """The study's model, GPUs and layout; its options are not the file's, and neither is its `max_seq_len`."""
    lengths = [value for key, value in document.items() if key.replace("_", "-") in _SEQ_LEN]
    return Deployment(
        **{name: getattr(study, name) for name in _OF_STUDY},
        engine_version=engine_version or study.engine_version,
        max_seq_len=next((value for value in lengths if type(value) is int and value > 0), None),
    )


class _Prediction(NamedTuple):
    """What the memory law and the twin say, as far as they can; and why not further."""

    budget: MemoryBudget | None = None
    estimates: tuple[Estimate, ...] = ()
    refusal: str | None = None


@dataclass(frozen=True)
class _Case:
    """One file under one deployment, with everything that can be computed of it."""

    resolved: Resolved
    fixed: Deployment
    document: Mapping[str, Any]
    reading: FileReading
    results: Path | None

    @cached_property
    def dialect(self) -> EngineDialect:
        return spoken_by(self.fixed)

    @cached_property
    def forecaster(self) -> Forecaster:
        return Forecaster(self.fixed, self.resolved.workloads, self.resolved.slo)

    @cached_property
    def names(self) -> dict[str, str]:
        """Setting to the key under which the release takes it."""
        return {key.name: key.path for key in self.reading.settings if key.name}

    @cached_property
    def read(self) -> tuple[ServingConfig | None, str | None]:
        """What the server would use, or why that cannot be meant."""
        try:
            return self.dialect.read(self.document, self.fixed).config, None
        except BadInput as refusal:
            return None, str(refusal)

    @property
    def config(self) -> ServingConfig | None:
        """What the server would use; None where a value cannot be meant."""
        return self.read[0]

    @cached_property
    def deployed(self) -> Deployment:
        """The deployment with the options of the file."""
        return self.fixed if self.config is None else self.fixed.with_options(self.config.options)

    @cached_property
    def predicted(self) -> _Prediction:
        """Memory under the heaviest workload, and each workload by itself."""
        if self.config is None:
            return _Prediction()
        budget = None
        try:
            budget = self.forecaster.budget(self.config)
            return _Prediction(budget, tuple(self._estimated(self.config)))
        except BadInput as refusal:
            return _Prediction(budget, refusal=str(refusal))

    def _estimated(self, config: ServingConfig) -> Iterator[Estimate]:
        workloads = self.resolved.workloads
        known = UNTAUGHT if self.results is None else taught_below(self.results, self.fixed, workloads)
        for workload in workloads:
            yield Estimator(self.fixed, workload, self.resolved.slo, known)(config)

    def keys(self) -> Iterator[ExplainedKey]:
        """Those of the file, then the settings on which it is silent."""
        for key in self.reading.keys:
            yield self._priced(key, self._gained(key))
        said = {GRAPHS if key.name == GRAPH_SIZES else key.name for key in self.reading.keys}
        for key in self.reading.settings:
            if key.name not in said:
                yield self._priced(key, None)

    def _priced(self, key: FileKey, kv_tokens_gained: int | None) -> ExplainedKey:
        component = None if key.standing == "ignored" else _COMPONENTS.get(key.name or "")
        budget = self.predicted.budget
        takes_gib = None if budget is None or component is None else float(getattr(budget, component))
        fields = {name: getattr(key, name) for name in FileKey.model_fields}
        return ExplainedKey(**fields, takes_gib=takes_gib, kv_tokens_gained=kv_tokens_gained)

    def _gained(self, key: FileKey) -> int | None:
        """KV tokens against the file without the key."""
        if key.standing == "ignored" or self.predicted.budget is None or self.config is None:
            return None
        try:
            without = self.dialect.read(_without(self.document, key.path.split(".")), self.fixed).config
            return self._kv_tokens(self.config) - self._kv_tokens(without)
        except BadInput:
            return None

    def _kv_tokens(self, config: ServingConfig) -> int:
        """Of the whole server: under attention DP each rank has its own."""
        ranks = self.fixed.with_options(config.options).ranks_with_own_queue
        return ranks * int(self.forecaster.budget(config).kv_tokens)

    def findings(self) -> Iterator[Finding]:
        """What the release says, then what the workload says."""
        yield from self.reading.findings
        refused = any(each.severity == "error" for each in self.reading.findings)
        _, not_meant = self.read
        if not_meant is not None:  # a refusal of the release says the same of one key
            yield Finding(severity="note" if refused else "error", about="the file", message=not_meant)
        if self.config is None:
            return
        budget, estimates, unpredicted = self.predicted
        if unpredicted is not None:
            yield Finding(severity="note", about="memory and speed", message=unpredicted)
        workloads = self.resolved.workloads
        broken = self.dialect.violations(self.fixed, self.config, workloads, self.fixed.seq_len(workloads))
        for violation in broken:
            yield Finding(severity=violation.severity, about=violation.rule, message=violation.message)
        told = any(violation.severity == "error" for violation in broken)
        for estimate in estimates:
            yield from self._of_memory(estimate, told)
        kv_tokens = None if budget is None else int(budget.kv_tokens)
        sizes = self.forecaster.twin.graph_sizes(self.deployed, self.config)
        for workload in workloads:
            yield from suspicions(self.deployed, self.config, workload, sizes, kv_tokens, self.names)

    def _of_memory(self, estimate: Estimate, told: bool) -> Iterator[Finding]:
        """Whether the server would start and serve, by the memory law; `told`: a rule says why it would not serve."""
        failure = estimate.failure
        if isinstance(failure, OutOfMemory):
            message = (
                f"{estimate.workload_name}: {failure.component} lacks {failure.short_gib:.1f} GiB of "
                f"{estimate.memory_gib.capacity:.0f} GiB per GPU, by the memory law."
            )
            yield Finding(severity="error", about="memory", message=message)
        elif failure is not None and not told:
            yield Finding(severity="error", about="memory", message=f"{estimate.workload_name}: {failure.reason}.")
        elif failure is None and estimate.p_fits < SURE_ENOUGH:
            message = f"{estimate.workload_name}: it fits into memory with a probability of {estimate.p_fits:.0%} only."
            yield Finding(severity="warning", about="memory", message=message)

    def changes(self) -> Iterator[str]:
        """What the server changes, and what the fraction is really of."""
        yield from self.reading.changes
        if self.config is None:
            return
        yield from self.dialect.adjustments(self.fixed, self.config)
        budget = self.predicted.budget
        if budget is None:
            return
        pool_gib, kv_tokens = float(budget.kv_pool_gib), int(budget.kv_tokens)
        fraction = self.config.kv_cache_free_gpu_memory_fraction
        name, capacity_gib = self.names[FRACTION], float(budget.capacity_gib)
        if pool_gib > 0 and self.dialect.memory.fraction == "of_free":
            yield (
                f"{name} {fraction:g} is a share of what profiling leaves free, {pool_gib / fraction:.1f} GiB of "
                f"{capacity_gib:.1f} as predicted: the KV pool gets {pool_gib:.1f} GiB, {kv_tokens:,} tokens."
            )
        elif pool_gib > 0 and self.dialect.memory.fraction == "of_total":
            yield (
                f"{name} {fraction:g} is a share of the whole GPU, {capacity_gib:.1f} GiB, weights and activations "
                f"included: the KV pool gets {pool_gib:.1f} GiB as predicted, {kv_tokens:,} tokens."
            )
        if self.fixed.max_seq_len is not None and 0 < kv_tokens < self.fixed.max_seq_len:
            yield f"No request can be longer than the KV pool of {kv_tokens:,} tokens, whatever the file says."

    def published(self) -> Iterator[str]:
        """The nearest published configuration of the model, for TensorRT-LLM."""
        for workload in self.resolved.workloads if self.dialect.engine == "trtllm" else ():
            config = nearest(catalog.curated(), self.deployed, workload)
            if config is not None:
                unlike = differences(config, self.deployed, workload)
                yield f"{workload.name}: {config.place} has {_said(config)}" + (f" ({unlike})." if unlike else ".")


def _check_sizes(document: Mapping[str, Any], where: str) -> None:
    leaves = list(_leaves(document))
    if len(leaves) > MOST_KEYS:
        raise BadInput(f"{where} has {len(leaves):,} keys; a server's file may have {MOST_KEYS} here.")
    for key, value in leaves:
        if type(value) is int and abs(value) > LARGEST_NUMBER:
            raise BadInput(f"{where}: {key!r} is beyond {LARGEST_NUMBER:,}, larger than any setting can be.")


def _leaves(document: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in document.items():
        yield key, value
        if isinstance(value, Mapping):
            yield from _leaves(value)


def _without(document: Mapping[str, Any], path: Sequence[str]) -> dict[str, Any]:
    """The document without one key; a mapping that loses its last key stays, empty."""
    head, *rest = path
    if rest and isinstance(document.get(head), Mapping):
        return {**document, head: _without(document[head], rest)}
    return {key: value for key, value in document.items() if key != head}


def _said(config: CuratedConfig) -> str:
    four = {
        "max_batch_size": config.max_batch_size,
        "max_num_tokens": config.max_num_tokens,
        "largest graph": config.cuda_graph_max_batch_size,
        "KV fraction": config.kv_fraction,
    }
    return ", ".join(f"{name} {value:,}" for name, value in four.items() if value is not None) or "no sizes"
