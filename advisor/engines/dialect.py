"""How one release of an engine is spoken to, whatever the engine: its defaults, its rules, its words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol

from pydantic import Field

from advisor.domain.deployment import Deployment, GpuFacts
from advisor.domain.serving_config import OptionValue, ServingConfig
from advisor.domain.strict import StrictModel, changed
from advisor.domain.workload import Workload
from advisor.engines.explained import FileReading
from advisor.engines.words import YamlEntry
from advisor.memory.constants import EngineMemory
from advisor.twin.graphs import LadderRule


class Violation(StrictModel):
    """A static rule that a configuration breaks. An error is never launched; a warning is only said."""

    rule: str
    message: str
    severity: Literal["error", "warning"]
    excess: float = Field(gt=0, description="How far beyond the limit, in units of it; 1 without a scale")


class ReadConfig(StrictModel):
    """What was read of a person's own file, and what was not plain about it."""

    config: ServingConfig
    notes: tuple[str, ...]


class BenchmarkLengths(StrictModel):
    """What an engine's own benchmark sends: tokens of every output, None where they vary, and what is not as asked."""

    output_len: int | None
    comment: str | None = None


class EngineDialect(Protocol):
    """One release of one engine.

    Every method takes the deployment as the study fixes it; the configuration's options override it inside.
    """

    @property
    def engine(self) -> str:
        """Name of the engine, as in `Deployment.engine`."""
        ...

    @property
    def title(self) -> str:
        """Its name for people."""
        ...

    @property
    def release(self) -> str: ...
    @property
    def warning(self) -> str | None:
        """Set where the version asked for is not the release that was read."""
        ...

    @property
    def memory(self) -> EngineMemory:
        """What its memory fraction is a fraction of, and what it needs beside the tables."""
        ...

    @property
    def graph_ladder(self) -> LadderRule: ...
    @property
    def config_name(self) -> str:
        """Usual name of its configuration file."""
        ...

    @property
    def load_format(self) -> str:
        """Key of its configuration file that says how weights are made."""
        ...

    @property
    def flags(self) -> Mapping[str, str]:
        """Flags of what differs from place to place: `config_path`, `host`, `port`."""
        ...

    def default_config(self, gpu: GpuFacts) -> ServingConfig:
        """The four settings that the release uses on a GPU when nothing is said."""
        ...

    def check_deployment(self, deployment: Deployment) -> None:
        """Refuse a deployment that asks for what the release has no word for.

        Raises:
            BadInput: with the way out.
        """
        ...

    def check_option(self, name: str, value: OptionValue) -> None:
        """Refuse an option that the release does not have, or does not take with this value.

        Raises:
            BadInput: with what is known.
        """
        ...

    def canonical(self, name: str) -> str:
        """The name under which advisor knows a dimension that may be spelled as in the engine's own file."""
        ...

    @property
    def changes_answers(self) -> Sequence[str]:
        """Dimensions that can change what the model says."""
        ...

    def silent_option(self, name: str) -> OptionValue | None:
        """What the release does with an option that neither file nor deployment states, None where it is not known."""
        ...

    def violations(
        self, deployment: Deployment, config: ServingConfig, workloads: Iterable[Workload], max_seq_len: int
    ) -> tuple[Violation, ...]:
        """Static rules that can be checked without any GPU, errors first."""
        ...

    def read(self, document: Mapping[str, Any], deployment: Deployment) -> ReadConfig:
        """A person's own file as the release would understand it.

        Raises:
            BadInput: a value that cannot be meant.
        """
        ...

    def explain(self, document: Mapping[str, Any], deployment: Deployment) -> FileReading:
        """A person's own file key by key.

        Raises:
            BadInput: a key that nothing can have.
        """
        ...

    def adjustments(self, deployment: Deployment, config: ServingConfig) -> Sequence[str]:
        """What the server changes of a configuration without saying so, in words."""
        ...

    def entries(self, deployment: Deployment, config: ServingConfig, max_seq_len: int) -> tuple[YamlEntry, ...]:
        """Every entry of its configuration file, in a stable order.

        Raises:
            BadInput: an option that the release cannot express.
        """
        ...

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
        """The command line that serves with that file.

        Raises:
            BadInput: a model name that would be read as a flag, or an option that the release does not have.
        """
        ...

    def environment(self, deployment: Deployment, config: ServingConfig) -> dict[str, str]:
        """Variables that whoever reproduces a result must set too."""
        ...

    def notes(self, config: ServingConfig, max_seq_len: int) -> Sequence[str]:
        """What whoever takes the file away must know of it, one sentence each."""
        ...

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
        """The engine's own benchmark with the workload's numbers."""
        ...

    def benchmark_lengths(self, workload: Workload) -> BenchmarkLengths:
        """What that benchmark sends for a workload."""
        ...


def stated(deployment: Deployment, config: ServingConfig) -> ServingConfig:
    """The configuration with the engine options that the study fixes; its own win."""
    if not deployment.engine_options:
        return config
    return changed(config, options={**deployment.engine_options, **config.options})
