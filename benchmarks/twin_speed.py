"""How fast the twin is, and what its short cuts cost: `python benchmarks/twin_speed.py`; exit 1 when a target is
missed.

Scheduler steps per second (a step that was jumped over counts, since a step-by-step run must agree within 0.1 %), the
time of one simulation, and how well the closed-form ranking orders the search space compared with the scheduler.
"""

from __future__ import annotations

import itertools
import os
import platform
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from advisor.domain.deployment import Deployment
from advisor.domain.serving_config import ServingConfig
from advisor.domain.workload import parse_workload
from advisor.metrics.schedule import draw_requests
from advisor.store import catalog
from advisor.twin.predict import Twin, metrics_of
from advisor.twin.ranking import rank
from advisor.twin.scheduler import simulate

STEPS_PER_S_TARGET = 100_000
AGREEMENT_TARGET = 1e-3
BATCHES = (8, 16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048)
TOKENS = (1024, 2048, 3072, 4096, 5120, 6144, 8192, 12288, 16384, 24576, 32768)
GRAPHS = (0, 8, 32, 128, 256, 512, 1024, 2048)
FRACTIONS = (0.5, 0.7, 0.8, 0.9, 0.95)
N_SIMULATED = 150


def machine() -> str:
    """The processor, cores and interpreter that the figures belong to."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    return f"{name}, {os.cpu_count()} cores, Python {platform.python_version()}, numpy {np.__version__}"


def maverick(gpu: str, *, attention_dp: bool) -> Deployment:
    """Llama-4-Maverick FP8 on eight GPUs."""
    return Deployment(
        model="nvidia/Llama-4-Maverick-17B-128E-Instruct-FP8",
        quantization="fp8",
        gpu=gpu,
        gpus=8,
        tp=8,
        ep=8,
        attention_dp=attention_dp,
        stream_interval=4,
    )


def llama_8b() -> Deployment:
    """Llama-3.1-8B bf16 on one H100."""
    return Deployment(model="meta-llama/Llama-3.1-8B-Instruct", quantization="bf16", gpu="h100_sxm", gpus=1, tp=1)


def config(batch: int, tokens: int = 8192, graphs: int = 1024, fraction: float = 0.9, **options: bool) -> ServingConfig:
    """A configuration by its numbers."""
    return ServingConfig(
        max_batch_size=batch,
        max_num_tokens=tokens,
        cuda_graph_max_batch_size=graphs,
        kv_cache_free_gpu_memory_fraction=fraction,
        options=dict(options),
    )


def twin_of(deployment: Deployment) -> Twin:
    """The nominal twin."""
    return Twin(catalog.model_facts(deployment.model), catalog.step_tables)


def simulations() -> bool:
    """Print steps per second and agreement with the step-by-step run; True when both targets are met."""
    met = True
    print(
        f"{'simulation (3 waves, c 1024)':44s} {'ms':>6s} {'steps':>9s} {'steps/s':>11s}  "
        "jump vs step by step: throughput, TTFT, TPOT"
    )
    for deployment, name in itertools.product(
        (
            maverick("b200_sxm", attention_dp=False),
            maverick("b200_sxm", attention_dp=True),
            maverick("h100_sxm", attention_dp=False),
        ),
        ("1k2k", "4k1k", "1k8k"),
    ):
        workload, setting = parse_workload(name), config(256 if deployment.attention_dp else 1024)
        twin, n = twin_of(deployment), 3072
        isl, osl, _ = draw_requests(workload, n, 0)
        times, settings = twin.times(deployment), twin.settings(deployment, setting)
        seconds = []
        for _ in range(5):
            start = time.perf_counter()
            jumped = simulate(times, settings, isl, osl, concurrency=1024)
            seconds.append(time.perf_counter() - start)
        walked = simulate(times, settings, isl, osl, concurrency=1024, jump=False)
        a, b = metrics_of(jumped, 8), metrics_of(walked, 8)
        assert a.tpot_ms is not None
        assert b.tpot_ms is not None
        pairs = (
            (a.output_tok_per_s, b.output_tok_per_s),
            (a.ttft_ms.mean, b.ttft_ms.mean),
            (a.tpot_ms.mean, b.tpot_ms.mean),
        )
        differences = [abs(x / y - 1.0) for x, y in pairs]
        rate = jumped.n_steps / min(seconds)
        met &= max(differences) <= AGREEMENT_TARGET and (name != "1k2k" or rate >= STEPS_PER_S_TARGET)
        label = f"Maverick {deployment.gpu} {'attention DP' if deployment.attention_dp else 'TP'} {name}"
        cells = ", ".join(f"{100 * d:.3f} %" for d in differences)
        print(f"{label:44s} {1e3 * min(seconds):6.1f} {jumped.n_steps:9,d} {rate:11,.0f}  {cells}")
    print(f"targets: >= {STEPS_PER_S_TARGET:,} steps/s on 1k2k, agreement within 0.1 %: {'met' if met else 'MISSED'}\n")
    return met


def average_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks with ties sharing their mean."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def ranking() -> None:
    """Print speed and rank agreement of the closed-form ranking on the four settings x chunked prefill."""
    configs = [
        config(b, t, g, f, enable_chunked_prefill=chunked)
        for b, t, g, f, chunked in itertools.product(BATCHES, TOKENS, GRAPHS, FRACTIONS, (False, True))
        if g <= b <= t
    ]
    print(
        f"Ranking {len(configs):,} configurations; Spearman and overlap of the best 20 over {N_SIMULATED} drawn ones, "
        "ties within 0.5 %"
    )
    rng = np.random.default_rng(0)
    for deployment, name in itertools.product(
        (
            maverick("b200_sxm", attention_dp=False),
            maverick("b200_sxm", attention_dp=True),
            maverick("h100_sxm", attention_dp=False),
            llama_8b(),
        ),
        ("1k1k", "4k1k", "8k1k", "1k8k", "4k1k_c256"),
    ):
        workload, twin = parse_workload(name), twin_of(deployment)
        start = time.perf_counter()
        estimate = rank(twin, deployment, configs, workload)
        ms = 1e3 * (time.perf_counter() - start)
        chosen = rng.choice(np.flatnonzero(estimate.servable), N_SIMULATED, replace=False)
        n = workload.requests(3)
        simulated = np.array(
            [twin.simulate(deployment, configs[i], workload, n_requests=n).output_tok_per_s for i in chosen]
        )
        guessed = estimate.output_tok_per_s[chosen]
        rounded = [np.round(np.log(v) / 0.005) for v in (simulated, guessed)]
        rho = float(np.corrcoef(average_ranks(rounded[0]), average_ranks(rounded[1]))[0, 1])
        best = guessed >= np.sort(guessed)[-20]
        good = simulated >= 0.995 * np.sort(simulated)[-20]
        overlap = min(20, int((best & good).sum()))
        regret = 100 * (1 - simulated[np.argmax(guessed)] / simulated.max())
        error = 100 * np.median(np.abs(guessed / simulated - 1))
        label = (
            f"{deployment.model.split('/')[1][:16]} {deployment.gpu} {'DP' if deployment.attention_dp else 'TP'} {name}"
        )
        print(
            f"{label:44s} {ms:5.0f} ms  Spearman {rho:.3f}  best 20: {overlap:2d}  "
            f"regret {regret:.1f} %  median error {error:.1f} %"
        )


def main() -> int:
    """Print everything; 1 when a target is missed."""
    print(machine())
    met = simulations()
    ranking()
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
