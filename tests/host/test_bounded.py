"""Questions that hang, fail or never stop talking do not hold up whoever asks."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pynvml
import pytest

from advisor.host.bounded import answer_of, find_gpus_within, within
from tests.standin.fake_gpus import LIBRARY, FakeGpus

PATIENCE_S = 60.0


def python(script: str, timeout_s: float = PATIENCE_S, max_bytes: int = 1 << 20) -> tuple[int | None, str, str, bool]:
    said = answer_of([sys.executable, "-c", script], os.environ, timeout_s, max_bytes)
    return said.exit_code, said.output, said.errors, said.late


def test_what_a_program_says_and_how_it_ends() -> None:
    script = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    assert python(script) == (3, "out\n", "err\n", False)


def test_text_that_is_none_is_replaced() -> None:
    assert python(r"import sys; sys.stdout.buffer.write(b'a\xffb')")[1] == "a�b"


def test_a_program_that_is_not_there() -> None:
    said = answer_of(["/no/such/program"], os.environ, PATIENCE_S)
    assert (said.exit_code, said.late) == (None, False)
    assert "No such file" in said.errors


def test_a_program_that_hangs_is_killed_and_what_it_said_is_kept() -> None:
    code, output, _, late = python("import time; print('begun', flush=True); time.sleep(600)", timeout_s=0.5)
    assert (code, late) == (None, True)
    assert output in ("begun\n", "")  # on a slow machine it may not have come so far


def test_a_program_that_closes_its_output_and_stays_is_killed() -> None:
    script = "import os, time; os.close(1); os.close(2); time.sleep(600)"
    code, _, _, late = python(script, timeout_s=0.5)
    assert (code, late) == (None, True)


def test_a_program_that_never_stops_talking_is_killed() -> None:
    began_s = time.monotonic()
    code, output, _, late = python("while True: print('x' * 1000)", max_bytes=100_000)
    assert (code, late) == (None, True)
    assert 100_000 < len(output) < 1 << 20
    assert time.monotonic() - began_s < PATIENCE_S


def test_a_function_in_time() -> None:
    assert within(PATIENCE_S, lambda: 42) == 42


def test_a_function_that_fails() -> None:
    def fails() -> int:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        within(PATIENCE_S, fails)


def test_a_function_that_hangs() -> None:
    never = threading.Event()
    with pytest.raises(TimeoutError, match=r"within 0\.05 s"):
        within(0.05, never.wait)
    never.set()


def test_gpus_in_time(gpus: FakeGpus, nvml_library: Path) -> None:
    env = {**os.environ, **gpus.env(nvml_library)}
    reading = find_gpus_within(PATIENCE_S, env)
    assert reading.missing is None
    assert [gpu.key for gpu in reading.gpus] == ["h100_sxm", "h100_sxm"]
    gpus.fail(pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH)
    assert "was updated" in str(find_gpus_within(PATIENCE_S, env).missing)


@pytest.mark.parametrize(
    ("body", "timeout_s", "words"),
    [("for (;;) pause();", 1.0, "does not answer within 1 s"), ("abort();", PATIENCE_S, "failed (exit code -6)")],
)
def test_a_driver_that_hangs_or_crashes(tmp_path: Path, body: str, timeout_s: float, words: str) -> None:
    source = tmp_path / "nvml.c"
    source.write_text(f"#include <stdlib.h>\n#include <unistd.h>\nint nvmlInitWithFlags(unsigned f) {{ {body} }}\n")
    flags = ["-shared", "-fPIC", "-o", str(tmp_path / LIBRARY)]
    subprocess.run(["cc", *flags, str(source)], check=True)
    reading = find_gpus_within(timeout_s, {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)})
    assert reading.gpus == ()
    assert words in str(reading.missing)
