"""`advisor tune --engine vllm` against a real vLLM: measured, killed, resumed, confirmed, and nothing left behind."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.engine_real.rig import left_after, living, outcomes, run_folder, tune

pytestmark = pytest.mark.engine

TOO_SMALL = """\
max-num-seqs: 4
max-num-batched-tokens: 256
enforce-eager: true
kv-cache-memory-bytes: 65536
"""


def test_a_study_killed_in_the_middle_goes_on_and_confirms_its_winner(workplace: Path) -> None:
    """Six launches at most: default, a file whose KV cache holds no request, the search, winner and default again."""
    (workplace / "small.yaml").write_text(TOO_SMALL)
    first = tune(workplace, "--baseline", "small.yaml")
    while len(list(outcomes(workplace))) < 2:  # a third server is being launched, or soon will be
        assert first.poll() is None, first.communicate()[0]
        time.sleep(0.2)
    done_before = list(outcomes(workplace))
    first.kill()
    first.communicate()
    assert left_after(workplace, patience_s=30.0) == {}, "a killed advisor leaves no server"

    again = tune(workplace, "--baseline", "small.yaml", "--resume", "--hold-next", "--output", "json")
    said, _ = again.communicate()
    assert again.returncode == 0, said
    records = list(outcomes(workplace))
    assert records[:2] == done_before, "what was measured is not measured again"
    assert 5 <= len(records) <= 6

    default, small = records[:2]
    assert default["outcome"]["kind"] == "measured"
    assert default["config"]["max_batch_size"] == 128, "vLLM's own default on a CPU"
    assert default["engine_label"].startswith("measured on CPU")
    assert small["outcome"]["kind"] == "out_of_memory"
    assert (small["outcome"]["phase"], small["outcome"]["component"]) == ("kv_allocate", "KV cache")
    assert small["workloads"] == []
    served = [record for record in records if record["number"] != small["number"]]
    assert {record["outcome"]["kind"] for record in served} <= {"measured", "hopeless"}, "a hopeless one stopped early"
    for record in (record for record in served if record["outcome"]["kind"] == "measured"):
        assert record["effective"]["max_num_tokens"] == record["config"]["max_num_tokens"]
        (outcome,) = record["workloads"]
        assert outcome["n_short"] == 0
        assert outcome["metrics"]["n_requests"] == 64
    assert {record["role"] for record in records[-2:]} == {"confirmation"}
    assert any(phase["held"] for record in records[3:] for phase in record["phases"]), "imported beforehand"

    summary = json.loads((run_folder(workplace) / "summary.json").read_text())
    (result,) = summary["results"]
    assert result["best"]["memory_fraction_kind"] == "of_total"
    assert result["source"] == "measured"
    assert summary["counts"]["oom"] == 1
    files = run_folder(workplace) / "64-32_c8"
    assert "measured on CPU" in (files / "vllm-config.yaml").read_text()
    assert living(workplace) == {}
