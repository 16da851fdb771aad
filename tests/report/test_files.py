"""The files a person takes away: they parse, they run, no name breaks them, and they say where they come from."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from advisor.domain.deployment import Deployment
from advisor.domain.errors import BadInput
from advisor.domain.serving_config import ServingConfig
from advisor.domain.strict import changed
from advisor.domain.workload import parse_workload
from advisor.engines.trtllm.benchmark import benchmark_argv
from advisor.engines.trtllm.command import to_argv, to_yaml
from advisor.engines.trtllm.dialects import default_config, dialect
from advisor.engines.trtllm.spoken import TrtllmDialect, trtllm_dialect
from advisor.engines.words import as_mapping
from advisor.report.files import (
    Story,
    benchmark_sh,
    config_text,
    lookup_row,
    merge_lookup,
    origins,
    serve_sh,
)
from tests.engines.trtllm.builders import DATA, GUIDE, MAVERICK, RELEASES, configs, deployments, sayable

WORKLOAD = parse_workload("4k1k_c1024")
STORY = Story(
    source="simulated",
    label="simulated by the twin",
    study="llama4-maverick-fp8-b200",
    workload=WORKLOAD.name,
    model=MAVERICK.model,
    engine_version="1.2.0",
    date="2026-01-31",
    confidence="candidate, not re-measured",
)
SEARCHED = ("max_batch_size", "max_num_tokens", "cuda_graph_max_batch_size", "kv_cache_free_gpu_memory_fraction")
TEXT = st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from(" \n\r\t\"'`$\\#:-{}[]&*!|>%@,\x85\u2028")))
HOSTILE = TEXT.filter(lambda text: text and "\0" not in text and not text.startswith("-"))


def _recorded(folder: Path, name: str) -> str:
    return (folder / name).read_text(encoding="utf-8")


def rendered(release: str, deployment: Deployment, asked: ServingConfig) -> str:
    spoken = trtllm_dialect(release)
    return config_text(STORY, spoken, deployment, asked, 5120, origins(SEARCHED, 24, default_config(spoken.row)))


@pytest.mark.parametrize("release", RELEASES)
def test_files_of_the_guides_configuration_are_as_recorded(release: str) -> None:
    """A change here is a change for everybody who serves from these files: read the difference, then record it."""
    spoken, folder = trtllm_dialect(release), DATA / release
    told = STORY.model_copy(update={"engine_version": release})
    default = default_config(spoken.row)
    text = config_text(told, spoken, MAVERICK, GUIDE, 5120, origins(SEARCHED, 24, default))
    assert text == _recorded(folder, spoken.config_name)
    assert serve_sh(told, spoken, MAVERICK, GUIDE, 5120) == _recorded(folder, "serve.sh")
    assert benchmark_sh(told, spoken, MAVERICK, WORKLOAD) == _recorded(folder, "benchmark.sh")


@given(release=st.sampled_from(RELEASES), deployment=deployments, asked=configs)
def test_yaml_parses_to_exactly_what_the_dialect_says(
    release: str, deployment: Deployment, asked: ServingConfig
) -> None:
    deployment, asked = sayable(release, deployment, asked)
    expected = as_mapping(to_yaml(dialect(release), deployment, asked, 5120))
    assert yaml.safe_load(rendered(release, deployment, asked)) == expected


@given(value=TEXT, name=TEXT, story=TEXT)
@example(value="a\nb\x85- c\u2028", name="x\n- y: 1", story="s\n# t\rmax_batch_size: 1")
def test_no_text_breaks_the_yaml_or_leaves_its_comment(value: str, name: str, story: str) -> None:
    spoken = dialect("1.2.0")
    asked = changed(GUIDE, options={"attn_backend": value})
    told = STORY.model_copy(update={"model": name, "label": story, "study": name})
    text = config_text(told, TrtllmDialect(spoken), MAVERICK, asked, 5120, {"stream_interval": story})
    assert yaml.safe_load(text.encode("utf-8")) == as_mapping(to_yaml(spoken, MAVERICK, asked, 5120))
    other = changed(GUIDE, options={"attn_backend": "TRTLLM"})
    plain = config_text(STORY, TrtllmDialect(spoken), MAVERICK, other, 5120, {})
    assert len(text.splitlines()) == len(plain.splitlines())


def test_every_value_says_where_it_came_from() -> None:
    body = [line for line in rendered("1.2.0", MAVERICK, GUIDE).splitlines() if line and not line.startswith("#")]
    values = [line for line in body if not line.endswith(":")]
    assert all("  # " in line for line in values)
    (batch,) = [line for line in values if line.startswith("max_batch_size")]
    assert batch.split("# ")[1] == "searched: best of 24 launches; engine default 2048"
    (interval,) = [line for line in values if line.startswith("stream_interval")]
    assert interval.split("# ")[1] == "fixed by the study"


def test_simulated_files_say_so_and_measured_ones_do_not() -> None:
    measured = STORY.model_copy(update={"source": "measured", "label": "measured on 8 x B200"})
    for told, simulated in ((STORY, True), (measured, False)):
        for text in (
            config_text(told, trtllm_dialect("1.2.0"), MAVERICK, GUIDE, 5120, {}),
            serve_sh(told, trtllm_dialect("1.2.0"), MAVERICK, GUIDE, 5120),
            benchmark_sh(told, trtllm_dialect("1.2.0"), MAVERICK, WORKLOAD),
        ):
            assert ("simulated" in text) == simulated
            assert ("No GPU was used" in text) == simulated
            assert ("measured on 8 x B200" in text) != simulated


def test_1_0_0_says_that_the_sizes_stand_on_the_command_line() -> None:
    assert "ignores max_batch_size" in rendered("1.0.0", MAVERICK, GUIDE)
    assert "ignores" not in rendered("1.1.0", MAVERICK, GUIDE)


# --- scripts, run by a real bash ------------------------------------------------------------------------------------

RECORDER = f"""#!{sys.executable}
import json, os, sys
with open(os.environ["RECORD"], "w", encoding="utf-8", errors="surrogateescape") as file:
    json.dump([os.path.basename(sys.argv[0]), *sys.argv[1:]], file)
"""


def run_script(folder: Path, script: str, program: str, *arguments: str, **environment: str) -> list[str]:
    """The words that `program` got when the script ran with it first in PATH."""
    tools = folder / "tools"
    tools.mkdir(parents=True, exist_ok=True)
    (tools / program).write_text(RECORDER)
    (tools / program).chmod(0o755)
    path = folder / "run.sh"
    path.write_text(script, encoding="utf-8")
    record = folder / "record.json"
    env = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "RECORD": str(record), **environment}
    subprocess.run(["bash", "-n", str(path)], check=True)
    subprocess.run(["bash", str(path), *arguments], check=True, env=env, cwd="/")
    words: list[str] = json.loads(record.read_text(encoding="utf-8"))
    return words


@pytest.mark.parametrize("release", RELEASES)
def test_serve_sh_runs_the_dialects_command_wherever_it_lies(release: str, tmp_path: Path) -> None:
    spoken, folder = dialect(release), tmp_path / "moved 'here' $HOME"
    got = run_script(folder, serve_sh(STORY, TrtllmDialect(spoken), MAVERICK, GUIDE, 5120), "trtllm-serve")
    path = str(folder / TrtllmDialect.config_name)
    assert got == list(to_argv(spoken, MAVERICK, GUIDE, 5120, host="127.0.0.1", port=8000, config_path=path))


def test_serve_sh_takes_address_and_further_flags_from_outside(tmp_path: Path) -> None:
    script = serve_sh(STORY, trtllm_dialect("1.2.0"), MAVERICK, GUIDE, 5120)
    got = run_script(tmp_path, script, "trtllm-serve", "--log_level", "debug", HOST="0.0.0.0", PORT="9000")
    assert got[got.index("--host") + 1] == "0.0.0.0"
    assert got[got.index("--port") + 1] == "9000"
    assert got[-2:] == ["--log_level", "debug"]


@given(model=HOSTILE)
def test_no_model_name_breaks_the_commands(model: str) -> None:
    deployment = changed(MAVERICK, model=model)
    told = STORY.model_copy(update={"model": model})
    for program, script, argv in (
        (
            "trtllm-serve",
            serve_sh(told, trtllm_dialect("1.2.0"), deployment, GUIDE, 5120),
            to_argv(
                dialect("1.2.0"),
                deployment,
                GUIDE,
                5120,
                host="$HOST",
                port="$PORT",
                config_path=f"$here/{TrtllmDialect.config_name}",
            ),
        ),
        (
            "python -m",
            benchmark_sh(told, trtllm_dialect("1.2.0"), deployment, WORKLOAD),
            benchmark_argv(
                deployment,
                WORKLOAD,
                host="$HOST",
                port="$PORT",
                seed="$SEED",
                result_dir="$here",
                result_filename="benchmark_serving.json",
            ),
        ),
    ):
        body = script.partition("set -euo pipefail\n")[2]
        command = body[body.index(program) : body.rindex('"$@"')]
        words = [word for word in shlex.split(command) if word != "\n"]  # shlex keeps what bash drops at a line's end
        assert words == [word for word in argv if word != "\n"]


@pytest.mark.parametrize(
    "model", ["a b", "$(touch hacked)", "`touch hacked`", "x'; touch hacked; '", 'q"uote', "new\nline", "é#"]
)
def test_hostile_names_reach_the_server_as_they_are(model: str, tmp_path: Path) -> None:
    deployment = changed(MAVERICK, model=model)
    told = STORY.model_copy(update={"model": model, "study": model, "label": model})
    got = run_script(tmp_path, serve_sh(told, trtllm_dialect("1.2.0"), deployment, GUIDE, 5120), "trtllm-serve")
    assert got[1] == model
    assert not list(tmp_path.glob("**/hacked"))


def benchmark_ending(folder: Path, result: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """Run benchmark.sh with a client that leaves `result`; the check at its end is run by a real Python."""
    workload = changed(WORKLOAD, n_requests=10)
    (folder / "benchmark.sh").write_text(benchmark_sh(STORY, trtllm_dialect("1.2.0"), MAVERICK, workload))
    client = f"""#!{sys.executable}
import json, os, subprocess, sys
if sys.argv[1] == "-m":
    folder, name = (sys.argv[sys.argv.index(flag) + 1] for flag in ("--result-dir", "--result-filename"))
    json.dump({result!r}, open(os.path.join(folder, name), "w"))
else:
    sys.exit(subprocess.run([{sys.executable!r}, *sys.argv[1:]]).returncode)
"""
    (folder / "python").write_text(client)
    (folder / "python").chmod(0o755)
    env = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    return subprocess.run(["bash", str(folder / "benchmark.sh")], env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("completed", "tokens", "code", "words"),
    [
        (10, 10 * 1024, 0, "all 10 requests served; output 123.4 tok/s"),
        (7, 7 * 1024, 1, "3 of 10 requests failed"),
        (10, 10 * 1024 - 5, 1, "10235 output tokens instead of 10240"),
    ],
)
def test_benchmark_sh_ends_with_an_error_where_the_client_would_not(
    completed: int, tokens: int, code: int, words: str, tmp_path: Path
) -> None:
    result = {"completed": completed, "total_output_tokens": tokens, "output_throughput": 123.4}
    ended = benchmark_ending(tmp_path, result)
    assert ended.returncode == code
    assert words in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr


def test_bash_is_here() -> None:
    assert shutil.which("bash")


# --- lookup.yaml ----------------------------------------------------------------------------------------------------

UPSTREAM_FIELDS = {
    "model": str,
    "arch": str,
    "gpu": str,
    "isl": int,
    "osl": int,
    "concurrency": int,
    "config_path": str,
    "num_gpus": int,
}


def row(**changes: Any) -> dict[str, Any]:
    made = lookup_row(MAVERICK, WORKLOAD, "Llama4ForConditionalGeneration", "run/4k1k_c1024/extra-llm-api-config.yml")
    assert made is not None
    return {**made, **changes}


def test_lookup_row_has_upstreams_fields_and_no_others() -> None:
    (read,) = yaml.safe_load(merge_lookup(None, row(), "simulated by the twin"))
    assert {name: type(value) for name, value in read.items()} == UPSTREAM_FIELDS
    assert read["gpu"] == "B200_NVL"
    assert (read["isl"], read["osl"], read["concurrency"], read["num_gpus"]) == (4096, 1024, 1024, 8)


def test_request_rate_has_no_place_in_the_lookup() -> None:
    assert lookup_row(MAVERICK, parse_workload("4k1k_r10"), "x", "y") is None


@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b # c", "x'  # y"]), st.sampled_from([128, 2048]), st.sampled_from([1, 64])),
        min_size=1,
        max_size=8,
    )
)
def test_merging_keeps_one_row_a_key_sorted_and_the_last_one_wins(keys: list[tuple[str, int, int]]) -> None:
    text: str | None = None
    for i, (model, isl, concurrency) in enumerate(keys):
        text = merge_lookup(
            text, row(model=model, isl=isl, concurrency=concurrency, config_path=f"run-{i}"), f"measured {i}"
        )
    assert text is not None
    rows = yaml.safe_load(text)
    found = [(entry["model"], entry["isl"], entry["concurrency"]) for entry in rows]
    assert found == sorted(set(keys))
    assert {tuple(key): f"run-{i}" for i, key in enumerate(keys)} == {
        key: entry["config_path"] for key, entry in zip(found, rows, strict=True)
    }
    assert merge_lookup(text, rows[0], f"measured {rows[0]['config_path'][4:]}") == text


def test_simulated_row_never_takes_a_measured_ones_place() -> None:
    measured = merge_lookup(None, row(config_path="real"), "measured on 8 x B200")
    assert merge_lookup(measured, row(config_path="twin"), "simulated by the twin") == measured
    simulated = merge_lookup(None, row(config_path="twin"), "simulated by the twin")
    assert "real" in merge_lookup(simulated, row(config_path="real"), "measured on 8 x B200")


@pytest.mark.parametrize("text", ["a: b", "- a: b", "- [", "[{model: x}]", "just words"])
def test_damaged_lookup_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match=r"lookup\.yaml"):
        merge_lookup(text, row(), "measured")
