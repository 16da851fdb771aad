"""The command line of vLLM's own benchmark: the referee beside advisor's client.

Source: vLLM `benchmarks/serve.py` and `benchmarks/datasets/datasets.py`. Prompts of its random data set are decoded and
tokenised again until their length is as asked, so their number of tokens is right and their text is not. Without a
temperature the server samples by its own default, which is another work than advisor's greedy requests are.
"""

from __future__ import annotations

import json

from advisor.domain.deployment import Deployment
from advisor.domain.workload import Workload
from advisor.engines.words import model_argument

PERCENTILES = (50, 90, 95, 99)


def benchmark_argv(
    deployment: Deployment,
    workload: Workload,
    *,
    host: str,
    port: int | str,
    seed: int | str = 0,
    result_dir: str | None = None,
    result_filename: str | None = None,
) -> tuple[str, ...]:
    """`vllm bench serve` with the workload's numbers; ranges are drawn around their means, each with its own ratio."""
    prefix = workload.shared_prefix_tokens
    input_len, input_ratio = _around((workload.isl_min or workload.isl) - prefix, workload.isl - prefix)
    output_len, output_ratio = _around(workload.osl_min or workload.osl, workload.osl)
    argv = ["vllm", "bench", "serve", "--model", model_argument(deployment), "--backend", "openai"]
    argv += ["--endpoint", "/v1/completions", "--host", host, "--port", str(port), "--dataset-name", "random"]
    argv += ["--random-input-len", str(input_len), "--random-output-len", str(output_len)]
    if workload.is_ranged:
        argv += ["--random-range-ratio", json.dumps({"input": input_ratio, "output": output_ratio})]
    if prefix:
        argv += ["--random-prefix-len", str(prefix)]
    argv += ["--ignore-eos", "--temperature", "0", "--num-prompts", str(workload.requests())]
    if workload.request_rate_per_s is not None:
        argv += ["--request-rate", f"{workload.request_rate_per_s:g}"]
    else:
        argv += ["--max-concurrency", str(workload.concurrency)]
    argv += ["--seed", str(seed), "--percentile-metrics", "ttft,tpot,itl,e2el"]
    argv += ["--metric-percentiles", ",".join(map(str, PERCENTILES)), "--disable-tqdm", "--save-result"]
    if result_dir is not None:
        argv += ["--result-dir", result_dir]
    if result_filename is not None:
        argv += ["--result-filename", result_filename]
    if deployment.trust_remote_code:
        argv.append("--trust-remote-code")
    return tuple(argv)


def _around(low: int, high: int) -> tuple[int, float]:
    """Middle of a range and the ratio that draws the range around it."""
    middle = (low + high) // 2
    return middle, round((middle - low) / middle, 6) if middle else 0.0
