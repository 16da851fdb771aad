"""The comparison with `vllm bench serve`: prompts cut by a server's own tokenizer, ratios, and what they are called."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.domain.workload import Workload
from advisor.metrics.confidence import Interval
from tools.referee_check import (
    OURS,
    REFEREE,
    Result,
    Server,
    main,
    means_ms,
    ratios,
    referee_argv,
    server_figures,
    summary,
    verdict,
)

BEGIN = 0  # the special token before every text
PAGE = """# HELP vllm:time_to_first_token_seconds Histogram of time to first token in seconds.
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.001",model_name="served"} 0.0
vllm:time_to_first_token_seconds_count{engine="0",model_name="served"} 12.0
vllm:time_to_first_token_seconds_sum{engine="0",model_name="served"} 1.5
vllm:time_to_first_token_seconds_count{engine="1",model_name="served"} 4.0
vllm:time_to_first_token_seconds_sum{engine="1",model_name="served"} 0.5
"""


def tokens(text: str) -> list[int]:
    """Pairs of characters, so that what was cut between two tokens may begin another pair."""
    return [int.from_bytes(text[place : place + 2].encode(), "big") for place in range(0, len(text), 2)]


class Answers(BaseHTTPRequestHandler):
    """The routes of vLLM that concern texts."""

    def do_GET(self) -> None:
        if self.path == "/metrics":
            self._send(PAGE.encode())
        else:
            self._answer({"data": [{"id": "served", "root": "/models/served"}]})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/tokenize":
            special = [BEGIN] if asked["add_special_tokens"] else []
            self._answer({"tokens": [*special, *tokens(asked["prompt"])]})
        else:
            self._answer({"prompt": "".join(each.to_bytes(2, "big").decode().strip("\0") for each in asked["tokens"])})

    def _answer(self, body: dict[str, Any]) -> None:
        self._send(json.dumps(body).encode())

    def _send(self, data: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    listener = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    yield Server.at(f"http://127.0.0.1:{listener.server_port}")
    listener.shutdown()
    listener.server_close()


def test_a_server_names_its_model(server: Server) -> None:
    assert (server.name, server.root) == ("served", "/models/served")


@pytest.mark.parametrize("isl", [2, 17, 1024])
def test_prompts_have_the_length_that_the_server_counts_and_differ(server: Server, isl: int) -> None:
    rng = random.Random(1)
    first, second = server.prompt(rng, isl), server.prompt(rng, isl)
    assert first.ids == (BEGIN, *tokens(first.text))
    assert len(first.ids) == len(second.ids) == isl
    assert first.text != second.text


def test_latencies_are_added_up_over_the_engines_of_a_server(server: Server) -> None:
    assert server.counts() == {"TTFT ms": (2.0, 16.0), "TPOT ms": (0.0, 0.0), "E2E ms": (0.0, 0.0)}


def test_the_servers_mean_is_of_what_it_counted_between_two_readings() -> None:
    before, after = {"TTFT ms": (2.0, 16.0), "TPOT ms": (0.0, 0.0)}, {"TTFT ms": (2.5, 20.0), "TPOT ms": (0.0, 0.0)}
    means = means_ms(before, after)
    assert means["TTFT ms"] == 125.0
    assert math.isnan(means["TPOT ms"])


PAIR = Workload(isl=1, osl=10, concurrency=2, n_requests=2)
positive = st.floats(0.1, 1e4)
figures = st.tuples(positive, positive, positive)


@given(rounds=st.lists(figures, min_size=2, max_size=8), factors=figures)
def test_a_constant_factor_is_the_ratio_whatever_the_rounds_are(
    rounds: list[tuple[float, float, float]], factors: tuple[float, float, float]
) -> None:
    """Drift of the server is common to both sides of a round."""
    below = [Result(each, {}) for each in rounds]
    above = [Result((a * factors[0], b * factors[1], c * factors[2]), {}) for a, b, c in rounds]
    for interval, factor in zip(ratios(above, below).values(), factors, strict=True):
        assert math.isclose(interval.estimate, factor, rel_tol=1e-9)
        assert interval.high - interval.low < 1e-6 * factor


def test_each_client_is_set_against_the_server_of_its_own_run() -> None:
    """A server that slows down by half between two runs says nothing about either client."""
    slow, fast = (server_figures({"TTFT ms": ms, "TPOT ms": math.nan, "E2E ms": 100 * ms}, PAIR) for ms in (30.0, 20.0))
    assert (slow["tok/s"], fast["tok/s"]) == pytest.approx((20 / 3, 10.0))  # two in flight, ten tokens in 3 s or in 2 s
    ours = [Result((20 / 3, 33.0, 5.0), slow), Result((10.0, 22.0, 5.0), fast)]
    referee = [Result((9.9, 23.0, 5.0), fast), Result((6.6, 34.5, 5.0), slow)]
    lines = list(summary({OURS: ours, REFEREE: referee}))
    assert lines[-8:] == [
        "referee over what the server counted",
        "  tok/s    0.990  0.990 to 0.990",
        "  TTFT ms  1.150  1.150 to 1.150",
        "  TPOT ms  not counted",
        "referee over ours, each over what the server counted",
        "  tok/s    0.990  0.990 to 0.990  within 2%",
        "  TTFT ms  1.045  1.045 to 1.045  beyond 2%",
        "  TPOT ms  not counted",
    ]


@pytest.mark.parametrize(
    ("low", "high", "begins"),
    [
        (0.981, 1.019, "within 2%"),
        (1.021, 1.03, "beyond 2%"),
        (0.9, 0.979, "beyond 2%"),
        (0.99, 1.021, "not told from 2%"),
        (0.97, 1.03, "not told from 2%"),
    ],
)
def test_only_a_whole_interval_decides(low: float, high: float, begins: str) -> None:
    assert verdict(Interval(estimate=(low + high) / 2, low=low, high=high, level=0.95)).startswith(begins)


def test_the_referee_is_asked_for_the_same_greedy_requests(tmp_path: Path) -> None:
    server = Server("http://h:1", "served", "/models/served")
    workload = Workload(isl=100, osl=20, concurrency=2, n_requests=16)
    argv = referee_argv(server, workload, "/tokenizer", ("--dataset-name", "sharegpt"), 0, tmp_path / "r.json")
    said = dict(pairwise(argv))
    assert (said["--model"], said["--tokenizer"], said["--base-url"]) == ("served", "/tokenizer", "http://h:1")
    assert (said["--num-prompts"], said["--max-concurrency"], said["--temperature"]) == ("16", "2", "0")
    assert said["--ready-check-timeout-sec"] == "0"  # its first prompt sent twice would be found in the cache
    assert said["--result-filename"] == "r.json"
    assert "--temperature" not in referee_argv(server, workload, "/tokenizer", (), None, tmp_path / "r.json")


def test_a_comparison_that_is_asked_to_end_leaves_no_referee(tmp_path: Path) -> None:
    pid, said = tmp_path / "pid", tmp_path / "said"
    referee = f"import os, pathlib, time; pathlib.Path({str(pid)!r}).write_text(str(os.getpid())); time.sleep(60)"
    program = (
        "import signal, sys\n"
        "from advisor.load.referee import RefereeCall, run_to_file\n"
        "from tools.referee_check import leave\n"
        "signal.signal(signal.SIGTERM, leave)\n"
        f"run_to_file(RefereeCall(argv=(sys.executable, '-c', {referee!r}), cwd='.', env={{}}, result_path='r.json', "
        f"output_path={str(said)!r}, timeout_s=60.0))\n"
    )
    ours = subprocess.Popen([sys.executable, "-c", program])
    until_s = time.monotonic() + 30
    while not (pid.exists() and pid.read_text()) and time.monotonic() < until_s:
        time.sleep(0.05)
    assert pid.exists()
    ours.terminate()
    assert ours.wait(30) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


@pytest.mark.parametrize(
    ("asked", "says"),
    [(["--isl", "1025"], "1024"), (["--isl", "1000", "--osl", "1049"], "2048"), (["--rounds", "1"], "2")],
)
def test_what_cannot_be_compared_is_refused_before_anything_is_sent(asked: list[str], says: str) -> None:
    with pytest.raises(SystemExit, match=says):
        main(["http://127.0.0.1:9", *asked])
