"""What a server prints: kept in a file of bounded size, without its secrets."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from advisor.domain.errors import EngineFailed
from advisor.domain.units import MIB_BYTES

MAX_LINE_BYTES = 65_536
"""What is waited for before an unfinished line is let pass in pieces."""
LONGEST_SECRET_BYTES = 8_192
"""The end of such a piece may be the beginning of a secret so long."""


class BoundedLog:
    """A file with the beginning of an output, and its end when there was more than that.

    The beginning is written as it comes, in whole lines, so that a person can follow it; the end is written by `close`.
    A disk that fills up does not stop the server: `error` says what happened, and reading goes on.

    Args:
        path: Where to write; None to keep nothing.
        redact: Takes the secrets out of whole lines.
        head_bytes: How much of the beginning is kept.
        tail_bytes: How much of the end is kept.

    Raises:
        EngineFailed: the file cannot be created.
    """

    def __init__(
        self,
        path: str | None,
        redact: Callable[[bytes], bytes],
        head_bytes: int = 24 * MIB_BYTES,
        tail_bytes: int = 8 * MIB_BYTES,
    ) -> None:
        self.error: OSError | None = None
        self._redact = redact
        self._unfinished = b""
        self._room_bytes, self._tail = head_bytes, _Tail(tail_bytes)
        self._ends_in_line = False
        try:
            self._file = Path(path or os.devnull).open("wb", buffering=0)  # noqa: SIM115 - `close` closes it
        except OSError as error:
            raise EngineFailed(f"Cannot write the output of the server to {path}: {error.strerror}.") from None

    def write(self, chunk: bytes) -> bytes:
        """Take a piece of the output; what it completed, without secrets, for who reads along."""
        end = max(chunk.rfind(b"\n"), chunk.rfind(b"\r")) + 1
        if end:
            passed, self._unfinished = self._redact(self._unfinished + chunk[:end]), chunk[end:]
        else:
            self._unfinished += chunk
            passed = b""
        while len(self._unfinished) > MAX_LINE_BYTES + LONGEST_SECRET_BYTES:
            border = self._border(self._unfinished)
            passed += self._redact(self._unfinished[:border])
            self._unfinished = self._unfinished[border:]
        self._keep(passed)
        return passed

    def close(self) -> bytes:
        """End the file; what an unfinished last line held, without secrets."""
        passed, self._unfinished = self._redact(self._unfinished), b""
        self._keep(passed)
        if not self._file.closed:
            self._write(self._tail.text(after_newline=not self._ends_in_line))
            self._file.close()
        return passed

    def __enter__(self) -> BoundedLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _border(self, line: bytes) -> int:
        """Where an unfinished line can be cut without cutting a secret: where its parts are redacted like the whole."""
        whole = self._redact(line)
        for border in range(len(line) - LONGEST_SECRET_BYTES, 0, -LONGEST_SECRET_BYTES // 4):
            if self._redact(line[:border]) + self._redact(line[border:]) == whole:
                return border
        return len(line)

    def _keep(self, data: bytes) -> None:
        if len(data) <= self._room_bytes:
            self._room_bytes -= len(data)
            self._write(data)
        else:
            border = data.rfind(b"\n", 0, self._room_bytes) + 1 or self._room_bytes
            self._write(data[:border])
            self._tail.add(data[border:])
            self._room_bytes = 0

    def _write(self, data: bytes) -> None:
        try:
            while data and self.error is None:
                self._ends_in_line = not data.endswith(b"\n")
                data = data[self._file.write(data) or 0 :]
        except OSError as error:
            self.error = error


class _Tail:
    """The last lines of what is added, and how much came before them."""

    def __init__(self, n_bytes: int) -> None:
        self._most_bytes = n_bytes
        self._pieces = deque[bytes]()
        self._n_bytes = 0
        self._dropped_bytes, self._dropped_lines = 0, 0

    def add(self, data: bytes) -> None:
        self._pieces.append(data)
        self._n_bytes += len(data)
        while self._n_bytes - len(self._pieces[0]) >= self._most_bytes:
            self._drop(self._pieces.popleft())

    def text(self, *, after_newline: bool) -> bytes:
        """The last lines; before them one that says how much was left out, if anything was."""
        kept = b"".join(self._pieces)
        self._pieces.clear()
        if len(kept) > self._most_bytes or self._dropped_bytes:
            cut = max(len(kept) - self._most_bytes, 0)
            border = kept.find(b"\n", max(cut - 1, 0)) + 1 or cut
            self._drop(kept[:border])
            left_out = f"[advisor left out {self._dropped_bytes:,} bytes, {self._dropped_lines:,} lines]\n"
            kept = b"\n" * (not after_newline) + left_out.encode() + kept[border:]
        return kept

    def _drop(self, data: bytes) -> None:
        self._n_bytes -= len(data)
        self._dropped_bytes += len(data)
        self._dropped_lines += data.count(b"\n")
