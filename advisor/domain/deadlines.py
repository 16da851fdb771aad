"""How long each phase of a launch may take."""

from __future__ import annotations

from pydantic import Field

from advisor.domain.outcome import Phase
from advisor.domain.strict import StrictModel


class Deadlines(StrictModel):
    """Seconds that each phase of a launch may take before it counts as timed out; generous, a slow disk is no fault."""

    launch_s: float = Field(default=600, gt=0, description="Until weights load: imports, MPI workers, NCCL")
    load_s: float = Field(default=1800, gt=0)
    kv_estimate_s: float = Field(default=900, gt=0, description="Autotuner, first capture of the graphs, profiling")
    kv_allocate_s: float = Field(default=300, gt=0)
    warm_up_s: float = Field(default=900, gt=0)
    answer_s: float = Field(default=120, gt=0, description="To the first token, and of silence while requests are open")
    stop_s: float = Field(
        default=30, gt=0, description="From SIGTERM to SIGKILL, and then for the GPU memory to be free"
    )

    def of(self, phase: Phase) -> float:
        """Seconds for one phase of the log."""
        own = {
            "load": self.load_s,
            "build": self.load_s,
            "kv_estimate": self.kv_estimate_s,
            "kv_allocate": self.kv_allocate_s,
            "warm_up": self.warm_up_s,
            "serve": self.answer_s,
        }
        return own.get(phase, self.launch_s)
