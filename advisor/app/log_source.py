"""The bytes of a log as UTF-8 text, whatever file, stream, compression or encoding it comes in, in bounded memory."""

from __future__ import annotations

import codecs
import contextlib
import gzip
import io
import re
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, cast

from advisor.domain.errors import BadInput
from advisor.engines.log_text import unwrapped

CHUNK_BYTES = 1 << 18
SAMPLE_LINES = 2_000
MOST_CONTROL_BYTES = 0.05
LONGEST_MAGIC = 16

_GZIP = b"\x1f\x8b"
_MAGIC = {
    b"\x7fELF": "an executable",
    b"PK\x03\x04": "a ZIP archive",
    b"\x28\xb5\x2f\xfd": "compressed with zstd: decompress it first (`zstd -d`)",
    b"BZh": "compressed with bzip2: decompress it first (`bunzip2`)",
    b"\xfd7zXZ": "compressed with xz: decompress it first (`unxz`)",
    b"\x89PNG": "a picture; paste the text instead",
    b"%PDF": "a PDF; save its text instead",
    b"SQLite format": "a database",
}
_BOMS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    codecs.BOM_UTF8: "utf-8-sig",
}
_TEXT_CONTROL = b"\t\n\r\x1b\x08\x0c"
_NOT_TEXT = bytes(byte for byte in range(32) if byte not in _TEXT_CONTROL)
_LOG_LINE = re.compile(
    r"\[(?:TRT-LLM|TensorRT-LLM|TRT)\]|NCCL (?:INFO|WARN)|^Traceback \(most recent call last\)|"
    r"^\W?(?:DEBUG|INFO|WARN(?:ING)?|ERROR|FATAL|CRITICAL)\b|\d\d:\d\d:\d\d|^[IWEF]\d{4} |vLLM|vllm|tensorrt_llm|"
    r"^(?:mpirun|srun|slurmstepd|prterun)\b|\w(?:Error|Exception): |\d+%\|"
)


@contextlib.contextmanager
def opened(log: str) -> Iterator[io.BufferedReader]:
    """A file by its path, or standard input for `-`.

    Raises:
        BadInput: it cannot be opened.
    """
    if log == "-":
        yield cast("io.BufferedReader", sys.stdin.buffer)
        return
    try:
        file = Path(log).open("rb")  # noqa: SIM115 - closed below, opening errors are told apart from reading ones
    except FileNotFoundError:
        raise BadInput(f"There is no file {log}.") from None
    except (OSError, ValueError) as error:
        raise BadInput(f"Cannot read {log}: {getattr(error, 'strerror', None) or error}.") from None
    with file:
        yield file


class ByteStream(Protocol):
    """Gives bytes as they can be had, none at the end."""

    def read1(self, size: int, /) -> bytes: ...


class LogSource:
    """One log being read.

    `damage` says what ended the reading early: what came before is still a log.
    """

    def __init__(self, raw: ByteStream, log: str) -> None:
        self._raw, self.name = raw, "standard input" if log == "-" else log
        self.damage: str | None = None
        self.is_empty = True
        self.looks_like_a_log = False
        self._n_looked_at = 0

    def chunks(self) -> Iterator[bytes]:
        """UTF-8 text in pieces of any size, as soon as it can be had.

        Raises:
            BadInput: it is no text, or cannot be read.
        """
        try:
            yield from self._decoded()
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            if self.is_empty and not isinstance(error, EOFError):
                raise BadInput(f"{self.name} is damaged: {error}.") from None
            self.damage = f"{self.name} is damaged or cut short; it was read as far as it goes."
        except OSError as error:
            raise BadInput(f"Cannot read {self.name}: {error.strerror or error}.") from None

    def _decoded(self) -> Iterator[bytes]:
        head = _head(self._raw)
        plain = io.BufferedReader(_Rejoined(head, self._raw), CHUNK_BYTES)
        zipped = head.startswith(_GZIP)
        stream = gzip.GzipFile(fileobj=plain) if zipped else plain
        decoder: codecs.IncrementalDecoder | None = None
        while data := stream.read1(CHUNK_BYTES):
            if self.is_empty and self._n_looked_at == 0:
                encoding = _encoding(data, self.name)
                decoder = None if encoding is None else codecs.getincrementaldecoder(encoding)("replace")
            text = data if decoder is None else decoder.decode(data).encode("utf-8", "replace")
            self._look_at(text)
            yield text

    def _look_at(self, text: bytes) -> None:
        """Is there anything, and do the first lines look like those of a program?"""
        if self.is_empty and text.strip(b"\0 \t\r\n"):
            self.is_empty = False
        if self.looks_like_a_log or self._n_looked_at >= SAMPLE_LINES:
            return
        lines = text.replace(b"\0", b"").splitlines()[: SAMPLE_LINES - self._n_looked_at]
        self._n_looked_at += max(1, len(lines))
        self.looks_like_a_log = any(_like_a_log(line.decode("utf-8", "replace")) for line in lines)


def _like_a_log(line: str) -> bool:
    return bool(_LOG_LINE.search(line) or _LOG_LINE.search(unwrapped(line).body))


def _head(raw: ByteStream) -> bytes:
    """The first bytes, enough to tell what it is; a pipe may deliver them one by one."""
    head = b""
    while len(head) < LONGEST_MAGIC and (more := raw.read1(CHUNK_BYTES)):
        head += more
    return head


class _Rejoined(io.RawIOBase):
    """A byte stream with its already read head in front again."""

    def __init__(self, head: bytes, rest: ByteStream) -> None:
        self._head, self._rest = head, rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        data, self._head = self._head[: len(buffer)], self._head[len(buffer) :]
        data = data or self._rest.read1(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _encoding(head: bytes, name: str) -> str | None:
    """How to decode, from the first bytes; None for UTF-8 and whatever else has ASCII where it matters.

    Raises:
        BadInput: these are no text.
    """
    for magic, what in _MAGIC.items():
        if head.startswith(magic):
            raise BadInput(f"{name} is no log text: it is {what}.")
    for bom, encoding in _BOMS.items():
        if head.startswith(bom):
            return encoding
    if (wide := _without_mark(head)) is not None:
        return wide
    body = head.lstrip(b"\0")  # a rotated log may begin with a hole
    if len(body) - len(body.translate(None, _NOT_TEXT)) > MOST_CONTROL_BYTES * len(body):
        raise BadInput(f"{name} is binary, not a log. Give the server's output as text, gzip-compressed or not.")
    return None


def _without_mark(head: bytes) -> str | None:
    """UTF-16 without a byte order mark: of ASCII every other byte is zero."""
    half = len(head) // 2
    even, odd = head[0::2].count(0), head[1::2].count(0)
    for zeros, others, encoding in ((odd, even, "utf-16-le"), (even, odd, "utf-16-be")):
        if half and zeros > 0.8 * half and others < 0.1 * half:
            return encoding
    return None
