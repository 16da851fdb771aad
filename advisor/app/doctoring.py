"""`advisor doctor`: read a log of any size in bounded memory and say what went wrong."""

from __future__ import annotations

import codecs
import contextlib
import gzip
import io
import re
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from advisor.domain.deployment import Deployment
from advisor.domain.errors import BadInput
from advisor.domain.units import gib
from advisor.engines.log_text import unwrapped
from advisor.engines.rule_book import RULES
from advisor.engines.trtllm.dialects import dialect
from advisor.engines.trtllm.read_config import config_from_yaml
from advisor.memory.case import Case, read_case
from advisor.memory.diagnosis import Diagnosis, diagnose
from advisor.memory.remedies import NAMES, Known, Setting
from advisor.store.catalog import gpu_facts
from advisor.store.yaml_files import load_yaml, read_text

MAX_LINE_CHARS = 65_536  # longer lines come in pieces
SAMPLE_BYTES = 65_536
SAMPLE_LINES = 2_000
MOST_CONTROL_BYTES = 0.05

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
_BOMS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16", codecs.BOM_UTF8: "utf-8-sig"}
_TEXT_CONTROL = frozenset(b"\t\n\r\x1b\x08\x0c")
_LOG_LINE = re.compile(
    r"\[(?:TRT-LLM|TensorRT-LLM|TRT)\]|NCCL (?:INFO|WARN)|^Traceback \(most recent call last\)|"
    r"^\W?(?:DEBUG|INFO|WARN(?:ING)?|ERROR|FATAL|CRITICAL)\b|\d\d:\d\d:\d\d|^[IWEF]\d{4} |vLLM|vllm|tensorrt_llm|"
    r"^(?:mpirun|srun|slurmstepd|prterun)\b|\w(?:Error|Exception): |\d+%\|"
)


def doctor(
    log: str, *, config: Path | None = None, gpu: str | None = None, engine_version: str | None = None
) -> Diagnosis:
    """Diagnose the log of a server.

    Args:
        log: A path, gzip-compressed or not, or `-` for standard input.
        config: The server's YAML file, so that remedies say from what to what.
        gpu: GPU system key, such as `h200_sxm`.
        engine_version: TensorRT-LLM release whose spelling the file has; none for the newest.

    Raises:
        BadInput: no such file, empty, binary or not a log; a mistake in the YAML; unknown GPU or release.
    """
    document = load_yaml(read_text(config), str(config)) if config else None
    capacity_gib = gib(gpu_facts(gpu).memory_bytes) if gpu else None
    name = "standard input" if log == "-" else log
    with _opened(log) as raw:
        case = _read(_pieces(raw, name), name)
    return diagnose(case, _known(document, capacity_gib, _release(case, engine_version)))


def diagnose_lines(lines: Iterable[str], known: Known | None = None) -> Diagnosis:
    """Diagnose text that is already here, one string a line."""
    return diagnose(read_case(RULES.events(enumerate(lines, start=1))), known)


def _read(pieces: Iterator[tuple[int, str]], name: str) -> Case:
    looks = _Looks()
    case = read_case(RULES.events(looks.watch(pieces)))
    if looks.n_lines == 0:
        raise BadInput(
            f"{name} is empty. Give the output of the server, stderr included: `trtllm-serve ... 2>&1 | tee log`."
        )
    found = case.candidates or case.alarms or case.wrappers or case.marks or case.facts
    if not found and not looks.like_a_log:
        raise BadInput(
            f"{name} does not look like the log of a server: no line of TensorRT-LLM or vLLM, no timestamp, level or "
            "traceback. Give the server's own output, stderr included."
        )
    return case


class _Looks:
    """Counts lines as they pass and looks at the first ones."""

    def __init__(self) -> None:
        self.n_lines = 0
        self.like_a_log = False

    def watch(self, pieces: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
        for number, text in pieces:
            if not self.like_a_log and number <= SAMPLE_LINES and text.strip():
                self.like_a_log = bool(_LOG_LINE.search(text) or _LOG_LINE.search(unwrapped(text).body))
            if text.strip():
                self.n_lines = number
            yield number, text


@contextlib.contextmanager
def _opened(log: str) -> Iterator[IO[bytes]]:
    if log == "-":
        yield sys.stdin.buffer
        return
    try:
        file = Path(log).open("rb")  # noqa: SIM115 - closed below, opening errors are told apart from reading ones
    except FileNotFoundError:
        raise BadInput(f"There is no file {log}.") from None
    except OSError as error:
        raise BadInput(f"Cannot read {log}: {error.strerror}.") from None
    with file:
        yield file


def _pieces(raw: IO[bytes], name: str) -> Iterator[tuple[int, str]]:
    """(line number from 1, text) of a byte stream; a line longer than `MAX_LINE_CHARS` comes in pieces."""
    try:
        head = raw.read(SAMPLE_BYTES)
        plain = io.BufferedReader(_Rejoined(head, raw), SAMPLE_BYTES)
        stream = io.BufferedReader(gzip.GzipFile(fileobj=plain), SAMPLE_BYTES) if head[:2] == _GZIP else plain
        encoding = _encoding(stream.peek(SAMPLE_BYTES)[:SAMPLE_BYTES], name)
        text = io.TextIOWrapper(stream, encoding=encoding, errors="replace", newline="\n")
        number, read = 1, text.readline
        while piece := read(MAX_LINE_CHARS):
            yield number, piece.replace("\0", "") if "\0" in piece else piece
            if piece[-1] == "\n":
                number += 1
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        if isinstance(error, EOFError):
            return  # cut short: what came before is still a log
        raise BadInput(f"{name} is damaged: {error}.") from None
    except OSError as error:
        raise BadInput(f"Cannot read {name}: {error.strerror or error}.") from None


class _Rejoined(io.RawIOBase):
    """A byte stream with its already read head in front again."""

    def __init__(self, head: bytes, rest: IO[bytes]) -> None:
        self._head, self._rest = head, rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        data, self._head = self._head[: len(buffer)], self._head[len(buffer) :]
        data = data or self._rest.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _encoding(head: bytes, name: str) -> str:
    """How to decode, from the first bytes.

    Raises:
        BadInput: these are no text.
    """
    for magic, what in _MAGIC.items():
        if head.startswith(magic):
            raise BadInput(f"{name} is no log text: it is {what}.")
    for bom, encoding in _BOMS.items():
        if head.startswith(bom):
            return encoding
    body = head.replace(b"\0", b"") if head[:1] == b"\0" else head  # a rotated log may begin with a hole
    control = sum(byte < 32 and byte not in _TEXT_CONTROL for byte in body)
    if control > MOST_CONTROL_BYTES * len(body):
        raise BadInput(f"{name} is binary, not a log. Give the server's output as text, gzip-compressed or not.")
    return "utf-8"


def _known(document: Mapping[str, Any] | None, capacity_gib: float | None, release: str) -> Known:
    """What a configuration file and a GPU tell; the file may be TensorRT-LLM's or vLLM's."""
    if document is None:
        return Known(capacity_gib=capacity_gib)
    plain = {str(key).replace("-", "_"): value for key, value in document.items()}
    vllm = {setting: plain[name] for setting, (name, _) in NAMES["vllm"].items() if name in plain}
    if set(vllm) - {"tp"}:
        numbers = {setting: float(value) for setting, value in vllm.items() if isinstance(value, (int, float))}
        return Known(engine="vllm", settings=numbers, capacity_gib=capacity_gib)
    deployment = Deployment(model="unknown", quantization="bf16", gpu="unknown", gpus=1, tp=1)
    read = config_from_yaml(document, dialect(release), deployment).config
    settings: dict[Setting, float] = {
        "batch": read.max_batch_size,
        "tokens": read.max_num_tokens,
        "graphs": read.cuda_graph_max_batch_size,
        "fraction": read.kv_cache_free_gpu_memory_fraction,
    }
    further: dict[Setting, str] = {"tp": "tensor_parallel_size", "seq": "max_seq_len"}
    settings |= {name: document[key] for name, key in further.items() if isinstance(document.get(key), int)}
    return Known(engine="trtllm", settings=settings, capacity_gib=capacity_gib)


def _release(case: Case, engine_version: str | None) -> str:
    """The release whose spelling a file has: as said, else the log's own, else the usual one."""
    usual = engine_version or str(Deployment.model_fields["engine_version"].default)
    logged = case.facts.get("version")
    if engine_version or logged is None or logged.meaning.name != "version":
        return usual
    try:
        return dialect(logged.values["version"]).release
    except BadInput:  # older than every release with a YAML file
        return usual
