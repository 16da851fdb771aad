"""`trtllm-serve` behind the engine port: launched for real, here, in a container or through a launcher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from advisor.domain.deployment import Deployment
from advisor.domain.errors import BadInput
from advisor.domain.ports import LaunchSpec
from advisor.domain.serving_config import ServingConfig
from advisor.engines.dialect import EngineDialect, stated
from advisor.engines.installed import TRTLLM_SERVE, Program
from advisor.engines.served import Poller, Probe, ServedEngine
from advisor.engines.trtllm import probe, stats
from advisor.engines.trtllm.dialects import dialect
from advisor.engines.trtllm.documents import flatten
from advisor.engines.trtllm.environment import to_environment
from advisor.engines.trtllm.spoken import trtllm_dialect
from advisor.engines.trtllm.upstream import UpstreamJudge
from advisor.host.gpus import Gpu


class TrtllmEngine(ServedEngine):
    """Launches `trtllm-serve` as the guide does."""

    name: ClassVar[str] = "trtllm"
    title: ClassVar[str] = "TensorRT-LLM"
    program: ClassVar[Program] = TRTLLM_SERVE

    def __init__(self, container_image: str = "", launch_prefix: str = "", client_check: bool = True) -> None:
        super().__init__(container_image, launch_prefix, client_check)
        self._accepted: set[frozenset[str]] = set()

    def spoken(self, deployment: Deployment) -> EngineDialect:
        """The row of its release."""
        return trtllm_dialect(deployment.engine_version)

    def probe(self, config: ServingConfig, gpus: Sequence[Gpu]) -> Probe:
        """Reads both passes of a start."""
        return probe.Probe()

    def poller(self, base_url: str, config: ServingConfig) -> Poller:
        """Reads every iteration."""
        return stats.StatsPoller(base_url)

    def environment(self, spec: LaunchSpec) -> dict[str, str]:
        """What the configuration asks for, and what advisor sets."""
        config = stated(spec.deployment, spec.config)
        return to_environment(dialect(spec.deployment.engine_version), spec.deployment, config)

    def judge(self, argv: Sequence[str], document: Mapping[str, Any]) -> None:
        """Ask the installed release itself, once for all launches that say the same words with other numbers.

        Importing it costs a quarter of a minute and host memory, so it is not kept beside a server.

        Raises:
            BadInput: it refuses, with its reasons.
        """
        words = frozenset([*(word for word in argv if word.startswith("--")), *flatten(document)])
        installed = self.installed()
        if installed is None or words in self._accepted:
            return
        with UpstreamJudge(installed.interpreter) as upstream:
            verdict = upstream.verdict(argv, document)
        if verdict.status == "refused":
            raise BadInput(f"tensorrt_llm {verdict.version} itself refuses this: {'; '.join(verdict.errors)}")
        self._accepted.add(words)

    def referee_argv(self, argv: tuple[str, ...]) -> tuple[str, ...]:
        """With the interpreter that `trtllm-serve` runs in."""
        installed = self.installed()
        return (installed.interpreter if installed else argv[0], *argv[1:])
