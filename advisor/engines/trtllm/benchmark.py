"""The command line of the engine's own benchmark script: the referee beside advisor's client.

Source: TensorRT-LLM `tensorrt_llm/serve/scripts/benchmark_serving.py` and `benchmark_dataset.py` (part of the wheel
since 1.0).
"""

from __future__ import annotations

from advisor.domain.deployment import Deployment
from advisor.domain.strict import StrictModel
from advisor.domain.workload import Workload
from advisor.engines.words import model_argument

MODULE = "tensorrt_llm.serve.scripts.benchmark_serving"
PERCENTILES = (50, 90, 95, 99)


class RandomLengths(StrictModel):
    """How the script's random data set draws the lengths of a workload.

    Prompts have `prefix + U[int(input x (1 - r)), int(input x (1 + r))]` tokens, outputs likewise without the prefix:
    one ratio r serves both, so not every pair of ranges can be drawn.
    """

    input_len: int
    output_len: int
    range_ratio: float
    prefix_len: int
    comment: str | None


def random_lengths(workload: Workload) -> RandomLengths:
    """The script's parameters for a workload; fixed mean lengths, and a comment, where no ratio gives both ranges."""
    prefix = workload.shared_prefix_tokens
    prompts = ((workload.isl_min or workload.isl) - prefix, workload.isl - prefix)
    outputs = (workload.osl_min or workload.osl, workload.osl)
    input_len, output_len = sum(prompts) // 2, sum(outputs) // 2
    for low, middle in ((prompts[0], input_len), (outputs[0], output_len)):
        ratio = round((middle - low) / middle, 6) if middle else 0.0
        if _draws(input_len, ratio, prompts) and _draws(output_len, ratio, outputs):
            return RandomLengths(
                input_len=input_len, output_len=output_len, range_ratio=ratio, prefix_len=prefix, comment=None
            )
    comment = (
        f"The script has one range ratio for both lengths and cannot draw ISL {prompts[0] + prefix}-{workload.isl} "
        f"with OSL {outputs[0]}-{outputs[1]}; it sends the mean lengths instead."
    )
    return RandomLengths(
        input_len=input_len, output_len=output_len, range_ratio=0.0, prefix_len=prefix, comment=comment
    )


def _draws(middle: int, ratio: float, wanted: tuple[int, int]) -> bool:
    """True when the script's range is the wanted one within a token, and never longer than the longest."""
    low, high = int(middle * (1 - ratio)), int(middle * (1 + ratio))
    return abs(low - wanted[0]) <= 1 and wanted[1] - 1 <= high <= wanted[1]


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
    """The guide's `python -m tensorrt_llm.serve.scripts.benchmark_serving` with the workload's numbers.

    Prompts are sent as token ids (`--tokenize-on-client`): decoded and tokenised again, their length would drift.
    """
    lengths = random_lengths(workload)
    argv = ["python", "-m", MODULE, "--model", model_argument(deployment), "--backend", "openai", "--host", host]
    argv += ["--port", str(port), "--dataset-name", "random", "--random-ids", "--tokenize-on-client"]
    argv += ["--random-input-len", str(lengths.input_len), "--random-output-len", str(lengths.output_len)]
    if lengths.range_ratio:
        argv += ["--random-range-ratio", f"{lengths.range_ratio:g}"]
    if lengths.prefix_len:
        argv += ["--random-prefix-len", str(lengths.prefix_len)]
    argv += ["--ignore-eos", "--num-prompts", str(workload.requests())]
    if workload.request_rate_per_s is not None:
        argv += ["--request-rate", f"{workload.request_rate_per_s:g}"]
    else:
        argv += ["--max-concurrency", str(workload.concurrency)]
    argv += ["--seed", str(seed), "--percentile-metrics", "ttft,tpot,itl,e2el"]
    argv += ["--metric-percentiles", ",".join(map(str, PERCENTILES)), "--save-result"]
    if result_dir is not None:
        argv += ["--result-dir", result_dir]
    if result_filename is not None:
        argv += ["--result-filename", result_filename]
    if deployment.trust_remote_code:
        argv.append("--trust-remote-code")
    return tuple(argv)
