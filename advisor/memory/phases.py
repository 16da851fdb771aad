"""Which phase a starting server is in, told by the marks of its log.

TensorRT-LLM's PyTorch backend starts in two passes. The first allocates a temporary KV pool, tunes kernels and captures
graphs only to profile memory; then all of it is torn down and done again for good. Until profiling has ended, whatever
a mark says belongs to `kv_estimate`.
"""

from __future__ import annotations

from advisor.domain.outcome import Phase
from advisor.memory.events import LogEvent, Meaning

STAGE_ORDER: tuple[Phase, ...] = (
    "configure",
    "download",
    "launch",
    "connect",
    "load",
    "build",
    "kv_estimate",
    "kv_allocate",
    "warm_up",
    "serve",
)

# Marks by their name: what begins the first pass, what ends it, and what only engines print that have no such pass.
_BEGINS = ("pool_cap", "pool_budget", "pool")
_ENDS = ("profiled", "torch_cap")
_ONE_PASS = ("engine_file", "engine_context", "old_pool")


class Passes:
    """Tells the first pass from the final one while a log is read."""

    def __init__(self) -> None:
        self.first = False
        self.budget_known = False
        self._two = True

    def phase_of(self, meaning: Meaning) -> Phase | None:
        """The phase that begins with a mark; call it for every mark, in the log's order."""
        name, phase = meaning.name, meaning.stage
        if name in _ENDS or phase == "serve":
            self.first, self.budget_known = False, self.budget_known or name == "profiled"
        elif name in _ONE_PASS:
            self.first = self._two = False
        elif name in _BEGINS and self._two and not self.budget_known:
            self.first = True
        if self.first and phase in ("kv_allocate", "warm_up"):
            return "kv_estimate"
        return "kv_allocate" if name == "pool_cap" and self.budget_known else phase


class PhaseTracker:
    """The phase of one start, which never goes back: feed it every event of the log as it comes."""

    def __init__(self) -> None:
        self.phase: Phase | None = None
        self._passes = Passes()

    @property
    def first_pass(self) -> bool:
        """True while TensorRT-LLM's first pass runs, whose pool, limits and graphs are not those of the server."""
        return self._passes.first

    def take(self, event: LogEvent) -> Phase | None:
        """Count an event in; the phase that begins with it, None where none does."""
        if event.meaning.role not in ("mark", "ready"):
            return None
        phase = self._passes.phase_of(event.meaning)
        if phase is None or (self.phase and STAGE_ORDER.index(phase) <= STAGE_ORDER.index(self.phase)):
            return None
        self.phase = phase
        return phase
