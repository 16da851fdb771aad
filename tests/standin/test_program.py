"""The stand-in as a program: a start per release, its end by signal and by death, mistakes, the port."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from advisor.app.doctoring import diagnose_lines
from tests.standin.equipment import StandIn
from tests.standin.fixtures import MakeStandIn
from tests.standin.program import BANNER
from tests.standin.releases import RELEASES
from tests.standin.running import PATIENCE_S, Running, free_port

EVERY = pytest.mark.parametrize("release", RELEASES)
CHUNK = (
    'data: {"id":"cmpl-#","object":"text_completion","created":@,"model":"m","choices":[{"index":0,"text":"%s",'
    '"token_ids":null,"logprobs":null,"finish_reason":%s,"stop_reason":null%s}],"usage":null}\n\n'
)
USAGE = (
    'data: {"id":"chatcmpl-#","object":"chat.completion.chunk","created":@,"model":"m","choices":[],"usage":'
    '{"prompt_tokens":40,"total_tokens":43,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":0}}}\n\n'
)


@EVERY
def test_every_release_starts_streams_and_stops(release: str, make_standin: MakeStandIn) -> None:
    standin, row = make_standin(release), RELEASES[release]
    with Running(standin, "--max_seq_len", "4096", "--max_batch_size", "8") as server:
        server.ready()
        status, body = server.complete(40, 3, stream=True, stream_options={"include_usage": True})
        assert status == 200
        more = ',"avg_decoded_tokens_per_iter":1.0' if row.tells_decoding else ""
        plain, last = CHUNK % (" token", "null", more), CHUNK % (" token", '"length"', more)
        masked = re.sub(r"-[0-9a-f]{32}", "-#", re.sub(r'"created":\d+', '"created":@', body.decode()))
        assert masked == plain * 2 + last + USAGE + "data: [DONE]\n\n"
        assert server.ask("GET", "/health") == (200, b"")
        assert server.ask("GET", "/version")[1] == f'{{"version":"{row.version}"}}'.encode()
        assert standin.held_gib()[0] > 70.0
        (launch,) = standin.launches()
        assert launch["pid"] == server.process.pid
        assert set(standin.gpus.holders(0)) == {str(pid) for pid in launch["worker_pids"]}
        assert server.stop() == -signal.SIGTERM
        assert re.search(r'INFO:     127\.0\.0\.1:\d+ - "POST /v1/completions HTTP/1\.1" 200 OK\n', server.text)
        assert server.text.startswith(BANNER)
        found = diagnose_lines(server.lines)
    assert (found.verdict, found.engine_version) == ("benign", row.version)
    assert standin.held_gib() == [0.0]
    assert standin.launches()[0]["outcome"] == "stopped by SIGTERM"
    assert standin.launches()[0]["settings"]["max_batch_size"] == 8


@pytest.mark.parametrize("release", ["1.1.0", "1.2.0"])
def test_a_port_that_is_taken_is_found_when_the_release_binds(release: str, make_standin: MakeStandIn) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with Running(make_standin(release), port=port) as server:
            assert server.exit_code() == 1
            loaded = "Model init total" in server.text
            assert loaded == (not RELEASES[release].binds_first)
            found = diagnose_lines(server.lines)
            assert (found.verdict, found.component) == ("port", f"port {port}")


def test_mistakes_end_a_launch_before_any_gpu_work(standin: StandIn, tmp_path: Path) -> None:
    config = tmp_path / "extra.yml"
    config.write_text("cuda_graph_config:\n  padding_enabled: true\n", encoding="utf-8")
    with Running(standin, "--kv_cache_free_gpu_mem_fraction", "0.9") as server:
        assert server.exit_code() == 2
        assert "Error: No such option: --kv_cache_free_gpu_mem_fraction" in server.text
    with Running(standin, "--extra_llm_api_options", str(config)) as server:
        assert server.exit_code() == 1
        assert diagnose_lines(server.lines).verdict == "config"
    assert [launch["outcome"] for launch in standin.launches()] == ["usage error", "refused"]
    assert "worker_pids" not in standin.launches()[1]


def test_the_old_releases_take_the_engine_path_unless_told(make_standin: MakeStandIn) -> None:
    standin = make_standin("0.21.0")
    argv = [word for word in standin.argv(port=free_port()) if word not in ("--backend", "pytorch")]
    done = subprocess.run(argv, env=standin.env(), capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 1
    assert "Failed to infer model format because no config.json exists" in done.stdout


def test_help_says_what_it_is(standin: StandIn) -> None:
    argv = [str(standin.bin / "trtllm-serve"), "--help"]
    done = subprocess.run(argv, env=standin.env(), capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    assert "TEST EQUIPMENT" in done.stdout
    assert "--extra_llm_api_options" in done.stdout


def test_workers_end_with_a_parent_that_is_killed(make_standin: MakeStandIn) -> None:
    standin = make_standin("1.1.0", n_gpus=2)
    with Running(standin, "--tp_size", "2", "--max_batch_size", "4") as server:
        server.ready()
        assert "[TRT-LLM] [RANK 1] [I] Use " in server.text
        workers = standin.launches()[0]["worker_pids"]
        assert len(workers) == 2
        assert server.stop(signal.SIGKILL) == -signal.SIGKILL  # and its output ends, which the workers held open
    assert "outcome" not in standin.launches()[0]


def test_a_worker_that_is_killed_takes_the_server_with_it(standin: StandIn) -> None:
    with Running(standin) as server:
        server.ready()
        os.kill(standin.launches()[0]["worker_pids"][0], signal.SIGKILL)
        assert server.exit_code() == 1
        assert "exited on signal 9" in server.text


def test_fewer_gpus_than_ranks_and_none_at_all(standin: StandIn) -> None:
    with Running(standin, "--tp_size", "2") as server:
        assert server.exit_code() == 1
        assert "RuntimeError: Only 1 GPUs are available, but 2 are required." in server.text
    with Running(standin, CUDA_VISIBLE_DEVICES="") as server:
        assert server.exit_code() == 1
        assert "No GPU devices found on the node" in server.text
