"""Virtual seconds that the phases of a start take. All assumed: they shape the budget of a study, never a metric."""

from __future__ import annotations

from dataclasses import dataclass

from advisor.domain.outcome import Phase


@dataclass(frozen=True)
class StartupSeconds:
    """Assumed from published start logs of 8B to 120B models, rounded; real starts take two to ten minutes."""

    launch_s: float = 25.0  # imports, MPI workers, NCCL
    load_per_gib_s: float = 1.5  # reading, converting and copying weights of one GPU
    kv_estimate_s: float = 20.0  # autotuner and profiling forward
    kv_allocate_s: float = 2.0
    graph_capture_s: float = 0.6  # one captured size, in each of the two passes
    warm_up_s: float = 15.0

    def seconds(self, phase: Phase, weights_gib: float, n_graphs: int) -> float:
        """Duration of one phase of a start."""
        capture_s = self.graph_capture_s * n_graphs
        return {
            "launch": self.launch_s,
            "load": self.load_per_gib_s * weights_gib,
            "kv_estimate": self.kv_estimate_s + capture_s,
            "kv_allocate": self.kv_allocate_s,
            "warm_up": self.warm_up_s + capture_s,
        }.get(phase, 0.0)

    def total_s(self, weights_gib: float, n_graphs: int) -> float:
        """Duration of a whole start."""
        phases: tuple[Phase, ...] = ("launch", "load", "kv_estimate", "kv_allocate", "warm_up")
        return sum(self.seconds(phase, weights_gib, n_graphs) for phase in phases)


STARTUP = StartupSeconds()
