"""A running server in front of the completion server of the tests: what an engine would hand to the measurer."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any

from numpy.typing import NDArray

from advisor.domain.measurement import EffectiveSettings, MemoryReport, ProfiledMemory
from advisor.domain.outcome import Outcome
from advisor.domain.ports import MemoryInUse, NoEvidence, RunningServer
from advisor.domain.trial import PhaseTiming
from advisor.load.target import Target


class Served:
    """Healthy; it answers `stats` with what a test wrote down, one entry a call, the last one for ever.

    `energy_j` is read from a list until that is empty.
    """

    def __init__(self, target: Target, *stats: dict[str, Any], energy_j: Sequence[float] = ()) -> None:
        self.target, self._energy_j = target, list(energy_j)
        self._stats = list(stats) or [{}]

    def __enter__(self) -> RunningServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def effective(self) -> EffectiveSettings | None:
        return None

    def memory(self) -> MemoryReport | None:
        return None

    def profiled(self) -> ProfiledMemory | None:
        return None

    def surprises(self) -> tuple[str, ...]:
        return ()

    @property
    def dying(self) -> bool:
        return False

    def memory_in_use(self) -> MemoryInUse | None:
        return MemoryInUse(used_gib=70.0, capacity_gib=80.0)

    def energy_j(self) -> float | None:
        return self._energy_j.pop(0) if self._energy_j else None

    def stats(self) -> dict[str, Any]:
        return self._stats.pop(0) if len(self._stats) > 1 else self._stats[0]

    def phases(self) -> tuple[PhaseTiming, ...]:
        return ()

    def failure(self) -> Outcome | None:
        return None

    @property
    def endpoint(self) -> str | None:
        return self.target.base_url


class Samples(NoEvidence):
    """Keeps the samples of every workload."""

    def __init__(self) -> None:
        self.of: dict[str, dict[str, NDArray[Any]]] = {}

    def write_launch(self, argv: Sequence[str], config_text: str, config_name: str) -> None:
        raise AssertionError("a measurer launches nothing")

    def write_samples(self, workload_name: str, samples: Any) -> None:
        self.of[workload_name] = dict(samples)
