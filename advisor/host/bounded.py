"""Questions that may hang - a stuck driver, a lost network disk, a daemon that is gone - asked with a time limit."""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Late
from typing import TypeVar

from pydantic import ValidationError

from advisor.domain.strict import StrictModel
from advisor.domain.units import MIB_BYTES
from advisor.host.gpus import GpuReading

KILL_TIMEOUT_S = 1.0
_FIND_GPUS = "from advisor.host.gpus import find_gpus; print(find_gpus().model_dump_json())"

T = TypeVar("T")


class Answer(StrictModel):
    """What a program said. `exit_code` is None where it could not be started or did not end in time."""

    exit_code: int | None
    output: str = ""
    errors: str = ""
    late: bool = False


def answer_of(argv: Sequence[str], env: Mapping[str, str], timeout_s: float, max_bytes: int = 4 * MIB_BYTES) -> Answer:
    """Run a program that only tells something.

    It is killed when time is up or when it says more than `max_bytes`, and then it is not waited for: a process that
    hangs inside a driver does not end.
    """
    try:
        process = subprocess.Popen(
            list(argv), env=dict(env), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    except (OSError, ValueError) as error:
        return Answer(exit_code=None, errors=str(error))
    assert process.stdout is not None and process.stderr is not None
    deadline_s = time.monotonic() + timeout_s
    with process.stdout, process.stderr:
        said = {process.stdout.fileno(): bytearray(), process.stderr.fileno(): bytearray()}
        ended = _read(said, deadline_s, max_bytes)
    exit_code = None
    try:
        if ended:
            exit_code = process.wait(max(0.0, deadline_s - time.monotonic()))
    except subprocess.TimeoutExpired:
        ended = False
    if exit_code is None:
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(KILL_TIMEOUT_S)
    output, errors = (bytes(text).decode(errors="replace") for text in said.values())
    return Answer(exit_code=exit_code, output=output, errors=errors, late=not ended)


def _read(said: dict[int, bytearray], deadline_s: float, max_bytes: int) -> bool:
    """Collect what comes from some pipes; True when all of them ended in time and within bounds."""
    with selectors.DefaultSelector() as selector:
        for pipe in said:
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map():
            left_s = deadline_s - time.monotonic()
            ready = selector.select(left_s) if left_s > 0 else []
            if not ready or any(len(text) > max_bytes for text in said.values()):
                return False
            for key, _ in ready:
                data = os.read(key.fd, 65_536)
                said[key.fd] += data
                if not data:
                    selector.unregister(key.fd)
    return True


def within(timeout_s: float, question: Callable[[], T]) -> T:
    """The answer of a function that may wait for a disk for ever; the thread that waits is left behind.

    Raises:
        TimeoutError: no answer in time.
        Exception: whatever the function raises.
    """
    answer: Future[T] = Future()

    def ask() -> None:
        try:
            answer.set_result(question())
        except Exception as error:  # noqa: BLE001 - handed to whoever asked
            answer.set_exception(error)

    threading.Thread(target=ask, name="bounded-question", daemon=True).start()
    try:
        return answer.result(timeout_s)
    except Late:
        raise TimeoutError(f"no answer within {timeout_s:g} s") from None


def find_gpus_within(timeout_s: float, env: Mapping[str, str]) -> GpuReading:
    """`find_gpus` in a process of its own, so that a driver that hangs or crashes takes nobody with it."""
    path = os.pathsep.join(part for part in sys.path if part)
    said = answer_of([sys.executable, "-c", _FIND_GPUS], {**env, "PYTHONPATH": path}, timeout_s)
    try:
        return GpuReading.model_validate_json(said.output)
    except ValidationError:
        pass
    if said.late:
        why = f"the NVIDIA driver does not answer within {timeout_s:g} s: see `nvidia-smi` and `dmesg | grep -i nvrm`"
    else:
        why = f"asking the NVIDIA driver failed (exit code {said.exit_code}): see what `nvidia-smi` says"
    return GpuReading(missing=f"{why[0].upper()}{why[1:]}, and restart the machine if it hangs too.")
