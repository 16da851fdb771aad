"""How many turns of its event loop vLLM's HTTP process takes to pass a request on, and to send what comes back.

    .engine/venv/bin/python tools/http_turns.py .engine/tiny     # any vLLM's Python, and a model's folder

A server is started whose loop is slow: one callback sleeps in every turn and asks to be called in the next. What waits
for turns then takes their number times as long, and the work between them nothing beside it. Requests of one token are
sent one after another. Written for vLLM 0.24 to 0.32 (`AsyncMPClient`); needs nothing of advisor.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import importlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

TURN_S = 0.05
N_REQUESTS = 5
HEALTHY_WITHIN_S = 600.0
VARIABLES = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
MARKS = "HTTP_TURNS_MARKS"
TO_ENGINE, FROM_ENGINE = "add_request_async", "get_output_async"


def serve(words: list[str]) -> None:
    """vLLM's own command line in this process, with a loop that is slow from the first request on."""
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
    sys.argv = ["vllm", "serve", *words]
    importlib.import_module("vllm.entrypoints.cli.main").main()


def asked(url: str, model: str, seed: int) -> tuple[float, float]:
    """When a request was sent, and when its first token came."""
    prompt = [5 + (seed * 31 + place * 7) % 200 for place in range(64)]
    body = {"model": model, "prompt": prompt, "max_tokens": 1, "stream": True, "ignore_eos": True, "temperature": 0}
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


def main() -> None:
    """Start the slow server, ask it, and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a folder with config.json and a tokenizer")
    said = parser.parse_args()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [said.model, "--load-format", "dummy", "--max-model-len", "2048", "--enforce-eager"]
    words += ["--host", "127.0.0.1", "--port", str(port), "--disable-uvicorn-access-log"]
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as log:
        marks = Path(folder) / "marks"
        marks.touch()
        server = subprocess.Popen(
            [sys.executable, __file__, "serve", *words],
            env={**VARIABLES, **os.environ, MARKS: str(marks)},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            if not healthy(url, server):
                log.seek(0)
                sys.exit(log.read()[-4000:].decode(errors="replace") + f"\nNot healthy; exit code {server.poll()}.")
            found = turns(url, said.model, marks)
        finally:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
    for what, each in zip(
        ("until the engine has a request", "from its output to the client"), zip(*found, strict=True), strict=True
    ):
        print(f"{what}: {statistics.mean(each):.1f} turns ({min(each):.1f} to {max(each):.1f}, {len(each)} requests)")


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(sys.argv[2:])
    else:
        main()
