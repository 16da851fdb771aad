"""A TensorRT-LLM release behind the port of all dialects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from advisor.domain.deployment import Deployment, GpuFacts
from advisor.domain.serving_config import OptionValue, ServingConfig
from advisor.domain.workload import Workload
from advisor.engines.dialect import BenchmarkLengths, ReadConfig, Violation, stated
from advisor.engines.explained import FileReading
from advisor.engines.trtllm.benchmark import benchmark_argv, random_lengths
from advisor.engines.trtllm.command import check_deployment, to_argv, to_yaml
from advisor.engines.trtllm.dialects import Dialect, canonical, check_option, default_config, dialect
from advisor.engines.trtllm.environment import asked_environment
from advisor.engines.trtllm.explain import explain
from advisor.engines.trtllm.read_config import config_from_yaml
from advisor.engines.trtllm.rules import adjustments, validate
from advisor.engines.words import YamlEntry
from advisor.memory.constants import TRTLLM_MEMORY, EngineMemory
from advisor.twin.graphs import LadderRule


@dataclass(frozen=True)
class TrtllmDialect:
    """Implements `EngineDialect` over one row of the tables."""

    row: Dialect
    engine: str = "trtllm"
    title: str = "TensorRT-LLM"
    config_name: str = "extra-llm-api-config.yml"
    load_format: str = "load_format"
    memory: EngineMemory = TRTLLM_MEMORY

    @property
    def release(self) -> str:
        """The row's."""
        return self.row.release

    @property
    def warning(self) -> str | None:
        """The row's."""
        return self.row.warning

    @property
    def graph_ladder(self) -> LadderRule:
        """How its CUDA-graph sizes grow."""
        return self.row.graph_ladder

    @property
    def flags(self) -> Mapping[str, str]:
        """Neutral name to flag."""
        return self.row.flags

    def default_config(self, gpu: GpuFacts) -> ServingConfig:
        """The same on every GPU."""
        return default_config(self.row)

    def check_deployment(self, deployment: Deployment) -> None:
        """Raises BadInput for what the release has no word for."""
        check_deployment(self.row, deployment)
        for name, value in deployment.engine_options.items():
            check_option(self.row, name, value)

    def check_option(self, name: str, value: OptionValue) -> None:
        """Raises BadInput for an option that the release does not have or does not take."""
        check_option(self.row, name, value)

    def canonical(self, name: str) -> str:
        """`moe_backend` for `moe_config.backend`, `tp` for its YAML key."""
        return canonical(self.row, name)

    @property
    def changes_answers(self) -> Sequence[str]:
        """The row's."""
        return self.row.changes_answers

    def silent_option(self, name: str) -> OptionValue | None:
        """The MoE backend's own default; other silences stand in the deployment."""
        return self.row.moe_backend_default if name == "moe_backend" else None

    def violations(
        self, deployment: Deployment, config: ServingConfig, workloads: Iterable[Workload], max_seq_len: int
    ) -> tuple[Violation, ...]:
        """As `rules.validate` says."""
        return validate(self.row, deployment, stated(deployment, config), workloads, max_seq_len)

    def read(self, document: Mapping[str, Any], deployment: Deployment) -> ReadConfig:
        """A YAML of `--extra_llm_api_options`."""
        return config_from_yaml(document, self.row, deployment)

    def explain(self, document: Mapping[str, Any], deployment: Deployment) -> FileReading:
        """A YAML of `--extra_llm_api_options`, by its options, spellings and validators."""
        return explain(document, self.row)

    def adjustments(self, deployment: Deployment, config: ServingConfig) -> Sequence[str]:
        """As `rules.adjustments` says."""
        return adjustments(self.row, deployment, stated(deployment, config))

    def entries(self, deployment: Deployment, config: ServingConfig, max_seq_len: int) -> tuple[YamlEntry, ...]:
        """The YAML for `--extra_llm_api_options`."""
        return to_yaml(self.row, deployment, stated(deployment, config), max_seq_len)

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
        """The guide's `trtllm-serve`."""
        return to_argv(
            self.row,
            deployment,
            stated(deployment, config),
            max_seq_len,
            host=host,
            port=port,
            config_path=config_path,
        )

    def environment(self, deployment: Deployment, config: ServingConfig) -> dict[str, str]:
        """What the configuration asks of the environment."""
        return asked_environment(self.row, stated(deployment, config))

    def notes(self, config: ServingConfig, max_seq_len: int) -> Sequence[str]:
        """That some releases ignore the size limits of the file."""
        if self.row.size_limits_in_yaml:
            return ()
        return (
            f"TensorRT-LLM {self.release} ignores max_batch_size, max_num_tokens and max_seq_len in this file: "
            f"they must stand on the command line, as in serve.sh ({config.max_batch_size}, {config.max_num_tokens}, "
            f"{max_seq_len}).",
        )

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
        """`benchmark_serving` of the release."""
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
        """One range ratio serves both lengths, so not every pair of ranges can be drawn."""
        drawn = random_lengths(workload)
        return BenchmarkLengths(output_len=None if drawn.range_ratio else drawn.output_len, comment=drawn.comment)


def trtllm_dialect(version: str) -> TrtllmDialect:
    """The dialect of a version.

    Raises:
        BadInput: not a version, or older than all known.
    """
    return TrtllmDialect(dialect(version))
