"""A vLLM release behind the port of all dialects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from advisor.domain.deployment import Deployment, GpuFacts
from advisor.domain.errors import BadInput
from advisor.domain.serving_config import OptionValue, ServingConfig
from advisor.domain.workload import Workload
from advisor.engines.dialect import BenchmarkLengths, ReadConfig, Violation
from advisor.engines.explained import FileReading
from advisor.engines.vllm.benchmark import benchmark_argv
from advisor.engines.vllm.command import FLAGS, not_in_release, to_argv, to_environment, to_yaml
from advisor.engines.vllm.explain import explain
from advisor.engines.vllm.read_config import config_from_yaml
from advisor.engines.vllm.releases import Release, canonical, check_option, default_config, release_of
from advisor.engines.vllm.rules import adjustments, validate
from advisor.engines.words import YamlEntry
from advisor.memory.constants import VLLM_MEMORY, EngineMemory
from advisor.store import catalog
from advisor.twin.graphs import LadderRule


@dataclass(frozen=True)
class VllmDialect:
    """Implements `EngineDialect` over one row of the table."""

    row: Release
    engine: str = "vllm"
    title: str = "vLLM"
    config_name: str = "vllm-config.yaml"
    load_format: str = "load-format"
    memory: EngineMemory = VLLM_MEMORY
    graph_ladder: LadderRule = "vllm"

    @property
    def release(self) -> str:
        """The row's."""
        return self.row.release

    @property
    def warning(self) -> str | None:
        """The row's."""
        return self.row.warning

    @property
    def flags(self) -> Mapping[str, str]:
        """Of file and address; all else stands in the file."""
        return FLAGS

    def default_config(self, gpu: GpuFacts) -> ServingConfig:
        """As `vllm serve` sizes itself on a GPU."""
        return default_config(self.row, gpu)

    def check_deployment(self, deployment: Deployment) -> None:
        """Raises BadInput for what vLLM has no word for."""
        refused = not_in_release(self.row, deployment)
        if refused:
            raise BadInput(" ".join(refused))
        for name, value in deployment.engine_options.items():
            check_option(self.row, name, value)

    def check_option(self, name: str, value: OptionValue) -> None:
        """Raises BadInput for an option that the release does not have or does not take."""
        check_option(self.row, name, value)

    def canonical(self, name: str) -> str:
        """`max_batch_size` for `max-num-seqs`."""
        return canonical(self.row, name)

    @property
    def changes_answers(self) -> Sequence[str]:
        """The row's."""
        return self.row.changes_answers

    def silent_option(self, name: str) -> OptionValue | None:
        """None: silences stand in the deployment, or differ from GPU to GPU."""
        return None

    def violations(
        self, deployment: Deployment, config: ServingConfig, workloads: Iterable[Workload], max_seq_len: int
    ) -> tuple[Violation, ...]:
        """As `rules.validate` says."""
        return validate(self.row, deployment, config, workloads, max_seq_len)

    def read(self, document: Mapping[str, Any], deployment: Deployment) -> ReadConfig:
        """A `--config` file."""
        return config_from_yaml(document, self.row, deployment, catalog.gpu_facts(deployment.gpu))

    def explain(self, document: Mapping[str, Any], deployment: Deployment) -> FileReading:
        """A `--config` file, as far as its keys are known."""
        return explain(document, self.row, catalog.gpu_facts(deployment.gpu))

    def adjustments(self, deployment: Deployment, config: ServingConfig) -> Sequence[str]:
        """As `rules.adjustments` says."""
        return adjustments(deployment, config)

    def entries(self, deployment: Deployment, config: ServingConfig, max_seq_len: int) -> tuple[YamlEntry, ...]:
        """The `--config` file."""
        return to_yaml(self.row, deployment, config, max_seq_len)

    def argv(
        self,
        deployment: Deployment,
        config: ServingConfig,
        max_seq_len: int,
        *,
        host: str,
        port: int | str,
        config_path: str,
    ) -> tuple[str, ...]:
        """`vllm serve`."""
        return to_argv(deployment, host=host, port=port, config_path=config_path)

    def environment(self, deployment: Deployment, config: ServingConfig) -> dict[str, str]:
        """Options that are variables."""
        return to_environment(self.row, deployment, config)

    def notes(self, config: ServingConfig, max_seq_len: int) -> Sequence[str]:
        """Nothing: the file says all."""
        return ()

    def benchmark_argv(
        self,
        deployment: Deployment,
        workload: Workload,
        *,
        host: str,
        port: int | str,
        seed: int | str = 0,
        result_dir: str | None = None,
        result_filename: str | None = None,
    ) -> tuple[str, ...]:
        """`vllm bench serve`."""
        return benchmark_argv(
            deployment,
            workload,
            host=host,
            port=port,
            seed=seed,
            result_dir=result_dir,
            result_filename=result_filename,
        )

    def benchmark_lengths(self, workload: Workload) -> BenchmarkLengths:
        """Each range has its own ratio."""
        fixed = workload.osl_min in (None, workload.osl)
        return BenchmarkLengths(output_len=workload.osl if fixed else None)


def vllm_dialect(version: str) -> VllmDialect:
    """The dialect of a version.

    Raises:
        BadInput: not a version, or older than all known.
    """
    return VllmDialect(release_of(version))
