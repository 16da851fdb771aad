"""What is known of a server besides its log: its configuration file, its deployment, its workload; and with all of it
the memory law and the twin, as far as they can be had.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from advisor.app.calibration import UNTAUGHT, Taught, taught_below
from advisor.app.forecast import captured
from advisor.app.setup import Question, resolve
from advisor.domain.deployment import Deployment
from advisor.domain.errors import BadInput
from advisor.domain.serving_config import ServingConfig
from advisor.domain.strict import changed
from advisor.domain.units import gib
from advisor.domain.workload import Workload
from advisor.engines.trtllm.dialects import Dialect, default_config, dialect
from advisor.engines.trtllm.probe import Probe
from advisor.engines.trtllm.read_config import config_from_yaml
from advisor.memory.case import Case
from advisor.memory.constants import MemoryConstants
from advisor.memory.known import SPELLINGS, Known, Spelling
from advisor.memory.pricing import Pricing, Setting, profiled_constants, terms_of
from advisor.store import catalog
from advisor.store.run_card import CARD, read_card
from advisor.store.trial_folder import TRIALS
from advisor.store.yaml_files import load_yaml, read_text
from advisor.twin.predict import PREDICTION_WAVES, Twin, memory_load, metrics_of, unservable

# Setting of the law -> neutral name of the dialects.
_NEUTRAL: Mapping[Setting, str] = {
    "fraction": "kv_cache_free_gpu_memory_fraction",
    "tokens": "max_num_tokens",
    "batch": "max_batch_size",
    "graphs": "cuda_graph_max_batch_size",
    "seq": "max_seq_len",
    "tp": "tp",
}
_FOUR: tuple[Setting, ...] = ("fraction", "tokens", "batch", "graphs")


@dataclass(frozen=True)
class Beside:
    """As said on the command line; `deployment` where a model was named, `workload` where one was.

    `taught` is what measured launches of that deployment said of its memory.
    """

    document: Mapping[str, Any] | None
    engine_version: str | None
    capacity_gib: float | None
    tp: int | None
    deployment: Deployment | None
    workload: Workload | None
    taught: Taught = UNTAUGHT

    def known(self, case: Case, probe: Probe) -> Known:
        """Everything together, for one log."""
        release = release_of(case, self.engine_version)
        spoken = dialect(release)
        known = self._said(spoken).with_facts(case.facts)
        if known.engine == "vllm":
            return known
        if known.engine == "trtllm" or self.deployment:
            known = replace(known, spellings=_spellings(spoken), graphs_off=spoken.graphs_off)
        return self._with_law(known, spoken, case, probe)

    def _said(self, spoken: Dialect) -> Known:
        """What file and command line tell; the file may be TensorRT-LLM's or vLLM's."""
        settings: dict[Setting, float] = {} if self.tp is None else {"tp": self.tp}
        if self.document is None:
            return Known(settings=settings, capacity_gib=self.capacity_gib)
        plain = {str(key).replace("-", "_"): value for key, value in self.document.items()}
        vllm = {setting: plain.get(spelled.name) for setting, spelled in SPELLINGS["vllm"].items()}
        numbers: dict[Setting, float] = {
            setting: float(value) for setting, value in vllm.items() if isinstance(value, (int, float))
        }
        if set(numbers) - {"tp"}:
            return Known(engine="vllm", settings={**numbers, **settings}, capacity_gib=self.capacity_gib)
        read = config_from_yaml(self.document, spoken, self._deployment).config
        further: dict[Setting, str] = {"tp": "tensor_parallel_size", "seq": "max_seq_len"}
        whole: dict[Setting, float] = {
            name: plain[key] for name, key in further.items() if isinstance(plain.get(key), int)
        }
        return Known(engine="trtllm", settings={**whole, **_four(read), **settings}, capacity_gib=self.capacity_gib)

    @property
    def _deployment(self) -> Deployment:
        """The one that was named, or one that stands for any."""
        return self.deployment or Deployment(model="unknown", quantization="bf16", gpu="unknown", gpus=1, tp=1)

    def _with_law(self, known: Known, spoken: Dialect, case: Case, probe: Probe) -> Known:
        """The memory law with the log's figures in it, and what changes would cost, where enough is known."""
        sizes = _all_captured(case, probe)
        ladder = functools.partial(captured, self._deployment, spoken.graph_ladder)
        sizes_of = functools.partial(_from_log, sizes) if sizes else ladder
        settings: dict[Setting, float] = {**_four(default_config(spoken)), **known.settings}
        if sizes and "graphs" not in known.settings:
            settings["graphs"] = max(sizes)
            known = replace(known, settings={**known.settings, "graphs": max(sizes)})
        twin, deployed, load = None, None, None
        if self.deployment is not None:
            deployed = self.deployment.with_options(self._options(spoken))
            facts = catalog.model_facts(deployed.model)
            twin = Twin(facts, catalog.step_tables, ladder_rule=spoken.graph_ladder)
            load = memory_load(deployed, self.workload) if self.workload else None
        constants = twin.constants if twin else MemoryConstants()
        profiled = probe.profiled()
        terms = terms_of(
            profiled,
            settings,
            sizes_of,
            constants,
            twin.memory_terms(deployed) if twin and deployed else None,
            self.capacity_gib,
        )
        if terms is None:
            return known
        pricing = Pricing(
            terms,
            constants,
            {name: settings[name] for name in _FOUR},
            sizes_of,
            load=load,
            frontier=self.taught.frontier.knowing(profiled_constants(profiled)),
        )
        throughput = None
        if twin and deployed and self.workload:
            throughput = _Throughput(twin, deployed, self.workload, pricing.settings).ratio
        return replace(known, pricing=pricing, throughput=throughput, calibration=self.taught.label)

    def _options(self, spoken: Dialect) -> dict[str, Any]:
        if self.document is None or self.deployment is None:
            return {}
        return config_from_yaml(self.document, spoken, self.deployment).config.options


def beside(config: Path | None, asked: Question, results: Path | None = None, log: str = "-") -> Beside:
    """Read what was named.

    Args:
        config: The server's YAML file.
        asked: Deployment and workload, as the other verbs take them; all optional.
        results: Folder with measured studies of the same deployment.
        log: A log in the folder of a trial belongs to a run, which then says deployment and results where nobody does.

    Raises:
        BadInput: a mistake in the file; unknown model, GPU or release; an impossible layout; results of no deployment.
    """
    run = _run_of(Path(log))
    document = load_yaml(read_text(config), str(config)) if config else None
    tp = asked.tp
    if tp is None and document and isinstance(document.get("tensor_parallel_size"), int):
        tp = document["tensor_parallel_size"]
    if asked.engine_version is not None:
        dialect(asked.engine_version)
    deployment = workload = None
    if asked.model is not None or asked.study is not None:
        resolved = resolve(changed(asked, tp=tp))
        deployment = resolved.deployment
        workload = resolved.workloads[0] if asked.isl or asked.workloads else None
    elif run is not None:
        deployment = read_card(run).deployment
    root = results if results is not None or run is None else run.parent.parent
    if results is not None and deployment is None:
        raise BadInput("--results tells only of a deployment: name its model, GPU and layout too.")
    gpu = asked.gpu or (deployment.gpu if deployment else None)
    capacity_gib = gib(catalog.gpu_facts(gpu).memory_bytes) if gpu else None
    known = UNTAUGHT if root is None or deployment is None else taught_below(root, deployment)
    return Beside(document, asked.engine_version, capacity_gib, asked.tp, deployment, workload, known)


def _run_of(log: Path) -> Path | None:
    """The run that a log lies in: `results/<study>/<run>/trials/<number>/server.log`."""
    above = log.absolute().parents
    return above[2] if len(above) > 2 and above[1].name == TRIALS and (above[2] / CARD).exists() else None


def release_of(case: Case, engine_version: str | None) -> str:
    """The release whose spelling a file has: as said, else the log's own, else the usual one."""
    usual = engine_version or str(Deployment.model_fields["engine_version"].default)
    logged = case.facts.get("version")
    if engine_version or logged is None or logged.meaning.name != "version":
        return usual
    try:
        return dialect(logged.values["version"]).release
    except BadInput:  # older than every release with a YAML file
        return usual


def _spellings(spoken: Dialect) -> dict[Setting, Spelling]:
    usual = SPELLINGS["trtllm"]
    return {
        setting: Spelling(usual[setting].name, spoken.keys.get(name), spoken.flags.get(name))
        for setting, name in _NEUTRAL.items()
    }


def _four(config: ServingConfig) -> dict[Setting, float]:
    return {
        "batch": config.max_batch_size,
        "tokens": config.max_num_tokens,
        "graphs": config.cuda_graph_max_batch_size,
        "fraction": config.kv_cache_free_gpu_memory_fraction,
    }


def _all_captured(case: Case, probe: Probe) -> tuple[int, ...]:
    """Graph sizes of the log where it has all of them: capture may have been what failed."""
    effective, announced = probe.effective(), case.facts.get("graph_count")
    if effective is None or announced is None or announced.number("graph_count") != len(effective.cuda_graph_sizes):
        return ()
    return effective.cuda_graph_sizes


def _from_log(sizes: Collection[int], largest: int, batch: int, tokens: int) -> list[int]:
    return [size for size in sizes if size <= min(largest, batch, tokens)]


class _Throughput:
    """Output tok/s of changed settings over those of the present ones, simulated by the nominal twin."""

    def __init__(
        self, twin: Twin, deployment: Deployment, workload: Workload, settings: Mapping[Setting, float]
    ) -> None:
        self._twin, self._deployment, self._workload, self._settings = twin, deployment, workload, settings
        self._tok_per_s = functools.cache(self._simulated)

    def ratio(self, changes: Mapping[Setting, float]) -> float | None:
        """None where the twin cannot serve the workload as the settings are, or has no data."""
        try:
            now, after = (self._tok_per_s(self._config(each)) for each in ({}, changes))
        except BadInput:
            return None
        return after / now if now else None

    def _config(self, changes: Mapping[Setting, float]) -> ServingConfig:
        values = {**self._settings, **changes}
        return ServingConfig(
            max_batch_size=int(values["batch"]),
            max_num_tokens=int(values["tokens"]),
            cuda_graph_max_batch_size=int(values["graphs"]),
            kv_cache_free_gpu_memory_fraction=values["fraction"],
        )

    def _simulated(self, config: ServingConfig) -> float:
        budget = self._twin.memory(self._deployment, config, self._workload)
        if unservable(budget, self._deployment, config, self._workload) is not None:
            return 0.0
        n_requests = self._workload.requests(PREDICTION_WAVES)
        run = self._twin.simulate(self._deployment, config, self._workload, n_requests=n_requests)
        return metrics_of(run, self._deployment.gpus, self._deployment.stream_interval).output_tok_per_s
