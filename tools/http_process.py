"""What vLLM's HTTP process takes: turns of its event loop for a request, and CPU time for each token it sends.

    .engine/venv/bin/python tools/http_process.py turns .engine/tiny          # any vLLM's Python, and a model's folder
    .engine/venv/bin/python tools/http_process.py tokens .engine/tiny [--mute]

`turns`: a server is started whose loop is slow: one callback sleeps in every turn and asks to be called in the next.
What waits for turns then takes their number times as long, and the work between them nothing beside it. Requests of one
token are sent one after another. `tokens`: CPU time of the thread over the tokens of many streams, by the length of
their prompts; `--mute` gives the model eight times the ids that its tokenizer has text for.
Weights are random. Written for vLLM 0.24 to 0.32 (`AsyncMPClient`); needs nothing of advisor.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import importlib
import json
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TURN_S = 0.05
N_REQUESTS = 5
PROMPT_TOKENS, OUTPUT_TOKENS, N_STREAMS = (64, 512, 1900), 64, 16
LONGEST = 2048
MUTE_FACTOR = 8
HEALTHY_WITHIN_S = 600.0
VARIABLES = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
MARKS = "HTTP_PROCESS_MARKS"
SERVE = "serve"  # what the server's own process is asked
TO_ENGINE, FROM_ENGINE = "add_request_async", "get_output_async"


def serve(words: list[str]) -> None:
    """vLLM's command line in this process; where marks are wanted, its loop is slow from the first request on."""
    sys.argv = ["vllm", "serve", *words]
    if MARKS in os.environ:
        slow_down()
    importlib.import_module("vllm.entrypoints.cli.main").main()


def slow_down() -> None:
    """Marks when requests pass, and after the first of them makes every turn of the loop last."""
    core_client = importlib.import_module("vllm.v1.engine.core_client")
    marks = Path(os.environ[MARKS]).open("a", buffering=1)  # noqa: SIM115  # as long as the server lives
    began: list[bool] = []

    def turn(loop: asyncio.AbstractEventLoop) -> None:
        time.sleep(TURN_S)
        loop.call_soon(turn, loop)

    def marked(name: str, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        @functools.wraps(call)
        async def told(*args: Any, **named: Any) -> Any:
            result = await call(*args, **named)
            marks.write(f"{name} {time.time()}\n")
            if name == TO_ENGINE and not began:
                began.append(True)
                loop = asyncio.get_running_loop()
                loop.call_soon(turn, loop)
            return result

        return told

    for name in (TO_ENGINE, FROM_ENGINE):
        setattr(core_client.AsyncMPClient, name, marked(name, getattr(core_client.AsyncMPClient, name)))


def asked(url: str, model: str, seed: int, n_prompt: int = 64, n_output: int = 1) -> tuple[float, float]:
    """When a request was sent, and when its first token came; the answer is read to its end."""
    rng = random.Random(seed)
    prompt = [rng.randrange(5, 200) for _ in range(n_prompt)]
    body = {"model": model, "prompt": prompt, "max_tokens": n_output, "ignore_eos": True, "temperature": 0}
    body["stream"] = True
    call = urllib.request.Request(  # a server of our own
        f"{url}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    sent = time.time()
    with urllib.request.urlopen(call, timeout=120) as answer:
        answer.readline()
        first = time.time()
        answer.read()
    return sent, first


def turns(url: str, model: str, marks: Path) -> list[tuple[float, float]]:
    """Of every request but the first: turns until the engine had it, and from its output until the token was there."""
    found = []
    for seed in range(1 + N_REQUESTS):
        before = len(marks.read_text().splitlines())
        sent, first = asked(url, model, seed)
        seen = [line.split() for line in marks.read_text().splitlines()[before:]]
        given, back = (next(float(at) for name, at in seen if name == wanted) for wanted in (TO_ENGINE, FROM_ENGINE))
        found.append(((given - sent) / TURN_S, (first - back) / TURN_S))
    return found[1:]


def healthy(url: str, server: subprocess.Popen[bytes]) -> bool:
    """Waits until the server is; False where it died, or took too long."""
    until_s = time.monotonic() + HEALTHY_WITHIN_S
    while time.monotonic() < until_s and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return True
        except OSError:
            time.sleep(1)
    return False


def cpu_s(pid: int) -> float:
    """CPU time of a process's first thread."""
    fields = Path(f"/proc/{pid}/task/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def token_cost_us(url: str, model: str, pid: int, n_prompt: int) -> float:
    """CPU time of the thread that serves HTTP for each token of streams with such prompts, requests included."""
    before = cpu_s(pid)
    with ThreadPoolExecutor(N_STREAMS) as streams:
        list(streams.map(lambda seed: asked(url, model, seed, n_prompt, OUTPUT_TOKENS), range(4 * N_STREAMS)))
    return 1e6 * (cpu_s(pid) - before) / (4 * N_STREAMS * OUTPUT_TOKENS)


def muted(model: Path, folder: Path) -> Path:
    """The same model with many more ids than its tokenizer has text for."""
    copy = shutil.copytree(model, folder / "mute")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "vocab_size": MUTE_FACTOR * config["vocab_size"]}))
    return copy


@contextmanager
def served(model: str, variables: dict[str, str]) -> Iterator[tuple[str, int]]:
    """A server's address and process id, while it lives.

    Raises:
        SystemExit: it did not become healthy.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [model, "--load-format", "dummy", "--max-model-len", str(LONGEST), "--enforce-eager"]
    words += ["--host", "127.0.0.1", "--port", str(port), "--disable-uvicorn-access-log"]
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(
            [sys.executable, __file__, SERVE, *words],
            env={**VARIABLES, **os.environ, **variables},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            if not healthy(url, server):
                log.seek(0)
                sys.exit(log.read()[-4000:].decode(errors="replace") + f"\nNot healthy; exit code {server.poll()}.")
            yield url, server.pid
        finally:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def main() -> None:
    """Start a server, ask it, and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("turns", "tokens"))
    parser.add_argument("model", type=Path, help="a folder with config.json and a tokenizer")
    parser.add_argument("--mute", action="store_true", help="most ids of the output have no text")
    said = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = str(muted(said.model, folder) if said.mute else said.model)
        if said.what == "turns":
            marks = folder / "marks"
            marks.touch()
            with served(model, {MARKS: str(marks)}) as (url, _):
                there, back = zip(*turns(url, model, marks), strict=True)
            for title, each in (("until the engine has a request", there), ("from its output to the client", back)):
                spread = f"({min(each):.1f} to {max(each):.1f}, {len(each)} requests)"
                print(f"{title}: {statistics.mean(each):.1f} turns {spread}")
        else:
            with served(model, {}) as (url, pid):
                asked(url, model, 0)
                for n_prompt in PROMPT_TOKENS:
                    print(
                        f"{n_prompt} prompt tokens: {token_cost_us(url, model, pid, n_prompt):.0f} us a token",
                        flush=True,
                    )


if __name__ == "__main__":
    if sys.argv[1:2] == [SERVE]:
        serve(sys.argv[2:])
    else:
        main()
