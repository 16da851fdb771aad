"""The bounded file of an output, and its lines as they come."""

from __future__ import annotations

import resource
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.domain.errors import EngineFailed
from advisor.host.output import BoundedLog


def same(data: bytes) -> bytes:
    return data


def in_chunks(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


def written(path: Path, data: bytes, size: int, head: int, tail: int) -> bytes:
    with BoundedLog(str(path), same, head_bytes=head, tail_bytes=tail) as log:
        for chunk in in_chunks(data, size):
            log.write(chunk)
    return path.read_bytes()


# -- the file --------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.binary(max_size=30).map(lambda line: line.replace(b"\n", b"")), max_size=40),
    st.booleans(),
    st.integers(1, 64),
    st.integers(0, 200),
    st.integers(1, 200),
)
def test_all_of_it_or_its_beginning_and_its_end(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], ended: bool, size: int, head: int, tail: int
) -> None:
    data = b"\n".join(lines) + b"\n" * ended
    path = tmp_path_factory.getbasetemp() / "log"
    kept = written(path, data, size, head, tail)
    if len(data) <= tail:
        assert kept == data
    if kept == data:
        return
    before, marker, after = kept.partition(b"[advisor left out ")
    assert marker
    told, _, end = after.partition(b"]\n")
    n_bytes, n_lines = (int(word.replace(",", "")) for word in told.decode().split() if word[0].isdigit())
    own_newline = len(before) > head or not data.startswith(before)  # a line that was cut gets an end
    beginning = before[:-1] if own_newline else before
    assert data.startswith(beginning)
    assert data.endswith(end)
    assert len(beginning) <= head
    assert len(end) <= tail
    assert n_bytes == len(data) - len(beginning) - len(end)
    assert n_lines == data[len(beginning) : len(data) - len(end)].count(b"\n")
    assert data[: len(data) - len(end)].endswith(b"\n") or len(end) in (0, tail), "the end begins with a whole line"


def test_a_person_can_follow_it(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with BoundedLog(str(path), same) as log:
        assert log.write(b"one\ntw") == b"one\n"
        assert path.read_bytes() == b"one\n"
        assert log.write(b"o\n 10%\r") == b"two\n 10%\r"
        assert log.write(b" 20%") == b""
        assert path.read_bytes() == b"one\ntwo\n 10%\r"
        assert log.close() == b" 20%"
        assert log.close() == b""
    assert path.read_bytes() == b"one\ntwo\n 10%\r 20%"


def test_memory_stays_bounded(tmp_path: Path) -> None:
    line = b"[TRT-LLM] [I] another line of a server that has much to say\n" * 1000
    tracemalloc.start()
    with BoundedLog(str(tmp_path / "log"), same, head_bytes=1_000_000, tail_bytes=1_000_000) as log:
        for _ in range(500):
            log.write(line)
        for _ in range(50):
            log.write(b"x" * 60_000)  # and a line without end
        peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3_000_000
    assert (tmp_path / "log").stat().st_size < 2_100_000


def test_a_disk_that_is_full_ends_the_writing_and_not_the_reading(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))  # Python ignores SIGXFSZ
    try:
        with BoundedLog(str(tmp_path / "log"), same) as log:
            passed = b"".join(log.write(b"line\n" * 100) for _ in range(10))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert passed == b"line\n" * 1000
    assert log.error is not None
    assert log.error.strerror == "File too large"
    assert (tmp_path / "log").read_bytes() == b"line\n" * 200


def test_a_file_that_cannot_be_created_is_told(tmp_path: Path) -> None:
    with pytest.raises(EngineFailed, match=r"Cannot write the output of the server to .*nowhere/log: No such file"):
        BoundedLog(str(tmp_path / "nowhere" / "log"), same)


# -- lines -----------------------------------------------------------------------------------------------------------

LOG = st.lists(
    st.sampled_from([b"a line", b"\n", b"\r", b"\r\n", "ä€".encode(), b"\xff", b"\0", b" 10%|#  |\r 20%|## |"])
    | st.binary(max_size=5),
    max_size=40,
).map(b"".join)
