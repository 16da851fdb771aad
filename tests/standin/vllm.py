"""TEST EQUIPMENT: the program `vllm` as the tests have it: the same scheduler, sockets and fake GPUs in vLLM's words.

Lines are those of recorded starts of vLLM 0.24.0 on an H100; memory goes the way of `v1/worker/gpu_worker.py`. Like the
rest of the stand-in it must not import the dialect that it tests.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from advisor.domain.deployment import Deployment
from advisor.domain.units import from_gib, gib
from advisor.memory.constants import VLLM_MEMORY
from advisor.memory.terms import MemoryTerms
from advisor.twin.constants import TwinConstants
from advisor.twin.predict import Twin
from tests.standin.api import Api
from tests.standin.context import Context
from tests.standin.dial import HOME_VARIABLE, LAUNCHES, begin, read_dial
from tests.standin.engine import Engine
from tests.standin.equipment import VLLM_VERSION as VERSION
from tests.standin.http import Exchange
from tests.standin.log import Log
from tests.standin.memory import Law, OutOfMemory, RankMemory
from tests.standin.program import Run
from tests.standin.releases import RELEASES, Release
from tests.standin.serve import Ended, Serving
from tests.standin.settings import Settings
from tests.standin.startup import Pause, Started, StartFailed
from tests.standin.workers import Workers

BLOCK_TOKENS = 16
BANNER = "advisor test equipment: this is a stand-in for vllm, not vLLM; no number here is measured."
_SITE = "/srv/vllm/site/vllm"
_FRAMES = {
    "load": ("v1/worker/gpu_model_runner.py", "load_model"),
    "profile": ("v1/worker/gpu_model_runner.py", "profile_run"),
    "pool": ("v1/worker/gpu_model_runner.py", "_allocate_kv_cache_tensors"),
    "capture": ("v1/worker/gpu_model_runner.py", "capture_model"),
    "serve": ("v1/worker/gpu_model_runner.py", "execute_model"),
}


class VllmLog(Log):
    """Lines as vLLM's processes write them."""

    def engine(self, text: str, level: str = "INFO") -> None:
        """Of the process that computes."""
        for line in text.splitlines():
            self.raw(f"(EngineCore pid={os.getpid()}) {level} {time.strftime('%m-%d %H:%M:%S')} [core.py:1] {line}")

    def server(self, text: str) -> None:
        """Of the process that serves HTTP."""
        self.raw(f"(APIServer pid={os.getpid()}) INFO {time.strftime('%m-%d %H:%M:%S')} [api_server.py:1] {text}")


def understand(document: dict[str, Any], argv: list[str], release: Release) -> Settings:
    """The settings of `vllm serve MODEL --config FILE --host H --port P`."""
    options = dict(zip(argv[2::2], argv[3::2], strict=True))
    graphs = 0 if document.get("enforce-eager") else document.get("max-cudagraph-capture-size", 512)
    sizes = (1, 2, 4, *range(8, 256, 8), *range(256, graphs + 1, 16))
    return Settings(
        release=release,
        model=argv[1],
        host=options["--host"],
        port=int(options["--port"]),
        log_level="info",
        tp=document.get("tensor-parallel-size", 1),
        pp=document.get("pipeline-parallel-size", 1),
        ep=1,
        attention_dp=False,
        max_batch_size=document["max-num-seqs"],
        max_num_tokens=document["max-num-batched-tokens"],
        max_seq_len=document["max-model-len"],
        kv_fraction=document.get("gpu-memory-utilization", 0.92),
        kv_max_tokens=None,
        kv_max_bytes=document.get("kv-cache-memory-bytes", 0),
        kv_dtype=document.get("kv-cache-dtype", "auto"),
        tokens_per_block=BLOCK_TOKENS,
        block_reuse=not document.get("no-enable-prefix-caching", False),
        graph_sizes=tuple(size for size in sizes if size <= min(graphs, document["max-num-batched-tokens"])),
        graph_padding=True,
        chunked_prefill=not document.get("no-enable-chunked-prefill", False),
        overlap=True,
        stream_interval=document.get("stream-interval", 1),
        iter_stats=True,
        iter_log=False,
    )


class VllmLaw(Law):
    """The law with vLLM's terms. Under load a step's activations come back as far as the batch is full."""

    def __init__(self, terms: MemoryTerms, gpu: str, settings: Settings, constants: TwinConstants) -> None:
        super().__init__(terms.under(VLLM_MEMORY, gpu), settings, constants)

    def logits_gib(self, rows: int) -> float:
        """Of the activations that profiling saw, logits among them."""
        return self.sizes.activations * min(1.0, rows / self.settings.max_batch_size)


class VllmStartup:
    """One start: weights, one profiling pass, the KV cache, CUDA graphs."""

    def __init__(self, context: Context, law: VllmLaw, rank: RankMemory, pause: Pause) -> None:
        assert isinstance(context.log, VllmLog)
        self.settings, self.log, self.law, self.rank, self.pause = context.settings, context.log, law, rank, pause

    def run(self) -> Started:
        """Go through all phases.

        Raises:
            StartFailed: memory ran out, or no request fits.
        """
        s, z, log, rank = self.settings, self.law.sizes, self.log, self.rank
        log.server(f"Using max model len {s.max_seq_len}")
        log.server(f"Chunked prefill is enabled with max_num_batched_tokens={s.max_num_tokens}.")
        log.engine(
            f"Initializing a V1 LLM engine (v{VERSION}) with config: model='{s.model}', compilation_config="
            f"{{'cudagraph_capture_sizes': {list(s.graph_sizes)}, 'cudagraph_copy_inputs': False}}"
        )
        self.pause("launch", 1.0)
        log.engine("Loading model from scratch...")
        self.pause("load", 1.0)
        self._take("runtime", z.runtime, "load")
        self._take("weights", z.weights, "load")
        log.engine(f"Model loading took {z.weights:.2f} GiB and 2.496813 seconds")
        self.pause("kv_estimate", 1.0)
        self._take("activations", z.profiling, "profile")
        usable = rank.free_gib + rank.mine_gib
        available = s.kv_fraction * usable - z.runtime - z.weights - z.profiling
        log.engine(f"Available KV cache memory: {available:.2f} GiB")
        rank.drop("activations")
        self.pause("kv_allocate", 1.0)
        tokens = self._pool(available)
        self.pause("warm_up", 1.0)
        if s.graph_sizes:
            log.raw(f"Capturing CUDA graphs (FULL): 100%|##########| {len(s.graph_sizes)}/{len(s.graph_sizes)}")
            self._take("graphs", z.graphs + z.captured_fragments, "capture")
            log.engine(f"Graph capturing finished in 7 secs, took {z.graphs:.2f} GiB")
        log.server(f"Starting vLLM server on http://{s.host}:{s.port}")
        return Started(tokens, int(s.max_seq_len or 0), s.graph_sizes)

    def _pool(self, available_gib: float) -> int:
        kv_bytes, longest = self.law.terms.kv_bytes_per_token, int(self.settings.max_seq_len or 0)
        if available_gib <= 0:
            self._fail("ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`.")
        tokens = int(from_gib(available_gib) / kv_bytes) // BLOCK_TOKENS * BLOCK_TOKENS
        if tokens < longest:
            self._fail(
                f"ValueError: To serve at least one request with the model's max seq len ({longest}), "
                f"({gib(longest * kv_bytes):.2f} GiB KV cache is needed, which is larger than the available KV cache "
                f"memory ({available_gib:.2f} GiB). Based on the available memory, the estimated maximum model length "
                f"is {tokens}."
            )
        self.log.engine(f"GPU KV cache size: {tokens:,} tokens")
        self._take("kv_pool", gib(tokens * kv_bytes), "pool")
        return tokens

    def _take(self, component: str, size_gib: float, stage: str) -> None:
        try:
            self.rank.take(component, size_gib, stage)
        except OutOfMemory as error:
            self._fail(f"torch.OutOfMemoryError: {error}", stage)

    def _fail(self, message: str, stage: str = "pool") -> None:
        self.log.engine("EngineCore failed to start.", "ERROR")
        self.log.engine(traceback_text(message, stage), "ERROR")
        self.log.raw(f"(APIServer pid={os.getpid()}) {_FAILED_START}")
        raise StartFailed(message[:80])


_FAILED_START = "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"


def traceback_text(message: str, stage: str) -> str:
    """As vLLM prints what an engine died of."""
    file, function = _FRAMES[stage]
    trace = f'Traceback (most recent call last):\n  File "{_SITE}/{file}", line 1, in {function}\n    raise error'
    return f"{trace}\n{message}"


class VllmApi(Api):
    """Routes as vLLM has them: `/metrics` is a page of Prometheus."""

    async def _metrics(self, exchange: Exchange) -> None:
        last = self.engine.stats[-1] if self.engine.stats else None
        idle = not self.engine.scheduler.n_active and not self.engine.scheduler.queue
        cache = (last or {}).get("kvCacheStats", {})
        blocks = cache.get("maxNumBlocks", 0)
        values = {
            "num_requests_running": 0 if idle else self.engine.scheduler.n_active,
            "num_requests_waiting": len(self.engine.scheduler.queue),
            "kv_cache_usage_perc": cache["usedNumBlocks"] / blocks if blocks and not idle else 0.0,
            "num_preemptions_total": 0,
            "iteration_tokens_total_count": self.engine.scheduler.n_steps,
            "prefix_cache_queries_total": cache.get("reusedBlocks", 0) + cache.get("missedBlocks", 0),
            "prefix_cache_hits_total": cache.get("reusedBlocks", 0),
        }
        lines = [f'vllm:{name}{{engine="0",model_name="m"}} {float(value)}' for name, value in values.items()]
        exchange.respond(("\n".join(lines) + "\n").encode(), kind="text/plain; version=0.0.4")

    def _model_id(self) -> str:
        return self.settings.model


class VllmServing(Serving):
    """A vLLM server that is up; it ends when its engine dies."""

    def api(self, engine: Engine) -> Api:
        """With vLLM's routes."""
        return VllmApi(self.context, self.started, engine)

    def _out_of_memory(self, error: OutOfMemory) -> None:
        assert isinstance(self.log, VllmLog)
        self.log.engine("EngineCore encountered a fatal error.", "ERROR")
        self.log.engine(traceback_text(f"torch.OutOfMemoryError: {error}", "serve"), "ERROR")
        self.log.raw("vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue.")
        self._end(Ended("out of memory: serve", 1))


class VllmRun(Run):
    """A launch of the stand-in for vLLM."""

    def _banner(self) -> None:
        assert isinstance(self.log, VllmLog)
        s = self.settings
        self.log.raw(BANNER)
        self.log.server(f"version {VERSION}")
        said = {
            "model": s.model,
            "max_model_len": s.max_seq_len,
            "gpu_memory_utilization": s.kv_fraction,
            "max_num_batched_tokens": s.max_num_tokens,
            "max_num_seqs": s.max_batch_size,
        }
        self.log.server(f"non-default args: {said}")

    def _started(
        self, twin: Twin, deployment: Deployment, terms: MemoryTerms, workers: Workers, window: int
    ) -> Serving:
        law = VllmLaw(terms, deployment.gpu, self.settings, twin.constants)
        (rank,) = self.ranks
        started = VllmStartup(self.context, law, rank, self._pause).run()
        return VllmServing(self.context, started, twin.times(deployment), law, self.ranks, workers)


def main(argv: list[str]) -> int:
    """One launch. Returns the exit code."""
    home = Path(os.environ[HOME_VARIABLE])
    dial = read_dial(home)
    document = yaml.safe_load(Path(argv[argv.index("--config") + 1]).read_text(encoding="utf-8"))
    settings = understand(document, argv, RELEASES["1.1.0"])
    launch, faults = begin(home / LAUNCHES, dial, argv, settings.record())
    return VllmRun(Context(settings, dial, faults, VllmLog()), launch, "pytorch").run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
