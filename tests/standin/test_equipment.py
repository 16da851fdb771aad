"""The programs beside the server: upstream's benchmark and package, the download program; and time against the twin."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from advisor.domain.serving_config import ServingConfig
from advisor.domain.workload import Workload
from advisor.engines.trtllm.upstream import UpstreamJudge
from advisor.store import catalog
from advisor.twin.predict import Twin
from advisor.twin.worlds import draw_world
from tests.standin.command_line import parse
from tests.standin.equipment import MODEL, StandIn
from tests.standin.fixtures import MakeStandIn
from tests.standin.releases import RELEASES
from tests.standin.running import PATIENCE_S, Running
from tests.standin.settings import understand

MODULE = "tensorrt_llm.serve.scripts.benchmark_serving"


def run(standin: StandIn, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, env=standin.env(), capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def benchmark(standin: StandIn, server: Running, *options: str) -> subprocess.CompletedProcess[str]:
    """The guide's command, small."""
    return run(
        standin, "python", "-m", MODULE, "--model", MODEL, "--port", str(server.port), "--dataset-name", "random",
        "--random-ids", "--ignore-eos", "--num-prompts", "12", "--max-concurrency", "4", "--random-input-len", "100",
        "--random-output-len", "8", "--percentile-metrics", "ttft,tpot,itl,e2el", "--save-result",
        "--result-dir", str(standin.folder), "--result-filename", "result.json", *options,
    )  # fmt: skip


def result(standin: StandIn) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((standin.folder / "result.json").read_text(encoding="utf-8"))
    return read


def test_the_benchmark_and_its_quirks(make_standin: MakeStandIn) -> None:
    cut = {"kind": "cut_streams", "every": 7, "after_events": 2}
    standin = make_standin("1.2.0", faults=[cut], speed=50.0)
    with Running(standin, "--max_seq_len", "150", "--max_batch_size", "8") as server:
        server.ready()
        done = benchmark(standin, server, "--tokenize-on-client", "--metadata", "note=test")
        assert done.returncode == 0, done.stderr
        assert "Namespace(" in done.stdout
        assert f"{'Successful requests:':<40} 12" in done.stdout, "a stream that was cut counts"
        found = result(standin)
        assert found["completed"] == found["num_prompts"] == 12
        assert found["total_input_tokens"] == 1200
        assert found["total_output_tokens"] == 11 * 8 + 2, "the cut one has as many tokens as it had events"
        assert found["request_goodput:"] is None
        assert found["note"] == "test"
        assert (found["request_rate"], found["max_concurrency"]) == ("inf", 4)
        assert found["mean_e2el_ms"] > found["mean_ttft_ms"] > 0
        assert "ttfts" not in found
        hopeless = ("--random-input-len", "200", "--tokenize-on-client")
        none = benchmark(standin, server, *hopeless, "--save-detailed", "--no-test-input")
        assert none.returncode == 0
        assert result(standin)["completed"] == 0
        assert result(standin)["mean_ttft_ms"] == 0.0, "superb"
        assert result(standin)["errors"] == ["Bad Request"] * 12
        refused = benchmark(standin, server, *hopeless)
        assert refused.returncode == 1
        assert "ValueError: Initial test run failed" in refused.stderr
        assert benchmark(standin, server, "--no-such-flag").returncode == 2
        server.stop()


def test_the_package_says_what_it_is_and_judges_by_the_schema(make_standin: MakeStandIn) -> None:
    program = (
        "import importlib.metadata, tensorrt_llm\n"
        "from tensorrt_llm.llmapi.llm_args import TorchLlmArgs\n"
        "assert importlib.metadata.version('tensorrt_llm') == tensorrt_llm.__version__\n"
        "TorchLlmArgs(model='m', cuda_graph_config={'enable_padding': True})\n"
        "TorchLlmArgs(model='m', cuda_graph_config={'padding_enabled': True})\n"
    )
    done = run(make_standin("1.0.0"), "python", "-c", program)
    assert done.stdout == "[TensorRT-LLM] TensorRT-LLM version: 1.0.0+standin\n"
    assert "cuda_graph_config.padding_enabled\n  Extra inputs are not permitted" in done.stderr
    old = run(make_standin("0.21.0"), "python", "-m", MODULE, "--model", "m")
    assert old.returncode == 1
    assert "ModuleNotFoundError" in old.stderr


def test_advisor_asks_the_package_for_its_judgement(make_standin: MakeStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in (make_standin("1.2.0").env()["PYTHONPATH"]).split(os.pathsep)[:2]:
        monkeypatch.syspath_prepend(folder)
    with UpstreamJudge() as judge:
        verdict = judge.verdict((), {"max_batch_size": 64, "cuda_graph_config": {"padding_enabled": True}})
    assert verdict.status == "refused"
    assert verdict.version == "1.2.0+standin"
    assert verdict.errors == ("cuda_graph_config.padding_enabled: Extra inputs are not permitted",)


def test_a_download_succeeds_fails_and_is_recorded(make_standin: MakeStandIn, tmp_path: Path) -> None:
    standin = make_standin(faults=[{"kind": "hf_gated", "launch": 1}, {"kind": "hf_disk_full", "launch": 2}])
    argv = ("hf", "download", MODEL, "--local-dir", str(tmp_path / "checkpoint"))
    gated, full, fine = (run(standin, *argv) for _ in range(3))
    assert [each.returncode for each in (gated, full, fine)] == [1, 1, 0]
    assert "Cannot access gated repo" in gated.stderr
    assert "No space left on device" in full.stderr
    assert fine.stdout.strip() == str(tmp_path / "checkpoint")
    assert catalog.model_facts(fine.stdout.strip()).layers == 32
    assert run(standin, "hf", "download", "no/such-model").returncode == 1
    outcomes = ["hf_gated", "hf_disk_full", "downloaded", "hf_not_found"]
    assert [download["outcome"] for download in standin.downloads()] == outcomes
    assert standin.launches() == []


SPEED = 4.0


def paced(make_standin: MakeStandIn, *options: str) -> tuple[float, float]:
    """Output tok/s of 24 requests of 64 + 24 tokens, 12 at a time, in twin time: as measured, and as the twin says."""
    standin = make_standin(speed=SPEED)
    with Running(standin, *options) as server:
        server.ready()
        done = benchmark(standin, server, "--tokenize-on-client", "--num-prompts", "24", "--max-concurrency", "12",
                         "--random-input-len", "64", "--random-output-len", "24")  # fmt: skip
        assert done.returncode == 0, done.stderr
        server.stop()
    s = understand(RELEASES["1.1.0"], parse("1.1.0", [MODEL, *options]), {})
    config = ServingConfig(
        max_batch_size=s.max_batch_size,
        max_num_tokens=s.max_num_tokens,
        cuda_graph_max_batch_size=128,
        kv_cache_free_gpu_memory_fraction=s.kv_fraction,
    )
    twin = Twin(catalog.model_facts(MODEL), catalog.step_tables, constants=draw_world(1))
    workload = Workload(isl=64, osl=24, concurrency=12)
    prediction = twin.predict(s.deployment("h100_sxm"), config, workload, n_requests=24)
    assert prediction.metrics is not None
    return float(result(standin)["output_throughput"]) / SPEED, prediction.metrics.output_tok_per_s


def test_throughput_changes_with_the_settings_as_the_twin_says(make_standin: MakeStandIn) -> None:
    """Never faster than the twin; how much slower is this machine's affair, so the lower bound is loose."""
    slow, slow_twin = paced(make_standin, "--max_batch_size", "1")
    fast, fast_twin = paced(make_standin, "--max_batch_size", "16")
    assert fast_twin / slow_twin > 6.0
    assert slow < slow_twin * 1.1
    assert fast < fast_twin * 1.1
    assert fast / slow > 2.0
