"""`verify.sh` against a real process on a real socket: it waits, benchmarks twice, compares, and cleans up."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from advisor.domain.deployment import Deployment
from advisor.domain.serving_config import ServingConfig
from advisor.domain.strict import parse
from advisor.domain.workload import parse_workload
from advisor.engines.trtllm.spoken import trtllm_dialect
from advisor.report.files import Story, benchmark_sh, serve_sh, verify_sh

pytestmark = pytest.mark.system

LLAMA = parse(
    Deployment,
    {"model": "meta-llama/Llama-3.1-8B-Instruct", "quantization": "bf16", "gpu": "h100_sxm", "gpus": 1, "tp": 1},
    "test",
)
CONFIG = ServingConfig(
    max_batch_size=64, max_num_tokens=8192, cuda_graph_max_batch_size=64, kv_cache_free_gpu_memory_fraction=0.9
)
WORKLOAD = parse_workload("1k1k_c2")
STORY = Story(
    source="simulated", label="simulated by the twin", study="s", workload=WORKLOAD.name, model=LLAMA.model,
    engine_version="1.2.0", date="2026-11-25", confidence="candidate",
)  # fmt: skip

# Stands in for trtllm-serve: answers completions on the port it is given, after a while.
SERVER = """#!{python}
import http.server, os, sys, time
open(os.environ["PIDS"], "a").write(f"{{os.getpid()}}\\n")
if os.environ.get("DIES"): sys.exit(3)
port = int(sys.argv[sys.argv.index("--port") + 1])
class Answer(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200); self.end_headers(); self.wfile.write(b"{{}}")
    def log_message(self, *args): pass
time.sleep(1)
http.server.HTTPServer(("127.0.0.1", port), Answer).serve_forever()
"""
# Stands in for `python -m tensorrt_llm.serve.scripts.benchmark_serving`; any other use is the real interpreter.
PYTHON = """#!{python}
import json, os, subprocess, sys
if "-m" in sys.argv:
    at = sys.argv.index
    path = os.path.join(sys.argv[at("--result-dir") + 1], sys.argv[at("--result-filename") + 1])
    open(os.environ["SEEDS"], "a").write(sys.argv[at("--seed") + 1] + "\\n")
    n = int(sys.argv[at("--num-prompts") + 1])
    json.dump({{"completed": n, "total_output_tokens": n * 1024, "output_throughput": 110.0}}, open(path, "w"))
else:
    sys.exit(subprocess.run([{python!r}, *sys.argv[1:]]).returncode)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    spoken = trtllm_dialect("1.2.0")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("trtllm-serve", SERVER), ("python", PYTHON)):
        (programs / name).write_text(text.format(python=sys.executable), encoding="utf-8")
        (programs / name).chmod(0o755)
    (tmp_path / spoken.config_name).write_text("{}", encoding="utf-8")
    (tmp_path / "serve.sh").write_text(serve_sh(STORY, spoken, LLAMA, CONFIG, 2048), encoding="utf-8")
    (tmp_path / "benchmark.sh").write_text(benchmark_sh(STORY, spoken, LLAMA, WORKLOAD), encoding="utf-8")
    (tmp_path / "verify.sh").write_text(verify_sh(STORY, LLAMA, WORKLOAD, 100.0), encoding="utf-8")
    return tmp_path


def verify(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {
        **os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "PORT": str(port),
        "PIDS": str(folder / "pids"), "SEEDS": str(folder / "seeds"), **environment,
    }  # fmt: skip
    return subprocess.run(
        ["bash", str(folder / "verify.sh")], env=env, capture_output=True, text=True, check=False, timeout=60
    )


def gone(pid: int) -> bool:
    for _ in range(50):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def test_it_compares_the_second_benchmark_with_what_was_said_and_leaves_no_process(folder: Path) -> None:
    done = verify(folder)
    assert done.returncode == 0, done.stderr
    assert "measured 110 output tok/s; simulated 100: +10.0 %" in done.stdout
    assert (folder / "seeds").read_text(encoding="utf-8").split() == ["0", "1"]
    assert json.loads((folder / "benchmark_serving.json").read_text(encoding="utf-8"))["completed"] == 16
    assert gone(int((folder / "pids").read_text(encoding="utf-8")))


def test_a_server_that_dies_is_said_and_not_waited_for(folder: Path) -> None:
    done = verify(folder, DIES="1")
    assert done.returncode == 5
    assert "the server ended before it answered" in done.stderr
    assert not (folder / "seeds").exists()
