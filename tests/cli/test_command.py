"""The command as people and scripts meet it: streams, exit codes, files, repeatability. Real processes, real files."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from advisor.cli.app import app
from tests.end_to_end.command import SMALL_SPACE, advisor, environment, half_written, outcomes, the_run

pytestmark = pytest.mark.xdist_group("command")  # they share the finished run
SMALL = ("tune", "--workload", "1k1k_c16", *SMALL_SPACE, "--out", "out")


def tune(folder: Path, *more: str) -> tuple[int, str, str]:
    """In this process, for speed; returns exit code, stdout, stderr."""
    argv = [*SMALL[:-1], str(folder / "out"), *more]
    result = CliRunner().invoke(app, argv)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("finished")
    return folder, advisor(*SMALL, "--max-launches", "6", "--output", "json", cwd=folder, COLUMNS="40")


def test_json_is_one_document_on_stdout_and_progress_is_on_stderr(
    finished: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, done = finished
    assert done.returncode == 0
    document = json.loads(done.stdout)
    assert document == json.loads((the_run(folder / "out") / "summary.json").read_text())
    assert "SIMULATED" in done.stderr
    assert done.stderr.count("\n[") == 6, "one line a trial"
    assert "\x1b" not in done.stdout + done.stderr
    assert half_written(folder) == []


def test_text_has_no_escape_codes_and_survives_a_narrow_terminal(tmp_path: Path) -> None:
    done = advisor(*SMALL, "--max-launches", "2", cwd=tmp_path, COLUMNS="40")
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)
    assert "\x1b" not in done.stdout + done.stderr
    commands = [line for line in done.stdout.splitlines() if line.startswith("Next")]
    assert len(commands) == 1
    assert commands[0].endswith("serve.sh"), "what is to be typed is never wrapped"


@pytest.mark.parametrize(
    "argv",
    [("studies",), ("plan", "--workload", "1k1k_c16", "--output", "json"), (*SMALL, "--max-launches", "2")],
    ids=["table", "document", "study"],
)
@pytest.mark.parametrize("streams", ["stdout", "both"])
def test_nobody_reads_to_the_end(tmp_path: Path, argv: tuple[str, ...], streams: str) -> None:
    """`advisor ... | head -1`, at its worst: the reader is gone before the first line."""
    reader = subprocess.Popen([sys.executable, "-c", ""], stdin=subprocess.PIPE)
    assert reader.stdin is not None
    reader.wait()
    with (tmp_path / "stderr").open("w+") as heard:
        done = subprocess.run(
            [sys.executable, "-m", "advisor", *argv],
            cwd=tmp_path,
            env=environment(),
            stdout=reader.stdin,
            stderr=reader.stdin if streams == "both" else heard,
            timeout=60,
            check=False,
        )
        heard.seek(0)
        said = heard.read()
    assert done.returncode == 0
    assert "Traceback" not in said
    assert "Broken" not in said
    if argv[0] == "tune":
        assert (the_run(tmp_path / "out") / "summary.json").exists(), "a study is worth more than its text"
    reader.stdin.close()


def test_a_dry_run_writes_nothing_and_says_what_would_be_done(tmp_path: Path) -> None:
    code, said, heard = tune(tmp_path, "--dry-run", "--output", "json", "--max-launches", "12")
    document = json.loads(said)
    assert (code, heard) == (0, "")
    assert (document["max_launches"], document["confirmation_launches"]) == (12, 4)
    assert document["baselines"] == ["guide"]
    assert document["expected_hours"] > 0
    assert list(tmp_path.iterdir()) == []


def test_existing_results_need_resume(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, _ = finished
    before = outcomes(folder)
    code, said, heard = tune(folder, "--max-launches", "6")
    assert (code, said) == (2, "")
    assert "already holds finished trials. Go on with --resume, choose another folder with --out" in heard
    code, said, heard = tune(folder, "--max-launches", "6", "--resume", "--seed", "1")
    assert (code, said) == (2, "")
    assert "holds another study (seed was '0', now '1')" in heard
    assert outcomes(folder) == before


def test_the_same_seed_gives_the_same_bytes_and_another_one_another_study(tmp_path: Path) -> None:
    tables = []
    for name, seed in (("a", "5"), ("b", "5"), ("c", "6")):
        (tmp_path / name).mkdir()
        assert tune(tmp_path / name, "--seed", seed, "--max-launches", "8", "--sampler", "random")[0] == 0
        tables.append((the_run(tmp_path / name / "out") / "trials.csv").read_bytes())
    assert tables[0] == tables[1]
    assert tables[0] != tables[2]


@pytest.mark.parametrize("max_launches", [1, 2, 3])
def test_small_budgets_are_kept(tmp_path: Path, max_launches: int) -> None:
    code, said, _ = tune(tmp_path, "--max-launches", str(max_launches), "--output", "json")
    assert (code, json.loads(said)["counts"]["launches"]) == (0, max_launches)


def test_tiny_hours_leave_the_baseline(tmp_path: Path) -> None:
    code, said, _ = tune(tmp_path, "--max-hours", "0.0001", "--output", "json")
    document = json.loads(said)
    assert (code, document["stopped_by"], document["counts"]["launches"]) == (0, "hours", 1)


def test_a_limit_nobody_can_keep_is_exit_3_with_the_nearest_and_a_result_that_says_so(tmp_path: Path) -> None:
    code, said, heard = tune(tmp_path, "--max-launches", "4", "--slo", "ttft:p99<0.1ms", "--output", "json")
    assert code == 3
    assert json.loads(said)["results"][0]["best"] is None
    assert "no configuration that was launched keeps ttft:p99<0.1ms on 1k1k_c16. The nearest one (trial #" in heard
    assert 'ms where 0.1 ms are allowed. It would do with --slo "ttft:p99<' in heard
    assert heard.splitlines()[-1].startswith("advisor: ")
    run = the_run(tmp_path / "out")
    result = json.loads((run / "1k1k_c16" / "result.json").read_text())
    assert (result["status"], result["best"]) == ("nothing_feasible", None)
    assert result["nearest_miss"]["broken"][0]["name"] == "ttft:p99"
    assert [path.name for path in (run / "1k1k_c16").iterdir()] == ["result.json"], "nothing to serve"


def test_inter_token_latency_can_be_limited_on_the_twin(tmp_path: Path) -> None:
    code, said, _ = tune(tmp_path, "--max-launches", "6", "--slo", "itl:p99<60ms", "--output", "json")
    best = json.loads(said)["results"][0]["best"]
    assert code == 0
    assert best["metrics"]["itl_ms"]["p99"] < 60


def test_several_workloads_share_their_launches_and_have_a_folder_each(tmp_path: Path) -> None:
    (tmp_path / "mine.yml").write_text("max_batch_size: 256\nmax_num_tokens: 8192\nenable_attention_dp: true\n")
    argv = [
        "tune", "--workload", "1k1k_c64", "--workload", "4k1k_c64", *SMALL_SPACE, "--max-launches", "8",
        "--baseline", "trtllm-bench", "--baseline", "curated", "--baseline", str(tmp_path / "mine.yml"),
        "--out", str(tmp_path / "out"), "--output", "json",
    ]  # fmt: skip
    result = CliRunner().invoke(app, argv)
    assert result.exit_code == 0, result.stderr
    run = the_run(tmp_path / "out")
    records = [json.loads(content) for _, content in outcomes(run).values()]
    assert len(records) == 8
    assert all([w["workload"] for w in record["workloads"]] == ["1k1k_c64", "4k1k_c64"] for record in records)
    for name in ("1k1k_c64", "4k1k_c64"):
        assert json.loads((run / name / "result.json").read_text())["workload_name"] == name
        assert (run / name / "extra-llm-api-config.yml").exists()
    for_all = json.loads((run / "summary.json").read_text())["robust"]
    assert set(for_all["regret"]) == {"1k1k_c64", "4k1k_c64"}
    text = (run / "robust" / "extra-llm-api-config.yml").read_text()
    assert "No GPU was used" in text
    assert "Lost against the best of each: 1k1k_c64" in text
    assert subprocess.run(["bash", "-n", run / "robust" / "serve.sh"], check=False).returncode == 0
    assert 'id="robust"' in (run / "report.html").read_text()
    baselines = [record["origin"] for record in records if record["role"] == "baseline"]
    assert sorted(baselines)[:3] == [f"baseline {tmp_path}/mine.yml", "baseline curated", "baseline guide"]
    lookup = (run.parent / "lookup.yaml").read_text()
    assert "1k1k_c64" in lookup
    assert "4k1k_c64" in lookup


def test_a_load_on_the_command_line_replaces_that_of_the_study(tmp_path: Path) -> None:
    code, said, _ = tune(tmp_path, "--dry-run", "--output", "json")
    assert (code, json.loads(said)["workloads"]) == (0, ["1k1k_c16"])
    argv = ["tune", "--concurrency", "48", "--dry-run", "--output", "json", "--out", str(tmp_path)]
    assert json.loads(CliRunner().invoke(app, argv).stdout)["workloads"] == ["1k2k_c48"]


def test_every_workload_is_planned() -> None:
    result = CliRunner().invoke(app, ["plan", "--workload", "1k1k_c16", "--workload", "2k1k_c16", "--output", "json"])
    assert [plan["workload_name"] for plan in json.loads(result.stdout)] == ["1k1k_c16", "2k1k_c16"]


# -- damage --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("played")
    assert tune(folder, "--max-launches", "3")[0] == 0
    return folder / "out"


@pytest.fixture
def run(tmp_path: Path, played: Path) -> Path:
    """A finished run that may be damaged."""
    return the_run(Path(shutil.copytree(played, tmp_path / "out")))


def resumed(run: Path) -> tuple[int, str, str]:
    return tune(run.parents[2], "--max-launches", "3", "--resume")


def test_a_journal_damaged_in_the_middle_is_named_with_its_line(run: Path) -> None:
    journal = run / "ledger.journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:3], b"garbage\n", *lines[4:]]))
    code, said, heard = resumed(run)
    assert (code, said) == (2, "")
    assert "line 4 is no entry" in heard
    journal.unlink()  # the way out that it names
    assert resumed(run)[0] == 0


def test_a_torn_tail_is_mended_in_silence(run: Path) -> None:
    journal = run / "ledger.journal"
    journal.write_bytes(journal.read_bytes()[:-9] + b"\0\0")
    before = outcomes(run)
    assert resumed(run)[0] == 0
    assert outcomes(run) == before


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("trials/0001/outcome.json", "{", "0001/outcome.json is damaged"),
        ("trials/0001/outcome.json", '{"schema_version": 1}', "0001/outcome.json is damaged"),
        ("identity.json", "[]", "identity.json is damaged"),
        ("identity.json", '{"study": "other"}', "holds another study"),
    ],
)
def test_other_damage_is_named_with_the_way_out(run: Path, file: str, content: str, words: str) -> None:
    (run / file).write_text(content)
    code, said, heard = resumed(run)
    assert (code, said) == (2, "")
    assert words in heard
    assert "Traceback" not in heard
    assert "emove" in heard, "the way out"


@pytest.mark.parametrize("in_the_way", ["1k1k_c16", "trials", "summary.json/x", ".lock/x"])
def test_something_in_the_way_of_a_result_is_an_error_of_one_paragraph(tmp_path: Path, in_the_way: str) -> None:
    code, said, _ = tune(tmp_path, "--dry-run", "--output", "json")
    path = Path(json.loads(said)["run_folder"]) / in_the_way
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    code, said, heard = tune(tmp_path, "--max-launches", "1")
    assert (code, said) == (2, "")
    assert "advisor: Cannot " in heard
    assert "move it away" in heard
    assert path.read_text() == "mine"
    assert half_written(tmp_path) == []


def test_a_lookup_table_that_is_no_table_is_not_overwritten(run: Path) -> None:
    lookup = run.parent / "lookup.yaml"
    lookup.write_text("a: [1\n")
    code, _, heard = resumed(run)
    assert code == 2
    assert "lookup.yaml" in heard
    assert lookup.read_text() == "a: [1\n"


def test_a_refused_start_does_not_bind_the_next_one(tmp_path: Path) -> None:
    code, _, heard = tune(tmp_path, "--storage", "nonsense", "--seed", "1", "--max-launches", "1")
    assert code == 2
    assert "Write it as sqlite:////path/study.db" in heard
    assert tune(tmp_path, "--seed", "2", "--max-launches", "1")[0] == 0
