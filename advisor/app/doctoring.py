"""`advisor doctor`: read a log of any size in bounded memory and say what went wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from advisor.app.log_source import LogSource, opened
from advisor.domain.deployment import Deployment
from advisor.domain.errors import BadInput
from advisor.domain.strict import changed
from advisor.domain.units import gib
from advisor.engines.rule_book import RULES
from advisor.engines.trtllm.dialects import dialect
from advisor.engines.trtllm.read_config import config_from_yaml
from advisor.memory.case import Case, read_case
from advisor.memory.diagnosis import Diagnosis, diagnose
from advisor.memory.remedies import NAMES, Known, Setting
from advisor.store.catalog import gpu_facts
from advisor.store.yaml_files import load_yaml, read_text


class Examiner:
    """Diagnoses logs with what is known besides them."""

    def __init__(
        self, *, config: Path | None = None, gpu: str | None = None, engine_version: str | None = None
    ) -> None:
        """Read what stands beside the log.

        Args:
            config: The server's YAML file, so that remedies say from what to what.
            gpu: GPU system key, such as `h200_sxm`.
            engine_version: TensorRT-LLM release whose spelling the file has; none for the log's own.

        Raises:
            BadInput: a mistake in the YAML; unknown GPU or release.
        """
        self._document = load_yaml(read_text(config), str(config)) if config else None
        self._capacity_gib = gib(gpu_facts(gpu).memory_bytes) if gpu else None
        self._engine_version = engine_version

    def examine(self, log: str) -> Diagnosis:
        """Diagnose a log as it is now: a path, gzip-compressed or not, or `-` for standard input.

        Raises:
            BadInput: no such file, empty, binary or not a log.
        """
        case, stream = Case(), RULES.stream()
        with opened(log) as raw:
            source = LogSource(raw, log)
            for chunk in source.chunks():
                case.take_all(stream.take(chunk))
            case.take_all(stream.end())
        return self.last_word(case, source)

    def diagnosis(self, case: Case) -> Diagnosis:
        """Of a log read so far."""
        return diagnose(case, _known(self._document, self._capacity_gib, _release(case, self._engine_version)))

    def last_word(self, case: Case, source: LogSource) -> Diagnosis:
        """Of a log read to its end.

        Raises:
            BadInput: there was nothing in it, or nothing of a server.
        """
        if source.is_empty:
            raise BadInput(
                f"{source.name} is empty. Give the output of the server, stderr included: "
                "`trtllm-serve ... 2>&1 | tee log`."
            )
        found = case.candidates or case.alarms or case.wrappers or case.marks or case.facts
        if not found and not source.looks_like_a_log:
            raise BadInput(
                f"{source.name} does not look like the log of a server: no line of TensorRT-LLM or vLLM, no timestamp, "
                "level or traceback. Give the server's own output, stderr included."
            )
        diagnosis = self.diagnosis(case)
        return changed(diagnosis, notes=(*diagnosis.notes, source.damage)) if source.damage else diagnosis


def doctor(
    log: str, *, config: Path | None = None, gpu: str | None = None, engine_version: str | None = None
) -> Diagnosis:
    """Diagnose the log of a server: a path, gzip-compressed or not, or `-`; the rest as for `Examiner`.

    Raises:
        BadInput: no such file, empty, binary or not a log; a mistake in the YAML; unknown GPU or release.
    """
    return Examiner(config=config, gpu=gpu, engine_version=engine_version).examine(log)


def diagnose_lines(lines: Iterable[str], known: Known | None = None) -> Diagnosis:
    """Diagnose text that is already here, one string a line."""
    return diagnose(read_case(RULES.events(enumerate(lines, start=1))), known)


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
