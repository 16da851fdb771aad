"""From a deployment, a configuration and a workload to what the server would do: the twin behind domain words."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from advisor.domain.deployment import KV_BLOCK_TOKENS, Deployment, ModelFacts
from advisor.domain.errors import BadInput
from advisor.domain.measurement import EffectiveSettings, LimitedBy, MemoryReport, Metrics, ProfiledMemory
from advisor.domain.objective import Slo
from advisor.domain.outcome import OutOfMemory, Phase, Unhealthy
from advisor.domain.prediction import Prediction
from advisor.domain.serving_config import ServingConfig
from advisor.domain.units import gib, round_up
from advisor.domain.workload import Workload
from advisor.memory.constants import TRTLLM_MEMORY, EngineMemory
from advisor.memory.law import STAGES, MemoryBudget, memory_budget, p_fits
from advisor.memory.stages import LOAD, POOL
from advisor.memory.terms import MemoryLoad, MemorySettings, MemoryTerms, attention_split_gib, kv_overpromise
from advisor.metrics.definitions import compute
from advisor.metrics.limits import limit_of
from advisor.metrics.schedule import draw_requests
from advisor.twin.constants import NOMINAL, TwinConstants
from advisor.twin.graphs import LadderRule, captured_sizes, graph_rule
from advisor.twin.scheduler import Progress, SchedulerSettings, simulate
from advisor.twin.simulation import Simulation, gaps_ms, itl_ms
from advisor.twin.step_tables import StepTables
from advisor.twin.step_times import StepTimes, step_times

PREDICTION_WAVES = 3
TablesFor = Callable[[Deployment], StepTables]
SERVE = len(STAGES) - 1


@dataclass(frozen=True)
class Twin:
    """One model under one set of constants.

    Attributes:
        facts: Architecture numbers of the model.
        tables_for: Step tables of a deployment; called with the deployment as a trial's options change it.
        constants: Nominal, calibrated, or (only behind the engine port) those of a drawn world.
        ladder_rule: How the engine release builds its CUDA-graph ladder.
        engine_memory: Where the engine's memory differs from the tables'.
    """

    facts: ModelFacts
    tables_for: TablesFor
    constants: TwinConstants = NOMINAL
    ladder_rule: LadderRule = "ceil"
    engine_memory: EngineMemory = TRTLLM_MEMORY

    def times(self, deployment: Deployment) -> StepTimes:
        """Step times of a deployment."""
        if deployment.pp > 1:
            raise BadInput(
                f"The twin has no data for pipeline parallelism (pp {deployment.pp}); use --pp 1, or tune by "
                "measurement alone where the GPUs are: advisor tune --engine trtllm."
            )
        own_http_process = deployment.engine in OWN_HTTP_PROCESS
        return step_times(self.tables_for(deployment), self.facts.layers, self.constants, own_http_process)

    def memory_terms(self, deployment: Deployment) -> MemoryTerms:
        """What the deployment needs of one GPU before any setting is chosen."""
        facts, tables = self.facts, self.tables_for(deployment)
        promise = kv_overpromise(kv_heads=facts.num_kv_heads, head_dim=facts.head_dim, tp=tables.key.layout.tp)
        split = attention_split_gib(heads=-(-facts.num_heads // tables.key.layout.tp), head_dim=facts.head_dim)
        terms = replace(
            tables.memory,
            vocab_size=facts.vocab_size,
            kv_overpromise=1.0 if facts.is_mla else promise,
            attention_split_gib_per_token=0.0 if facts.is_mla else split,
        )
        return terms.under(self.engine_memory, deployment.gpu)

    def graph_sizes(self, deployment: Deployment, config: ServingConfig) -> tuple[int, ...]:
        """Batch sizes that get a CUDA graph."""
        return captured_sizes(
            config.cuda_graph_max_batch_size,
            padding=deployment.graph_padding,
            rule=graph_rule(config.options, self.ladder_rule),
            max_batch_size=config.max_batch_size,
            max_num_tokens=config.max_num_tokens,
        )

    def memory_settings(self, deployment: Deployment, config: ServingConfig) -> MemorySettings:
        """What the memory law reads of a configuration."""
        sizes = self.graph_sizes(deployment, config)
        return MemorySettings(
            max_batch_size=config.max_batch_size,
            max_num_tokens=config.max_num_tokens,
            kv_fraction=config.kv_cache_free_gpu_memory_fraction,
            n_graphs=len(sizes),
            largest_graph=max(sizes, default=0),
            tokens_per_block=KV_BLOCK_TOKENS,
            kv_pool_gib=kv_pool_gib(deployment),
        )

    def memory(
        self,
        deployment: Deployment,
        config: ServingConfig,
        workload: Workload | None = None,
        peak_running: int | None = None,
    ) -> MemoryBudget:
        """The memory law for one configuration; a full batch is assumed where neither workload nor peak bounds it."""
        deployed = deployment.with_options(config.options)
        load = memory_load(deployed, workload, peak_running) if workload else None
        return memory_budget(self.memory_terms(deployed), self.memory_settings(deployed, config), self.constants, load)

    def effective(self, deployment: Deployment, config: ServingConfig, max_seq_len: int) -> EffectiveSettings:
        """What a server started with this would report; `max_seq_len` shrinks to what the KV pool holds."""
        kv_tokens = int(self.memory(deployment, config).kv_tokens)
        return EffectiveSettings(
            max_batch_size=config.max_batch_size,
            max_num_tokens=config.max_num_tokens,
            max_seq_len=min(max_seq_len, kv_tokens),
            kv_tokens=kv_tokens,
            cuda_graph_sizes=self.graph_sizes(deployment.with_options(config.options), config),
        )

    def settings(self, deployment: Deployment, config: ServingConfig) -> SchedulerSettings:
        """What the scheduler runs with."""
        deployed = deployment.with_options(config.options)
        return SchedulerSettings(
            max_batch_size=config.max_batch_size,
            max_num_tokens=config.max_num_tokens,
            kv_tokens=int(self.memory(deployment, config).kv_tokens),
            graph_sizes=self.graph_sizes(deployed, config),
            graph_padding=deployed.graph_padding,
            chunked_prefill=deployed.chunked_prefill,
            overlap=deployed.overlap_scheduler,
            n_ranks=deployed.ranks_with_own_queue,
            tokens_per_block=KV_BLOCK_TOKENS,
            stream_interval=deployed.stream_interval,
            own_http_process=deployed.engine in OWN_HTTP_PROCESS,
        )

    def simulate(
        self,
        deployment: Deployment,
        config: ServingConfig,
        workload: Workload,
        *,
        n_requests: int,
        seed: int = 0,
        stop: Callable[[Progress], bool] | None = None,
    ) -> Simulation:
        """Serve `n_requests` of the workload in virtual time.

        Raises:
            BadInput: a request that can never be scheduled.
        """
        deployed = deployment.with_options(config.options)
        isl, osl, send_ms = draw_requests(workload, n_requests, seed)
        return simulate(
            self.times(deployed),
            self.settings(deployment, config),
            isl,
            osl,
            concurrency=workload.concurrency,
            arrival_ms=send_ms,
            cached_tokens=workload.shared_prefix_tokens if deployed.block_reuse else 0,
            stop=stop,
        )

    def serve(
        self,
        deployment: Deployment,
        config: ServingConfig,
        workload: Workload,
        *,
        n_requests: int,
        seed: int = 0,
        stop: Callable[[Progress], bool] | None = None,
    ) -> Served:
        """What a server that started does under one workload; also how memory runs out under its load."""
        deployed = deployment.with_options(config.options)
        budget = self.memory(deployment, config, workload)
        failure: OutOfMemory | Unhealthy | None = unservable(budget, deployed, config, workload)
        if failure is None and workload.concurrency is not None:
            failure = load_failure(budget)
        if failure is not None:
            return Served(budget, failure, None)
        run = self.simulate(deployment, config, workload, n_requests=n_requests, seed=seed, stop=stop)
        if workload.concurrency is None:  # nothing bounds an open loop but what it came to
            budget = self.memory(deployment, config, workload, peak_running=run.peak_running)
            failure = load_failure(budget)
        return Served(budget, failure, None if failure else run)

    def predict(
        self,
        deployment: Deployment,
        config: ServingConfig,
        workload: Workload,
        *,
        n_requests: int | None = None,
        seed: int = 0,
        slo: Slo | None = None,
    ) -> Prediction:
        """Memory, metrics and what limits them, without any launch.

        Args:
            deployment: As the study fixes it; the configuration's options override it.
            config: The four settings and options.
            workload: One workload.
            n_requests: Simulated requests; None = three waves of the concurrency, or a minute of arrivals.
            seed: Of lengths and arrivals.
            slo: What goodput goes by.
        """
        deployed = deployment.with_options(config.options)
        budget = self.memory(deployment, config, workload)
        served = Served(budget, startup_failure(budget), None)
        if served.failure is None:
            n = n_requests or workload.requests(PREDICTION_WAVES)
            served = self.serve(deployment, config, workload, n_requests=n, seed=seed)
        run, failure = served.run, served.failure
        load = memory_load(deployed, workload, run.peak_running if run else None)
        probability = p_fits(self.memory_terms(deployed), self.memory_settings(deployed, config), self.constants, load)
        return Prediction(
            fits=failure is None,
            p_fits=0.0 if isinstance(failure, Unhealthy) else float(probability),
            memory_gib=memory_report(served.budget),
            kv_tokens=int(budget.kv_tokens),
            metrics=metrics_of(run, deployed.gpus, deployed.stream_interval, slo) if run else None,
            limited_by=limited_by(run, self.times(deployed), workload) if run else None,
            failure=failure,
            data_source=self.tables_for(deployed).data_source,
            kernels=self.tables_for(deployed).kernels,
        )


@dataclass(frozen=True)
class Served:
    """A running server under one workload: memory under that load, and either what happened or why nothing did."""

    budget: MemoryBudget
    failure: OutOfMemory | Unhealthy | None
    run: Simulation | None


OWN_HTTP_PROCESS = frozenset({"vllm"})
KV_POOL_BYTES = "kv_cache_memory_bytes"  # vLLM's option of that name


def memory_load(deployment: Deployment, workload: Workload, peak_running: int | None = None) -> MemoryLoad | None:
    """Most requests of one rank at once: by concurrency, else as many as were seen; None where nothing bounds them."""
    most = workload.concurrency or peak_running
    if most is None:
        return None
    return MemoryLoad(
        requests=math.ceil(most / deployment.ranks_with_own_queue),
        request_tokens=round_up(workload.max_tokens_per_request, KV_BLOCK_TOKENS),
    )


def kv_pool_gib(deployment: Deployment) -> float | None:
    """Size of a KV pool that is given outright (`KV_POOL_BYTES`), None where a fraction decides."""
    given = deployment.engine_options.get(KV_POOL_BYTES)
    return gib(given) if isinstance(given, int) else None


def startup_failure(budget: MemoryBudget) -> OutOfMemory | None:
    """How the launch runs out of memory before it serves, if it does."""
    stage = int(budget.failing_stage)
    return None if stage in (-1, SERVE) else _out_of_memory(budget, stage)


def load_failure(budget: MemoryBudget) -> OutOfMemory | None:
    """How a server that started runs out of memory under the load of the budget, if it does."""
    return _out_of_memory(budget, SERVE) if float(budget.margin_gib[SERVE]) < 0.0 else None


def _out_of_memory(budget: MemoryBudget, stage: int) -> OutOfMemory:
    tried, free = float(budget.tried_gib[stage]), float(budget.free_gib[stage])
    return OutOfMemory(
        phase=STAGES[stage].phase,
        component=STAGES[stage].component,
        tried_gib=tried,
        free_gib=max(0.0, free),
        short_gib=tried - free,
    )


def unservable(
    budget: MemoryBudget, deployment: Deployment, config: ServingConfig, workload: Workload
) -> Unhealthy | None:
    """Why a server that starts cannot serve the workload's longest request, if it cannot."""
    kv_tokens, longest = int(budget.kv_tokens), round_up(workload.max_tokens_per_request, KV_BLOCK_TOKENS)
    if kv_tokens < longest:
        return Unhealthy(
            reason=f"the KV cache holds {kv_tokens:,} tokens per rank, the longest request needs {longest:,}"
        )
    if not deployment.chunked_prefill and workload.isl > config.max_num_tokens:
        return Unhealthy(
            reason=f"a prompt of {workload.isl:,} tokens exceeds max_num_tokens {config.max_num_tokens:,} "
            "without chunked prefill"
        )
    if min(workload.isl, KV_BLOCK_TOKENS) > config.max_num_tokens:
        return Unhealthy(
            reason=f"prompts are cut into whole KV blocks of {KV_BLOCK_TOKENS} tokens, of which none fits into "
            f"max_num_tokens {config.max_num_tokens:,}"
        )
    return None


def memory_report(budget: MemoryBudget) -> MemoryReport:
    """One configuration's budget in the report's words; its headroom is the margin under load.

    `other` is what that margin leaves for: runtime, communicators, sampling buffers, fragmentation, graph pool growth.
    Components are those of the engine's own log. `cached` is None of an engine whose cache nobody has measured.
    """
    profiled = float(budget.profiled_gib)
    named = budget.weights_gib + budget.profiled_gib + budget.graphs_gib + budget.kv_pool_gib
    unnamed = float(budget.capacity_gib - budget.margin_gib[SERVE] - named)
    return MemoryReport(
        weights=float(budget.weights_gib),
        activations=profiled + min(0.0, unnamed),  # compiling may have taken more than the load then needs
        cuda_graphs=float(budget.graphs_gib),
        kv_pool=float(budget.kv_pool_gib),
        other=max(0.0, unnamed),
        cached=float(budget.cached_gib) if budget.cacheable_gib.any() else None,
        capacity=float(budget.capacity_gib),
    )


def in_use_gib(budget: MemoryBudget, phase: Phase) -> float:
    """GiB of one GPU in use at the end of a phase of the start, or under load: what a driver would tell."""
    fixed = budget.runtime_gib + budget.comm_gib
    resident, working = fixed + budget.weights_gib, budget.activations_gib + budget.graphs_gib
    profiling = budget.profiling_gib + budget.graphs_gib
    held = {
        "launch": fixed,
        "load": resident,
        "kv_estimate": resident + profiling,
        "kv_allocate": resident + budget.kv_pool_gib,
        "warm_up": resident + budget.kv_pool_gib + working,
        "serve": budget.capacity_gib - budget.margin_gib[SERVE] + budget.cached_gib,
    }
    return float(np.clip(held[phase], 0.0, budget.capacity_gib))


def profiled_memory(budget: MemoryBudget, kv_bytes_per_token: float) -> ProfiledMemory:
    """What the engine's log would say of a start with this budget, as far as the start comes."""
    failing = int(budget.failing_stage)
    reached = len(STAGES) if failing < 0 else failing
    profiled, pooled = reached >= POOL, reached > POOL
    outside_torch = float(budget.runtime_gib + budget.comm_gib + budget.graphs_gib)
    return ProfiledMemory(
        total=float(budget.capacity_gib),
        weights=float(budget.weights_gib) if reached > LOAD else None,
        activations=float(budget.profiled_gib) if profiled else None,
        outside_torch=outside_torch if profiled and budget.fraction == "of_free" else None,
        kv_bytes_per_token=kv_bytes_per_token,
        kv_pool=float(budget.kv_pool_gib) if pooled else None,
        kv_tokens=int(budget.kv_tokens) if pooled else None,
    )


def metrics_of(run: Simulation, n_gpus: int, stream_interval: int = 1, slo: Slo | None = None) -> Metrics:
    """Metrics of a simulation's finished requests, by the same definitions as a measurement's."""
    done = np.isfinite(run.done_ms)
    gaps_matter = slo is not None and any(limit.latency == "itl" for limit in slo.limits)
    return compute(
        run.arrival_ms[done],
        run.first_token_ms[done],
        run.done_ms[done],
        run.n_output[done],
        n_gpus,
        slo=slo,
        itl_ms=itl_ms(run, stream_interval),
        gaps_ms=gaps_ms(run, stream_interval) if gaps_matter else None,
    )


def limited_by(run: Simulation, times: StepTimes, workload: Workload) -> LimitedBy:
    """The limit that, loosened, would raise throughput first.

    An HTTP process that is full hides all else (`metrics/limits.py`). A queue for KV blocks, batch slots or token
    budget during half of the time, or the GPU waiting for the host during a quarter, is the limit. Otherwise every
    request is running: a closed loop is then limited by the GPU where time grows with the batch (three quarters of
    proportional), else by its concurrency.
    """
    return limit_of(_behind_http(run, times, workload), http_cpu_share=run.http_share)


def _behind_http(run: Simulation, times: StepTimes, workload: Workload) -> LimitedBy:
    queues: dict[LimitedBy, float] = {
        "kv_capacity": run.kv_share,
        "max_batch_size": run.batch_share,
        "max_num_tokens": run.tokens_share,
    }
    longest = max(queues, key=lambda name: queues[name])
    if queues[longest] >= 0.5:
        return longest
    if run.host_share >= 0.25:
        return "host"
    if workload.request_rate_per_s is not None:
        return "request_rate"
    batch, kv_len = max(1.0, run.mean_running), workload.isl + workload.osl / 2
    full, half = times.tables.decode_ms([batch, batch / 2], kv_len)
    growth = run.prefill_share + (1.0 - run.prefill_share) * math.log2(max(float(full / half), 1.0))
    return "gpu" if growth >= 0.75 else "concurrency"
