"""`advisor doctor` as people meet it: files, streams, bad input, exit codes."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from advisor.cli.app import app
from advisor.memory.diagnosis import Diagnosis
from advisor.store.yaml_files import load_yaml
from tests.end_to_end.command import ADVISOR, environment
from tests.memory.log_cases import DATA

LOG = DATA / "failure_logs" / "006_fraction_085_8gb_vm.log"
FIELDS = {"verdict", "phase", "phase_detail", "component", "short_gib", "evidence", "remedies"}
REMEDY_FIELDS = {"setting", "from", "to", "frees_gib", "why", "confidence", "yaml_patch"}  # of the design; more may be


def doctor(*argv: str, stdin: bytes = b"") -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["doctor", *argv], input=stdin)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def document(*argv: str, stdin: bytes = b"") -> dict[str, object]:
    code, stdout, _ = doctor(*argv, "--output", "json", stdin=stdin)
    assert code == 0
    found: dict[str, object] = json.loads(stdout)
    return found


def test_text_says_the_verdict_first_and_shows_proof_and_patch() -> None:
    code, text, _ = doctor(str(LOG))
    assert code == 0
    assert text.startswith("GPU memory ran out during warm-up")
    assert "line 2" in text
    assert "free_gpu_memory_fraction: 0.8" in text
    assert "0.01 GiB" in text


def test_json_has_the_published_fields() -> None:
    found = document(str(LOG))
    assert set(found) >= FIELDS
    assert set(found) == set(Diagnosis.model_fields)
    remedies = found["remedies"]
    assert isinstance(remedies, list)
    assert all(set(remedy) >= REMEDY_FIELDS for remedy in remedies)


@pytest.mark.parametrize(
    "way",
    [
        *("gzip", "gzip without the suffix", "gzip in pieces", "stdin", "gzip on stdin", "windows", "colours", "bom"),
        *("utf-16", "utf-16-le", "utf-16-be", "utf-32", "hole", "zeros"),
    ],
)
def test_every_way_to_give_a_log(tmp_path: Path, way: str) -> None:
    text, path = LOG.read_text(), tmp_path / ("log.gz" if way == "gzip" else "log")
    data = {
        "bom": b"\xef\xbb\xbf" + text.encode(),
        "windows": text.replace("\n", "\r\n").encode(),
        "colours": "".join(f"\x1b[1;31m{line}\x1b[0m\n" for line in text.splitlines()).encode(),
        "hole": b"\0" * 600_000 + text.encode(),
        "zeros": text.replace("memory", "mem\0ory").encode(),
    }.get(way, text.encode(way if way.startswith("utf") else "utf-8"))
    if way == "gzip in pieces":
        data = b"".join(gzip.compress(data[i : i + 100]) for i in range(0, len(data), 100))
    elif "gzip" in way:
        data = gzip.compress(data)
    path.write_bytes(data)
    given = document("-", stdin=data) if "stdin" in way else document(str(path))
    assert (given["verdict"], given["phase"]) == ("oom", "warm_up")


@pytest.mark.parametrize("damage", ["cut short", "garbage behind", "garbage inside"])
def test_damaged_gzip_is_read_as_far_as_it_goes(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "log.gz"
    filler = "".join(f"[TRT-LLM] [I] {number * 7919 % 10007} busy\n" for number in range(20_000))
    data = gzip.compress((LOG.read_text() + filler).encode())
    half = len(data) // 2
    path.write_bytes(
        {
            "cut short": data[:-2000],
            "garbage behind": data + b"garbage",
            "garbage inside": data[:half] + b"\xff" * 4000 + data[half:],
        }[damage]
    )
    found = document(str(path))
    assert found["verdict"] == "oom"
    assert "damaged or cut short" in str(found["notes"])


def test_named_pipe(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = subprocess.Popen(["cp", str(LOG), str(path)])
    assert document(str(path))["verdict"] == "oom"
    assert writer.wait(60) == 0


def test_config_and_gpu_make_remedies_exact(tmp_path: Path) -> None:
    config = tmp_path / "extra.yml"
    config.write_text("kv_cache_config:\n  free_gpu_memory_fraction: 0.85\n")
    found = document(str(LOG), "--config", str(config), "--gpu", "h100_sxm")
    remedies = found["remedies"]
    assert isinstance(remedies, list)
    assert (remedies[0]["from"], remedies[0]["to"]) == (0.85, 0.8)
    patched = load_yaml(remedies[0]["yaml_patch"], "patch")
    assert patched == {"kv_cache_config": {"free_gpu_memory_fraction": 0.8}}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b"\n\n  \n", "is empty"),
        (b"\x7fELF\x02\x01\x01" + bytes(range(256)), "an executable"),
        (bytes(range(256)) * 40, "is binary"),
        (b"\0" * 100_000, "is empty"),
        (b"a,b\n1,2\n3,4\n", "does not look like the log"),
        (b"# Shopping\n\nmilk, bread, memory foam\n", "does not look like the log"),
        (gzip.compress(b"", mtime=0), "is empty"),
        (b"\x1f\x8b" + b"x" * 500, "damaged"),
        (gzip.compress(b"x" * 5000, mtime=0)[:15], "is empty"),
        (b"\x28\xb5\x2f\xfdzzzz", "zstd -d"),
        ("好".encode("utf-16-le") * 4000 + bytes(range(32)) * 400, "is binary"),
        (b"\xff" * 5000, "does not look like the log"),
    ],
)
def test_what_is_no_log_is_refused_in_one_paragraph(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "log"
    path.write_bytes(data)
    code, stdout, stderr = doctor(str(path))
    assert (code, stdout) == (2, "")
    assert words in stderr
    assert stderr.startswith("advisor: ")
    assert "Traceback" not in stderr


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("nowhere.log",), "There is no file"),
        ((".",), "Cannot read .: Is a directory."),
        (("a\0b",), "Cannot read"),
        ((str(LOG), "--gpu", "h100_sxn"), "Did you mean"),
        ((str(LOG), "--config", "nowhere.yml"), "There is no file"),
    ],
)
def test_other_bad_input(argv: tuple[str, ...], words: str) -> None:
    code, _, stderr = doctor(*argv)
    assert code == 2
    assert words in stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(LOG.read_bytes())
    path.chmod(0)
    code, _, stderr = doctor(str(path))
    assert code == 2
    assert "Permission denied" in stderr


def test_mixed_encodings_do_not_stop_it(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes("Größe\n".encode("latin-1") + "模型\n".encode("gbk") + LOG.read_bytes())
    assert document(str(path))["verdict"] == "oom"


def test_large_log_with_one_enormous_line_needs_little_memory(tmp_path: Path) -> None:
    """64 MB, half of it one line without an end, in a process that may not have more."""
    path = tmp_path / "log"
    with path.open("wb") as file:
        file.write(b"[TRT-LLM] [I] Using LLM with PyTorch backend\n" + b"x" * 32_000_000 + b"\n")
        for number in range(8_000):
            file.write(b"[TRT-LLM] [I] " + str(number).encode() + b" busy" * 800 + b"\n")
        file.write(LOG.read_bytes())
    # Not ru_maxrss: that of a new process starts at what the process that started it had.
    script = (
        "import sys\n"
        "from advisor.app.doctoring import doctor\n"
        "verdict = doctor(sys.argv[1]).verdict\n"
        "peak = next(line for line in open('/proc/self/status') if line.startswith('VmHWM:'))\n"
        "print(verdict, peak.split()[1])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=120,
        check=True,
    )
    verdict, peak_kib = done.stdout.split()
    assert verdict == "oom"
    assert int(peak_kib) < 150 * 1024


def test_help_names_the_ways() -> None:
    done = subprocess.run([*ADVISOR, "doctor", "--help"], capture_output=True, text=True, env=environment(), check=True)
    assert "--config" in done.stdout
