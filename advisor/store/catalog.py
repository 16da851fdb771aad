"""Packaged data by name: studies, search spaces, model and GPU facts, step tables."""

from __future__ import annotations

import csv
import difflib
import functools
import json
import os
from pathlib import Path
from typing import Any

from advisor.domain.deployment import Deployment, GpuFacts, ModelFacts
from advisor.domain.errors import BadInput
from advisor.domain.strict import did_you_mean, parse, unknown_name
from advisor.domain.study import SearchSpace, Study
from advisor.search.curated import CuratedConfig, curated_configs
from advisor.store.model_config import facts_from_config
from advisor.store.yaml_files import load_yaml, read_text
from advisor.twin.layout import TableKey, layout_of, quant_modes, table_model
from advisor.twin.roofline import GpuSpec, roofline_tables
from advisor.twin.step_tables import StepTables, TableSet

CPU = "cpu"
"""Key of a machine that serves without a GPU."""
# Assumed, for orders of magnitude only: two AVX-512 cores and their share of the memory's bandwidth.
_CPU_GB_PER_S, _CPU_TFLOPS = 10.0, 0.15
SMALL_VOCABULARY = 32_000  # no model in use knows fewer

_PACKAGE = Path(__file__).resolve().parent.parent


def _folder(name: str) -> Path:
    """`studies/` or `search_spaces/`: inside the installed package, else at the top of a checkout."""
    installed = _PACKAGE / name
    return installed if installed.is_dir() else _PACKAGE.parent / name


def _names(folder: str) -> list[str]:
    return sorted(path.stem for path in _folder(folder).glob("*.yaml"))


def _named_or_file(folder: str, what: str, name: str) -> tuple[dict[str, Any], str]:
    """Plain data of a packaged YAML file by name, or of any file by path."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or "/" in name:
        return load_yaml(read_text(path), name), name
    if name not in _names(folder):
        hint = (
            f" For a file of your own, write its path: ./{name}.yaml." if not did_you_mean(name, _names(folder)) else ""
        )
        raise BadInput(f"{unknown_name(what, name, _names(folder))}{hint}")
    text = (_folder(folder) / f"{name}.yaml").read_text(encoding="utf-8")
    return load_yaml(text, f"{folder}/{name}.yaml"), f"{folder}/{name}.yaml"


def study_names() -> list[str]:
    """Names of the shipped studies."""
    return _names("studies")


def study(name: str) -> Study:
    """A study by name, or from a file of one's own.

    Raises:
        BadInput: unknown name, unreadable file, or a mistake in it.
    """
    return parse(Study, *_named_or_file("studies", "study", name))


def search_space_names() -> list[str]:
    """Names of the shipped search spaces."""
    return _names("search_spaces")


def search_space(name: str) -> SearchSpace:
    """A search space by name, or from a file of one's own.

    Raises:
        BadInput: unknown name, unreadable file, or a mistake in it.
    """
    return parse(SearchSpace, *_named_or_file("search_spaces", "search space", name))


@functools.cache
def models() -> dict[str, ModelFacts]:
    """Architecture numbers by published name."""
    text = (_PACKAGE / "data" / "llm_arch.csv").read_text(encoding="utf-8")
    fields = ModelFacts.model_fields
    facts = {}
    for row in csv.DictReader(text.splitlines()):
        cells = {("name" if key == "model" else key): value for key, value in row.items() if value != ""}
        numbers = {
            key: value if key in ("name", "architecture") else int(float(value))
            for key, value in cells.items()
            if key in fields
        }
        if "head_dim" in numbers and "layers" in numbers:
            facts[row["model"]] = parse(ModelFacts, numbers, f"llm_arch.csv, {row['model']}")
    return facts


def described(name: str) -> ModelFacts | None:
    """Architecture numbers of a model as `model_facts` finds them, None where nobody described it."""
    try:
        return model_facts(name)
    except BadInput:
        return None


def vocabulary(model: str) -> int:
    """Token ids that a model knows for certain: as described, else few."""
    facts = described(model)
    return SMALL_VOCABULARY if facts is None else facts.vocab_size


def model_facts(name: str) -> ModelFacts:
    """Architecture numbers of a model; instruct and quantised variants share those of their base.

    A checkpoint folder is read by its `config.json`.

    Raises:
        BadInput: a model nobody described, or a folder without a usable `config.json`.
    """
    if Path(name).is_dir():
        return facts_from_config(name, read_text(Path(name) / "config.json"))
    known = models()
    for candidate in (name, table_model(name)):
        if candidate in known:
            return known[candidate]
    by_basename = {known_name.split("/")[-1].lower(): known_name for known_name in known}
    basename = name.rstrip("/").split("/")[-1].lower()
    if basename in by_basename:
        return known[by_basename[basename]]
    near = [by_basename[close] for close in difflib.get_close_matches(basename, by_basename, n=3, cutoff=0.5)]
    hint = f" Near it: {', '.join(near)}." if near else ""
    raise BadInput(
        f"No architecture numbers for model {name!r}.{hint} Name one of the {len(known)} published models that "
        "`advisor studies --models` lists, or a folder that holds the checkpoint's config.json. Where the weights are "
        "on the disk of the machine that serves them, `advisor tune --engine trtllm` searches by measurement alone."
    )


@functools.cache
def gpus() -> dict[str, GpuFacts]:
    """GPU systems by key."""
    return {
        name: GpuFacts(
            name=name,
            title=spec.title,
            memory_bytes=spec.memory_bytes,
            compute_capability=(spec.sm_version // 10, spec.sm_version % 10),
        )
        for name, spec in _gpu_specs().items()
    }


def gpu_facts(name: str) -> GpuFacts:
    """One GPU system by key.

    Raises:
        BadInput: unknown GPU.
    """
    if name not in gpus():
        raise unknown_name("GPU", name, gpus())
    return gpus()[name]


def nearest_gpu(gpu: GpuFacts) -> str:
    """The key of a GPU system if it is known, else of the known one whose memory is nearest."""
    if gpu.name in gpus():
        return gpu.name
    return min(gpus().values(), key=lambda known: (abs(known.memory_bytes - gpu.memory_bytes), known.name)).name


@functools.cache
def _gpu_specs() -> dict[str, GpuSpec]:
    raw = json.loads((_PACKAGE / "twin" / "tables" / "gpus.json").read_text(encoding="utf-8"))
    return {**{name: GpuSpec(**spec) for name, spec in raw["gpus"].items()}, CPU: _cpu()}


def _cpu() -> GpuSpec:
    """This machine without a GPU: its memory is all of the host's."""
    return GpuSpec(
        title="CPU",
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        memory_gb_per_s=_CPU_GB_PER_S,
        bf16_tflops=_CPU_TFLOPS,
        fp8_tflops=None,
        fp4_tflops=None,
        link_gb_per_s=_CPU_GB_PER_S,
        sm_version=0,
        runtime_gib=1.0,
        comm_gib={"1": 0.0},
    )


TRTLLM = "trtllm"
_TABLES = {TRTLLM: _PACKAGE / "twin" / "tables", "vllm": _PACKAGE / "twin" / "tables" / "vllm"}


@functools.cache
def _tables(engine: str) -> TableSet:
    folder = _TABLES[engine]
    return TableSet((folder / "index.json").read_bytes(), (folder / "step_tables.bin").read_bytes())


def table_key(deployment: Deployment, facts: ModelFacts, engine: str = TRTLLM) -> TableKey:
    """The key under which kernel times of a deployment would be packaged with an engine's."""
    model, quantization, kv_dtype = table_model(deployment.model), deployment.quantization, deployment.kv_dtype
    layout = layout_of(tp=deployment.tp, ep=deployment.ep, attention_dp=deployment.attention_dp, is_moe=facts.is_moe)
    return TableKey(model, deployment.gpu, layout, quant_modes(model, quantization, kv_dtype, deployment.gpu, engine))


def step_tables(deployment: Deployment) -> StepTables:
    """Measured kernel times of a deployment, or a roofline estimate where nobody measured them.

    Those of its engine where they are packaged, else TensorRT-LLM's; `kernels` of the result says which.

    Raises:
        BadInput: unknown model or GPU.
    """
    gpu_facts(deployment.gpu)
    return tables_of(deployment, model_facts(deployment.model))


def tables_of(deployment: Deployment, facts: ModelFacts) -> StepTables:
    """The same for a model of these architecture numbers, whether or not its name is known."""
    for engine in dict.fromkeys((deployment.engine, TRTLLM)):
        key = table_key(deployment, facts, engine)
        if engine in _TABLES and key in _tables(engine):
            return _tables(engine)[key]
    return _roofline(key, facts)


@functools.lru_cache(maxsize=64)
def _roofline(key: TableKey, facts: ModelFacts) -> StepTables:
    return roofline_tables(key, facts, _gpu_specs()[key.system])


@functools.cache
def curated() -> tuple[CuratedConfig, ...]:
    """Published serving configurations, most of them NVIDIA's."""
    text = (_PACKAGE / "data" / "curated_configs.csv").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return curated_configs(csv.DictReader(lines))
