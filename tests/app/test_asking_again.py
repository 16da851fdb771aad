"""The command that a report shows asks for the same run."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from advisor.app.asking_again import as_asked
from advisor.app.setup import Question
from advisor.app.tuning import How, open_session
from advisor.cli.app import app
from advisor.report.plan_view import plan_document

MAVERICK = "nvidia/Llama-4-Maverick-17B-128E-Instruct-FP8"


@pytest.mark.parametrize(
    ("question", "how"),
    [
        (Question(isl="1024", osl="8192"), How(engine="twin")),
        (
            Question(study="llama3.3-70b-fp8-h200", tp=8, slo="ttft:p95<2s", max_hours=2.5, gpu_hours=30.0),
            How(engine="twin", twin_world=3, sampler="random", seed=7, baselines=("trtllm-bench",)),
        ),
        (
            Question(
                model=MAVERICK, attention_dp=False, workloads=("3000to4096-700_r2.5",), search_space="low_latency"
            ),
            How(engine="twin"),
        ),
        (
            Question(model="meta-llama/Llama-3.1-8B-Instruct", gpu="h200_sxm", engine_version="1.1.0"),
            How(engine="twin"),
        ),
        (
            Question(workloads=("1k1k_c64", "4k1k_c64"), objective="tpot:mean", max_launches=9),
            How(engine="twin", verifiable=True),
        ),
    ],
)
def test_the_command_shown_asks_for_the_same_run(question: Question, how: How) -> None:
    """The command line itself takes the command that the report shows back to the same plan, and names its defaults."""
    session = open_session(question, how)
    argv = as_asked(session.context, session.resolved.study).command
    answer = CliRunner().invoke(app, [*argv[1:], "--dry-run", "--output", "json"])
    assert answer.exit_code == 0, answer.output
    assert f"--sampler {how.sampler} --seed {how.seed}" in " ".join(argv)
    again, asked = json.loads(answer.stdout), plan_document(session).model_dump(mode="json")
    named = set(asked.pop("defaults")) - set(again.pop("defaults"))
    assert all("(--" in default for default in named)
    assert again == asked
