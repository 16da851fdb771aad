"""`advisor export` as people and scripts meet it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from advisor.cli.app import app
from advisor.domain.serving_config import FOUR_SETTINGS
from advisor.domain.strict import changed
from advisor.engines.trtllm.dialects import dialect
from advisor.engines.trtllm.read_config import config_from_yaml
from advisor.engines.vllm.read_config import config_from_yaml as config_of_vllm
from advisor.engines.vllm.releases import Release, releases
from advisor.store import catalog
from tests.engines.trtllm.builders import EVERY_RELEASE, GUIDE, MAVERICK
from tests.engines.trtllm.test_upstream import install

GUIDE_TEXT = """\
enable_attention_dp: true
stream_interval: 4
cuda_graph_config:
  max_batch_size: 1024
  padding_enabled: true
"""


def run(*argv: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["export", *argv])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def document(*argv: str) -> dict[str, Any]:
    code, out, err = run(*argv, "--output", "json")
    assert (code, err) == (0, "")
    found: dict[str, Any] = json.loads(out)
    return found


@pytest.fixture
def guide(tmp_path: Path) -> Path:
    path = tmp_path / "guide.yml"
    path.write_text(GUIDE_TEXT)
    return path


def test_yaml_is_on_stdout_and_what_happened_on_stderr(guide: Path) -> None:
    code, out, err = run(str(guide), "--engine-version", "1.2.0")
    assert code == 0
    assert yaml.safe_load(out) == {
        "enable_attention_dp": True,
        "stream_interval": 4,
        "cuda_graph_config": {"max_batch_size": 1024, "enable_padding": True},
    }
    assert "enable_padding: true     # renamed from cuda_graph_config.padding_enabled" in out
    assert "obeyed as it is by 1.0.0rc1." in err
    assert "cuda_graph_config.padding_enabled: known to 1.0.0rc1" in err
    assert "renamed   cuda_graph_config.padding_enabled -> cuda_graph_config.enable_padding" in err


@pytest.mark.parametrize("release", EVERY_RELEASE)
def test_guide_as_json_for_every_release(release: str, guide: Path) -> None:
    found = document(str(guide), "--engine-version", release)
    assert (found["engine_version"], found["release"], found["from_release"]) == (release, release, "1.0.0rc1")
    assert found["identity"]["accepted_as_is"] == ["1.0.0rc1"]
    assert yaml.safe_load(found["yaml"]) == found["document"]
    kinds = {change["path"]: change["kind"] for change in found["changes"]}
    assert kinds.get("stream_interval") == {"0.20.0": "ignored", "0.21.0": "dropped"}.get(release)
    assert found["flags"] == (["--backend", "pytorch"] if release in ("0.20.0", "0.21.0") else [])
    assert found["upstream"] is None


def test_what_has_to_be_typed_instead_is_said_in_both_places(tmp_path: Path) -> None:
    path = tmp_path / "sizes.yml"
    path.write_text("max_batch_size: 64\nmax_num_tokens: 4096\n")
    code, out, err = run(str(path), "--engine-version", "1.0.0", "--from-version", "1.2.0")
    assert (code, yaml.safe_load(out)) == (0, {})
    assert "Add to the command line: --max_batch_size 64 --max_num_tokens 4096" in err
    assert "type it: --max_batch_size 64 --max_num_tokens 4096" in out


def test_silence_about_graphs_asks_for_the_release_it_was_written_for(tmp_path: Path) -> None:
    path = tmp_path / "silent.yml"
    path.write_text("enable_attention_dp: true\n")
    assert any("--from-version" in note for note in document(str(path), "--engine-version", "0.21.0")["notes"])
    named = document(str(path), "--engine-version", "0.21.0", "--from-version", "1.2.0")
    assert named["document"] == {"enable_attention_dp": True, "use_cuda_graph": True}
    assert not any("--from-version" in note for note in named["notes"])


@pytest.mark.parametrize(
    ("version", "speaks", "words"),
    [("1.2.0rc5", "1.1.0", "not one of"), ("7.0", "main", "newer than every"), ("1.3.0rc9", "1.3.0rc", "early")],
)
def test_unknown_release_is_spelled_as_the_nearest_with_a_warning(
    version: str, speaks: str, words: str, guide: Path
) -> None:
    found = document(str(guide), "--engine-version", version)
    assert found["release"] == speaks
    assert words in " ".join(found["warnings"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: &x 1\nb: *x\n", "anchors and aliases"),
        ("a: !!python/object/apply:os.system [echo]\n", "tag"),
        ("max_batch_size: 1\nmax_batch_size: 2\n", "already given"),
        ("- 1\n", "mapping"),
        ("", "mapping"),
        ("a: [1\n", "line"),
        ("1: 2\n", "not as text"),
        ("kv_cache_config.dtype: fp8\n", "nest what stands behind a dot"),
    ],
)
def test_bad_files_are_refused_clearly(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.yml"
    path.write_text(text)
    code, out, err = run(str(path), "--engine-version", "1.2.0")
    assert (code, out) == (2, "")
    assert words in err
    assert "\n" not in err.strip()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("nowhere.yml", "--engine-version", "1.2.0"), "no file"),
        (("GUIDE", "--engine-version", "0.19.0"), "older than every release"),
        (("GUIDE", "--engine-version", "latest"), "is not a version"),
        (("GUIDE", "--engine-version", "1.2.0", "--from-version", "0.9"), "older than every release"),
        (("FOLDER", "--engine-version", "1.2.0"), "no file"),
    ],
)
def test_bad_questions_are_refused_clearly(argv: tuple[str, ...], words: str, guide: Path) -> None:
    named = {"GUIDE": str(guide), "FOLDER": str(guide.parent)}
    code, out, err = run(*(named.get(word, word) for word in argv))
    assert (code, out) == (2, "")
    assert words in err


# --- a finished study's winner ---


def write_result(folder: Path, **deployment: Any) -> Path:
    """What export reads of a `result.json`, and fields it does not."""
    workload = {"isl": 4096, "osl": 1024, "concurrency": 1024}
    result = {
        "schema_version": 1,
        "status": "candidate",
        "source": "simulated",
        "label": "simulated by the twin",
        "study": "s",
        "engine_version": "1.2.0",
        "deployment": changed(MAVERICK, **deployment).model_dump(mode="json"),
        "workload": workload,
        "workload_name": "4k1k_c1024",
        "best": {"serving_config": GUIDE.model_dump(mode="json"), "metrics": {}},
    }
    longer = {**workload, "isl": 8192}
    place = folder / "run" / "4k1k_c1024"
    place.mkdir(parents=True)
    (place / "result.json").write_text(json.dumps(result))
    (place.parent / "summary.json").write_text(json.dumps({"results": [result, {"workload": longer}]}))
    return place


@pytest.mark.parametrize("release", EVERY_RELEASE)
def test_winner_is_the_same_configuration_in_every_release(release: str, tmp_path: Path) -> None:
    plain = changed(MAVERICK, stream_interval=1)
    found = document(str(write_result(tmp_path, stream_interval=1)), "--engine-version", release)
    argv = found["command_line"]
    read = config_from_yaml(found["document"], dialect(release), plain, argv).config
    assert {name: getattr(read, name) for name in FOUR_SETTINGS} == {n: getattr(GUIDE, n) for n in FOUR_SETTINGS}
    assert read.options == {}
    assert argv[argv.index("--max_seq_len") + 1] == "9216", "the longest request of the whole study"
    assert argv[argv.index("--extra_llm_api_options") + 1] == "extra-llm-api-config.yml"
    assert "simulated by the twin" in found["yaml"]
    assert yaml.safe_load(found["yaml"]) == found["document"]
    assert any("measure it again" in note for note in found["notes"]) == (release != "1.2.0")


ON_VLLM: dict[str, Any] = {
    "engine": "vllm",
    "engine_version": "0.24.0",
    "attention_dp": False,
    "ep": 1,
    "moe_backend": None,
    "chunked_prefill": True,
}


@pytest.mark.parametrize("row", releases(), ids=lambda row: row.release)
def test_a_winner_on_vllm_is_the_same_configuration_in_every_release_of_vllm(row: Release, tmp_path: Path) -> None:
    place = write_result(tmp_path, **ON_VLLM)
    found = document(str(place), "--engine-version", row.release)
    deployment = changed(MAVERICK, **ON_VLLM)
    read = config_of_vllm(found["document"], row, deployment, catalog.gpu_facts(deployment.gpu)).config
    assert {name: getattr(read, name) for name in FOUR_SETTINGS} == {n: getattr(GUIDE, n) for n in FOUR_SETTINGS}
    assert found["document"]["max-model-len"] == found["max_seq_len"] == 9216
    assert found["command_line"][:2] == ["vllm", "serve"]
    assert yaml.safe_load(found["yaml"]) == found["document"]
    assert any("measure it again" in note for note in found["notes"]) == (row.release != "0.24.0")
    closest = document("--closest", "4000/1000", str(tmp_path))
    assert closest["command_line"] == found["command_line"]


def test_a_file_of_vllm_is_not_taken_for_one_of_tensorrt_llm(tmp_path: Path) -> None:
    path = tmp_path / "vllm-config.yaml"
    path.write_text("max-num-seqs: 64\ngpu-memory-utilization: 0.9\n")
    code, out, err = run(str(path), "--engine-version", "1.2.0")
    assert (code, out) == (2, "")
    assert "is a configuration file of vLLM" in err
    assert "advisor explain" in err


def test_winner_that_the_release_cannot_express_is_refused_with_the_way_out(tmp_path: Path) -> None:
    code, out, err = run(str(write_result(tmp_path)), "--engine-version", "0.21.0")
    assert (code, out) == (2, "")
    assert "has no stream_interval" in err
    assert "name a later release" in err


def test_study_that_the_release_cannot_express_is_refused_before_it_begins(tmp_path: Path) -> None:
    argv = ["tune", "--workload", "1k1k_c16", "--engine-version", "0.21.0", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, argv)
    assert (result.exit_code, "Set stream_interval to 1" in result.stderr) == (2, True)
    assert not (tmp_path / "out").exists()


def test_study_without_a_winner_and_damaged_results_are_refused(tmp_path: Path) -> None:
    folder = write_result(tmp_path)
    whole = json.loads((folder / "result.json").read_text())
    for text, words in (
        (json.dumps({**whole, "best": None}), "found no configuration"),
        (json.dumps({**whole, "deployment": {"model": "m"}}), "missing"),
        ("{", "not JSON"),
        ("[]", "no result"),
    ):
        (folder / "result.json").write_text(text)
        code, _, err = run(str(folder), "--engine-version", "1.2.0")
        assert code == 2
        assert words in err


# --- the installed release as judge ---


def test_installed_release_judges_what_is_for_it_and_nothing_else(
    guide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "site", monkeypatch)
    verdict = document(str(guide), "--engine-version", "1.2.0")["upstream"]
    assert verdict["version"] == "1.2.0"
    assert [error.partition(":")[0] for error in verdict["errors"]] == ["stream_interval"], "the stand-in is small"
    assert document(str(guide), "--engine-version", "1.0.0")["upstream"] is None
    assert "The installed tensorrt_llm 1.2.0: stream_interval" in run(str(guide), "--engine-version", "1.2.0")[2]
