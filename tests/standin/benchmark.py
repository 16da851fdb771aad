"""TEST EQUIPMENT: `python -m tensorrt_llm.serve.scripts.benchmark_serving` by its command line, behaviour and results.

Formats and quirks are upstream's: one unmeasured request first, no retries, a stream that ends early counts as success,
zeros where nothing completed, exit code 0 all the same, and a result key that ends in a colon.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from tests.standin.bench_results import Sample, console, result_of

VOCABULARY = 128_000
_DATASETS = ("sharegpt", "burstgpt", "sonnet", "random", "random_image", "hf", "trtllm_custom")


def parser() -> argparse.ArgumentParser:
    """Upstream's options and defaults."""
    options = argparse.ArgumentParser(
        prog="benchmark_serving.py", description=f"Benchmark the online serving throughput. {__doc__}"
    )
    add = options.add_argument
    add("--backend", default="openai", choices=("openai", "openai-chat"))
    add("--base-url")
    add("--host", default="127.0.0.1")
    add("--port", type=int, default=8000)
    add("--endpoint", default="/v1/completions")
    add("--dataset-name", default="sharegpt", choices=_DATASETS)
    add("--model", required=True)
    for text in ("--dataset-path", "--download-path", "--tokenizer", "--served-model-name", "--custom-tokenizer"):
        add(text)
    for text in ("--result-dir", "--result-filename"):
        add(text)
    for many in ("--metadata", "--goodput", "--lora-modules"):
        add(many, nargs="*")
    for whole, default in (
        ("--download-timeout", 180),
        ("--num-prompts", 1000),
        ("--seed", 0),
        ("--random-input-len", 1024),
        ("--random-output-len", 128),
        ("--random-prefix-len", 0),
        ("--max-concurrency", None),
        ("--logprobs", None),
        ("--top-k", None),
    ):
        add(whole, type=int, default=default)
    for real, amount in (
        ("--request-rate", float("inf")),
        ("--burstiness", 1.0),
        ("--random-range-ratio", 0.0),
        ("--top-p", None),
        ("--min-p", None),
        ("--temperature", None),
    ):
        add(real, type=float, default=amount)
    for flag in (
        *("--random-ids", "--tokenize-on-client", "--ignore-eos", "--non-streaming", "--no-test-input"),
        *("--trust-remote-code", "--disable-tqdm", "--profile", "--use-beam-search", "--save-result"),
        "--save-detailed",
    ):
        add(flag, action="store_true")
    add("--percentile-metrics", default="ttft,tpot,itl")
    add("--metric-percentiles", default="99")
    add("--tokenizer-mode", default="auto", choices=("auto", "slow", "mistral", "custom"))
    return options


@dataclass(frozen=True)
class Prompt:
    """One request to send: ids or text, and the lengths that it is meant to have."""

    content: Sequence[int] | str
    n_tokens: int
    n_output: int


def random_prompts(args: argparse.Namespace) -> list[Prompt]:
    """Consecutive ids from a random offset on, lengths uniform within the ratio; as text unless ids are to be sent."""
    if args.dataset_name != "random":
        raise ValueError(f"The stand-in has no dataset {args.dataset_name!r}.")
    if not args.random_ids and args.dataset_path is None and args.download_path is None:
        raise AssertionError("Must specify dataset_path or download_path")
    assert args.random_range_ratio < 1.0, "random_range_ratio must be < 1.0 to ensure a valid sampling range"
    rng, ratio = np.random.default_rng(args.seed), args.random_range_ratio

    def lengths(mean: int) -> list[int]:
        drawn: list[int] = rng.integers(int(mean * (1 - ratio)), int(mean * (1 + ratio)) + 1, args.num_prompts).tolist()
        return drawn

    prefix = rng.integers(0, VOCABULARY, args.random_prefix_len).tolist()
    inputs, outputs = lengths(args.random_input_len), lengths(args.random_output_len)
    offsets = rng.integers(0, VOCABULARY, args.num_prompts).tolist()
    prompts = []
    for number, (n_input, n_output, offset) in enumerate(zip(inputs, outputs, offsets, strict=True)):
        ids = prefix + [(offset + number + i) % VOCABULARY for i in range(n_input)]
        content = ids if args.tokenize_on_client else " ".join(f"t{id_}" for id_ in ids)
        prompts.append(Prompt(content, len(ids), n_output))
    return prompts


class Client:
    """Sends requests, each on a connection of its own."""

    def __init__(self, args: argparse.Namespace) -> None:
        base = args.base_url or f"http://{args.host}:{args.port}"
        url = urlsplit(base)
        self.args, self.host, self.port = args, url.hostname or "127.0.0.1", url.port or 80
        self.is_chat = args.backend == "openai-chat"
        self.path = url.path + ("/v1/chat/completions" if self.is_chat else args.endpoint)

    async def send(self, prompt: Prompt) -> Sample:
        """One request, timed; whatever goes wrong is in the sample."""
        sample = Sample(prompt_len=prompt.n_tokens)
        started = time.perf_counter()
        try:
            reader, writer = await asyncio.open_connection(self.host, self.port)
            try:
                writer.write(self._request(prompt))
                await self._read(reader, sample, started)
            finally:
                writer.close()
        except Exception as error:  # noqa: BLE001 -- as upstream: a failed request is a number in the result
            sample.success, sample.exception_type = False, type(error).__name__
            sample.error = traceback.format_exc()
        return sample

    def _request(self, prompt: Prompt) -> bytes:
        args, streaming = self.args, not self.args.non_streaming
        body: dict[str, Any] = {"model": args.served_model_name or args.model, "temperature": args.temperature or 0.0}
        if self.is_chat:
            body["messages"] = [{"role": "user", "content": [{"type": "text", "text": prompt.content}]}]
            body["max_completion_tokens"] = prompt.n_output
        else:
            body |= {"prompt": prompt.content, "repetition_penalty": 1.0, "max_tokens": prompt.n_output}
            body["logprobs"] = args.logprobs
        body["stream"] = streaming
        if streaming:
            body["stream_options"] = {"include_usage": True}
        if args.ignore_eos:
            body["ignore_eos"] = True
        body |= {name: value for name in ("top_p", "top_k", "min_p") if (value := getattr(args, name)) is not None}
        data = json.dumps(body).encode()
        head = f"POST {self.path} HTTP/1.1\r\nhost: {self.host}:{self.port}\r\nauthorization: Bearer None\r\n"
        return (
            f"{head}content-type: application/json\r\ncontent-length: {len(data)}\r\nconnection: close\r\n\r\n".encode()
            + data
        )

    async def _read(self, reader: asyncio.StreamReader, sample: Sample, started: float) -> None:
        status = (await reader.readline()).decode().split(maxsplit=2)
        if not status:
            raise ConnectionResetError("Server disconnected")
        chunked = False
        while line := (await reader.readline()).strip():
            chunked |= line.lower() == b"transfer-encoding: chunked"
        if status[1] != "200":
            sample.error = status[2].strip()
            return
        last = started
        async for data in _events(reader) if chunked else _whole(reader):
            now = time.perf_counter()
            if data.get("choices"):
                if not sample.success:
                    sample.ttft, sample.success = now - started, True
                else:
                    sample.itl.append(now - last)
                last = now
            if data.get("usage"):
                sample.output_tokens = data["usage"]["completion_tokens"]
        if not sample.success:
            sample.error = "Never received a valid chunk to calculate TTFT.This response will be marked as failed!"
        sample.latency = last - started


async def _events(reader: asyncio.StreamReader) -> Any:
    """JSON of each event of a chunked stream; an end that comes too early is an end."""
    while True:
        size = await reader.readline()
        if not size.strip() or int(size, 16) == 0:
            return
        try:
            chunk = (await reader.readexactly(int(size, 16) + 2)).strip()
        except asyncio.IncompleteReadError:
            return
        text = chunk.decode().removeprefix("data: ")
        if text != "[DONE]":
            yield json.loads(text)


async def _whole(reader: asyncio.StreamReader) -> Any:
    yield json.loads(await reader.read())


async def benchmark(args: argparse.Namespace, prompts: list[Prompt]) -> tuple[list[Sample], float]:
    """All requests, and the seconds that they took together."""
    client, say = Client(args), sys.stdout.write
    if args.no_test_input:
        say("Skipping initial test run. Starting main benchmark run...\n")
    else:
        say("Starting initial single prompt test run...\n")
        tried = await client.send(prompts[0])
        if not tried.success:
            raise ValueError(
                "Initial test run failed - Please make sure benchmark arguments are correctly specified. "
                f"Error: {tried.error}"
            )
        say("Initial test run completed. Starting main benchmark run...\n")
    say(f"Traffic request rate: {args.request_rate}\n")
    kind = "Poisson process" if args.burstiness == 1.0 else "Gamma distribution"
    say(f"Burstiness factor: {args.burstiness} ({kind})\nMaximum request concurrency: {args.max_concurrency}\n")
    places = asyncio.Semaphore(args.max_concurrency or len(prompts))

    async def limited(prompt: Prompt) -> Sample:
        async with places:
            return await client.send(prompt)

    started, tasks = time.perf_counter(), []
    for prompt in prompts:
        tasks.append(asyncio.create_task(limited(prompt)))
        if args.request_rate != float("inf"):
            await asyncio.sleep(random.gammavariate(args.burstiness, 1.0 / (args.request_rate * args.burstiness)))
    samples = await asyncio.gather(*tasks)
    return list(samples), time.perf_counter() - started


def main(argv: list[str], *, has_new_rows: bool = True) -> int:
    """One run. Returns the exit code; what it raises is upstream's, too."""
    args = parser().parse_args(argv)
    sys.stdout.write(f"{args}\n")
    random.seed(args.seed)
    if not args.endpoint.endswith(("completions", "profile")):
        raise AssertionError("OpenAI Completions API URL must end with 'completions' or 'profile'.")
    samples, duration = asyncio.run(benchmark(args, random_prompts(args)))
    if not any(sample.success for sample in samples):
        warnings.warn(
            "All requests failed. This is likely due to a misconfiguration on the benchmark arguments.", stacklevel=2
        )
    result = result_of(args, samples, duration, has_new_rows=has_new_rows)
    sys.stdout.write(console(args, result, len(samples), has_new_rows=has_new_rows))
    if args.save_result:
        _save(args, result)
    return 0


def _save(args: argparse.Namespace, result: dict[str, Any]) -> None:
    now = time.strftime("%Y%m%d-%H%M%S")
    head = {"date": now, "backend": args.backend, "model_id": args.model}
    head |= {"tokenizer_id": args.tokenizer or args.model, "num_prompts": args.num_prompts}
    head |= dict(pair.split("=", 1) for pair in args.metadata or ())
    detailed = ("input_lens", "output_lens", "ttfts", "itls", "e2els", "generated_texts", "errors")
    kept = {key: value for key, value in result.items() if args.save_detailed or key not in detailed}
    rate = args.request_rate if args.request_rate < float("inf") else "inf"
    traffic = {"request_rate": rate, "burstiness": args.burstiness, "max_concurrency": args.max_concurrency}
    concurrency = f"-concurrency{args.max_concurrency}" if args.max_concurrency is not None else ""
    name = f"{args.backend}-{args.request_rate}qps{concurrency}-{args.model.split('/')[-1]}-{now}.json"
    path = Path(args.result_dir or ".") / (args.result_filename or name)
    path.write_text(json.dumps({**head, **kept, **traffic}), encoding="utf-8")
