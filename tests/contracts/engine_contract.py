"""What every engine promises. Inherit `EngineContract`, say how to build the engine and its configurations."""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from advisor.app.trial_runner import never, run_trial, silent, unhealthy
from advisor.domain.deployment import Deployment
from advisor.domain.errors import BadInput
from advisor.domain.measurement import WorkloadOutcome
from advisor.domain.outcome import BadConfig, Hopeless, Infrastructure, Measured, OutOfMemory
from advisor.domain.ports import (
    Engine,
    EngineRef,
    Incumbent,
    LaunchSpec,
    NoEvidence,
    PartialResult,
    Prepared,
    RunningServer,
    TrialEvent,
    TrialRequest,
)
from advisor.domain.serving_config import ServingConfig
from advisor.domain.trial import TrialRecord
from advisor.domain.workload import Workload
from advisor.metrics.definitions import GAP_POINTS

START_PHASES = ("configure", "download", "launch", "connect", "load", "build", "kv_estimate", "kv_allocate", "warm_up")


class Notebook(NoEvidence):
    """Keeps what an engine hands over as evidence."""

    def __init__(self) -> None:
        self.argv: tuple[str, ...] = ()
        self.samples: dict[str, Mapping[str, NDArray[Any]]] = {}

    def write_launch(self, argv: Any, config_text: str, config_name: str) -> None:
        self.argv = tuple(argv)

    def write_samples(self, workload_name: str, samples: Mapping[str, NDArray[Any]]) -> None:
        self.samples[workload_name] = samples


def children() -> set[str]:
    """Processes whose parent is this one."""
    return {
        task.name
        for task in Path("/proc").iterdir()
        if task.name.isdigit() and _parent(task) == os.getpid()
    }  # fmt: skip


def _parent(task: Path) -> int:
    try:
        return int((task / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return -1


class EngineContract(ABC):
    """The list of questions. Configurations and workloads are properties of the engine under test."""

    @abstractmethod
    def engine(self) -> Engine: ...

    @property
    @abstractmethod
    def deployment(self) -> Deployment: ...

    @property
    @abstractmethod
    def workload(self) -> Workload:
        """Small, and served by `runs`."""

    @property
    @abstractmethod
    def heavy(self) -> Workload:
        """Kills `dies_under_load` and nothing else."""

    @property
    @abstractmethod
    def runs(self) -> ServingConfig: ...

    @property
    @abstractmethod
    def refused(self) -> ServingConfig:
        """The engine says no before any GPU work."""

    @property
    @abstractmethod
    def out_of_memory(self) -> ServingConfig: ...

    @property
    @abstractmethod
    def out_of_memory_phase(self) -> str: ...

    @property
    @abstractmethod
    def dies_under_load(self) -> tuple[Deployment, ServingConfig]: ...

    @property
    @abstractmethod
    def too_small(self) -> tuple[Deployment, ServingConfig]:
        """Starts, but its KV cache cannot hold one request of `workload`."""

    # -- helpers -------------------------------------------------------------------------------------------------

    def spec(
        self, config: ServingConfig, *workloads: Workload, seed: int = 3, deployment: Deployment | None = None
    ) -> LaunchSpec:
        return LaunchSpec(
            deployment=deployment or self.deployment, config=config, workloads=workloads or (self.workload,), seed=seed
        )

    def trial(self, spec: LaunchSpec, evidence: Notebook | None = None) -> TrialRecord:
        name = self.engine().identity().name
        request = TrialRequest(number=0, role="search", origin="contract", engine=EngineRef(name=name), spec=spec)
        return run_trial(request, self.engine(), evidence=evidence)

    @pytest.fixture(autouse=True)
    def _nothing_is_left(self) -> Iterator[None]:
        threads, processes = set(threading.enumerate()), children()
        yield
        assert set(threading.enumerate()) <= threads, "a thread outlived its launch"
        assert children() <= processes, "a process outlived its launch"

    # -- questions -----------------------------------------------------------------------------------------------

    def test_it_says_who_it_is_and_whether_it_measures(self) -> None:
        engine = self.engine()
        assert isinstance(engine, Engine)
        identity = engine.identity()
        assert identity.source in ("measured", "simulated")
        assert identity.label.startswith(("measured on ", "simulated by "))
        assert identity.label.startswith(identity.source)

    def test_preparing_touches_nothing_and_shows_what_would_be_typed(self) -> None:
        prepared: Prepared = self.engine().prepare(self.spec(self.runs))
        assert prepared.argv
        assert str(self.runs.max_num_tokens) in " ".join(prepared.argv) + prepared.config_text
        assert "password" not in prepared.config_text

    def test_ready_with_effective_settings_memory_and_phases(self) -> None:
        events: list[TrialEvent] = []
        spec = self.spec(self.runs)
        with self.engine().prepare(spec).start(events.append, NoEvidence()) as server:
            assert server.failure() is None
            effective, memory = server.effective(), server.memory()
            assert effective is not None
            assert memory is not None
            assert unhealthy(effective, spec) is None
            assert effective.max_batch_size <= self.runs.max_batch_size
            assert effective.max_num_tokens <= self.runs.max_num_tokens
            assert max(effective.cuda_graph_sizes, default=0) <= self.runs.cuda_graph_max_batch_size
            assert 0 < memory.used <= memory.capacity
            assert memory.weights > 0
            assert memory.kv_pool > 0
            phases = [timing.name for timing in server.phases()]
        assert phases == [event.phase for event in events if event.kind == "phase"]
        assert phases == sorted(phases, key=START_PHASES.index), "phases pass in their order"

    def test_whoever_watches_sees_deadlines_memory_filling_up_and_the_rate_settling(self) -> None:
        events: list[TrialEvent] = []
        with self.engine().prepare(self.spec(self.runs)).start(events.append, NoEvidence()) as server:
            begun = [event for event in events if event.kind == "phase" and event.phase != "download"]
            assert all(event.deadline_s is not None and event.deadline_s > 0 for event in begun)
            filled = [event.memory for event in events if event.memory is not None]
            assert filled
            assert len({memory.capacity_gib for memory in filled}) == 1
            assert filled[0].used_gib <= filled[-1].used_gib <= filled[-1].capacity_gib
            watched = [self._watched(server, seed) for seed in range(5, 8)]
        errors = [abs(told / measured - 1) for told, measured in watched]
        assert min(errors) <= 0.3, "a machine that stalls between the last look and the end spoils one, not three"

    def _watched(self, server: RunningServer, seed: int) -> tuple[float, float]:
        """The rate told last and the rate measured, tok/s, of one benchmark that was watched."""
        events: list[TrialEvent] = []
        outcome = self.engine().measurer().measure(server, self.workload, seed, never, events.append, NoEvidence())
        seen = [event for event in events if event.rate is not None]
        done = [event.fraction_done for event in seen if event.fraction_done is not None]
        assert len(seen) > 1
        assert done == sorted(done)
        assert 0 < done[0] < done[-1] <= 1
        assert all(event.kind == "progress" and self.workload.name in event.detail for event in seen)
        last = seen[-1].rate
        assert last is not None
        assert last.half_width is not None, "by now it has an interval"
        assert outcome.metrics is not None
        return last.tok_per_s, outcome.metrics.output_tok_per_s

    def test_a_refused_configuration_is_a_bad_one_and_no_fault_of_memory(self) -> None:
        record = self.trial(self.spec(self.refused))
        assert isinstance(record.outcome, BadConfig)
        assert record.outcome.reason
        assert record.workloads == ()

    def test_an_option_nobody_knows_is_refused_while_preparing(self) -> None:
        strange = self.runs.model_copy(update={"options": {"no_such_option_of_any_release": 1}})
        with pytest.raises(BadInput, match="no_such_option_of_any_release"):
            self.engine().prepare(self.spec(strange))

    def test_out_of_memory_at_start_names_phase_component_and_shortfall(self) -> None:
        record = self.trial(self.spec(self.out_of_memory))
        assert isinstance(record.outcome, OutOfMemory)
        assert record.outcome.phase == self.out_of_memory_phase
        assert record.outcome.component
        assert record.outcome.short_gib > 0
        assert record.effective is None, "it never came up"
        assert record.phases[-1].name == record.outcome.phase
        assert record.n_attempts == 1

    def test_out_of_memory_under_load_keeps_what_was_measured_before(self) -> None:
        deployment, config = self.dies_under_load
        record = self.trial(self.spec(config, self.heavy, self.workload, deployment=deployment))
        assert isinstance(record.outcome, OutOfMemory)
        assert record.outcome.phase == "serve"
        light = record.workload(self.workload.name)
        assert light is not None
        assert light.metrics is not None
        heavy = record.workload(self.heavy.name)
        assert heavy is None or heavy.metrics is None

    def test_a_server_that_cannot_hold_one_request_is_found_before_any_benchmark(self) -> None:
        deployment, config = self.too_small
        record = self.trial(self.spec(config, deployment=deployment))
        assert not isinstance(record.outcome, Measured | Infrastructure)
        assert record.workloads == ()

    def test_a_measurement_is_whole_and_leaves_its_samples(self) -> None:
        book = Notebook()
        record = self.trial(self.spec(self.runs), book)
        assert record.measured
        (outcome,) = record.workloads
        assert outcome.workload == self.workload.name
        assert outcome.metrics is not None
        metrics = outcome.metrics
        assert outcome.n_short == 0
        assert outcome.limited_by is not None
        assert metrics.output_tok_per_s_per_gpu == pytest.approx(metrics.output_tok_per_s / self.deployment.gpus)
        assert metrics.ttft_ms.p50 <= metrics.ttft_ms.p95 <= metrics.ttft_ms.p99
        samples = dict(book.samples[self.workload.name])
        gaps_ms = samples.pop("itl_ms")
        assert {len(values) for values in samples.values()} == {metrics.n_requests}
        assert gaps_ms.shape == (GAP_POINTS,)
        assert metrics.itl_ms is not None
        assert float(np.percentile(gaps_ms, 50)) == pytest.approx(metrics.itl_ms.p50, rel=0.05)
        assert (samples["sent_ms"] <= samples["first_token_ms"]).all()
        assert (samples["first_token_ms"] <= samples["done_ms"]).all()
        assert (samples["n_output"] == self.workload.osl).all()
        assert metrics.ttft_ms.mean == pytest.approx(float((samples["first_token_ms"] - samples["sent_ms"]).mean()))
        assert book.argv
        assert {timing.name for timing in record.phases} >= {"serve"}

    def test_stop_ends_a_hopeless_benchmark_early(self) -> None:
        seen: list[PartialResult] = []

        def stop(partial: PartialResult) -> bool:
            seen.append(partial)
            return partial.n_done >= 2

        def measure(server: RunningServer) -> WorkloadOutcome:
            return self.engine().measurer().measure(server, self.workload, 1, stop, silent, NoEvidence())

        with self.engine().prepare(self.spec(self.runs)).start(silent, NoEvidence()) as server:
            outcome = measure(server)
            assert server.failure() is None, "the server lives on"
            whole = self.engine().measurer().measure(server, self.workload, 2, never, silent, NoEvidence())
        assert outcome.stopped_early
        assert outcome.metrics is None, "half a benchmark is no measurement"
        assert [partial.elapsed_s for partial in seen] == sorted(partial.elapsed_s for partial in seen)
        assert seen[-1].n_done < seen[-1].n_requests
        assert whole.metrics is not None

    def test_a_benchmark_that_cannot_beat_the_incumbent_is_stopped_and_says_what_it_showed(self) -> None:
        name = self.engine().identity().name
        to_beat = Incumbent(workload=self.workload.name, value=1e9, log_noise=0.01)
        request = TrialRequest(
            number=0, role="search", origin="contract", engine=EngineRef(name=name), spec=self.spec(self.runs),
            incumbents=(to_beat,),
        )  # fmt: skip
        sent = TrialRequest.model_validate_json(request.model_dump_json())
        record = run_trial(sent, self.engine())
        assert isinstance(record.outcome, Hopeless)
        (outcome,) = record.workloads
        assert outcome.metrics is None
        assert outcome.stopped_early
        assert outcome.so_far is not None
        assert 0 < outcome.so_far.n_done < outcome.so_far.n_requests
        assert 0 < outcome.so_far.metrics.output_tok_per_s < 1e9
        assert outcome.note is not None
        assert outcome.note in record.outcome.reason
        assert record.memory_measured_gib is not None

    def test_two_launches_at_once_do_not_disturb_each_other(self) -> None:
        with (
            self.engine().prepare(self.spec(self.out_of_memory)).start(silent, NoEvidence()) as dead,
            self.engine().prepare(self.spec(self.runs)).start(silent, NoEvidence()) as alive,
        ):
            assert dead.failure() is not None
            assert alive.failure() is None


class RepeatableEngineContract(EngineContract):
    """For engines without real time in them."""

    def test_the_same_seed_gives_the_same_record_and_another_one_another(self) -> None:
        first, again, other = (self.trial(self.spec(self.runs, seed=seed)) for seed in (3, 3, 4))
        assert first == again
        assert first.workloads[0].metrics != other.workloads[0].metrics
        assert first.memory_measured_gib == other.memory_measured_gib
