"""`advisor doctor`: read a log of any size in bounded memory and say what went wrong."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from advisor.app.beside import Beside, beside
from advisor.app.log_source import LogSource, opened
from advisor.app.setup import Question
from advisor.domain.errors import BadInput
from advisor.domain.strict import changed
from advisor.engines.rule_book import RULES
from advisor.engines.trtllm.probe import Probe
from advisor.memory.case import Case
from advisor.memory.diagnosis import Diagnosis, diagnose
from advisor.memory.events import LogEvent
from advisor.memory.known import Known

NOTHING_ASKED = Question()


class Reading:
    """A log read so far."""

    def __init__(self) -> None:
        self.case, self.probe = Case(), Probe()

    def take(self, event: LogEvent) -> None:
        """Count one event in."""
        self.case.take(event)
        self.probe.take(event)

    def take_all(self, events: Iterable[LogEvent]) -> None:
        """Count events in, in the log's order."""
        for event in events:
            self.take(event)


class Examiner:
    """Diagnoses logs with what is known besides them."""

    def __init__(
        self,
        *,
        config: Path | None = None,
        asked: Question = NOTHING_ASKED,
        results: Path | None = None,
        log: str = "-",
    ) -> None:
        """Read what stands beside the log.

        Args:
            config: The server's YAML file, so that remedies say from what to what.
            asked: Model, GPU and layout make remedies exact, a workload prices them in throughput; all optional.
            results: Folder with measured studies of that deployment, which correct the memory law.
            log: Which log it will be: one that a study wrote says deployment and results by itself.

        Raises:
            BadInput: a mistake in the YAML; unknown model, GPU or release; results of no deployment.
        """
        self._beside: Beside = beside(config, asked, results, log)

    def examine(self, log: str) -> Diagnosis:
        """Diagnose a log as it is now: a path, gzip-compressed or not, or `-` for standard input.

        Raises:
            BadInput: no such file, empty, binary or not a log.
        """
        reading, stream = Reading(), RULES.stream()
        with opened(log) as raw:
            source = LogSource(raw, log)
            for chunk in source.chunks():
                reading.take_all(stream.take(chunk))
            reading.take_all(stream.end())
        return self.last_word(reading, source)

    def diagnosis(self, reading: Reading) -> Diagnosis:
        """Of a log read so far."""
        return diagnose(reading.case, self._beside.known(reading.case, reading.probe))

    def last_word(self, reading: Reading, source: LogSource) -> Diagnosis:
        """Of a log read to its end.

        Raises:
            BadInput: there was nothing in it, or nothing of a server.
        """
        if source.is_empty:
            raise BadInput(
                f"{source.name} is empty. Give the output of the server, stderr included: "
                "`trtllm-serve ... 2>&1 | tee log`."
            )
        case = reading.case
        found = case.candidates or case.alarms or case.wrappers or case.marks or case.facts
        if not found and not source.looks_like_a_log:
            raise BadInput(
                f"{source.name} does not look like the log of a server: no line of TensorRT-LLM or vLLM, no timestamp, "
                "level or traceback. Give the server's own output, stderr included."
            )
        diagnosis = self.diagnosis(reading)
        return changed(diagnosis, notes=(*diagnosis.notes, source.damage)) if source.damage else diagnosis


def doctor(
    log: str,
    *,
    config: Path | None = None,
    model: str | None = None,
    gpu: str | None = None,
    tp: int | None = None,
    quant: str | None = None,
    engine_version: str | None = None,
    workload: str | None = None,
    results: Path | None = None,
) -> Diagnosis:
    """Diagnose the log of a server.

    Args:
        log: A path, gzip-compressed or not, or `-` for standard input.
        config: The server's YAML file, so that remedies say from what to what.
        model: Hugging Face name or checkpoint folder, for the memory law.
        gpu: GPU system key, such as `h200_sxm`.
        tp: Tensor-parallel size.
        quant: Quantization; none for what the model's name says.
        engine_version: TensorRT-LLM release whose spelling the file has; none for the log's own.
        workload: Short name such as `1k1k_c256`: what remedies cost in throughput, estimated by the twin.
        results: Folder with measured studies of that deployment, which correct the memory law.

    Raises:
        BadInput: no such file, empty, binary or not a log; a mistake in the YAML; unknown model, GPU or release.
    """
    asked = Question(
        model=model,
        gpu=gpu,
        tp=tp,
        quant=quant,
        engine_version=engine_version,
        workloads=(workload,) if workload else (),
    )
    return Examiner(config=config, asked=asked, results=results, log=log).examine(log)


def diagnose_lines(lines: Iterable[str], known: Known | None = None) -> Diagnosis:
    """Diagnose text that is already here, one string a line; by default with what the lines themselves tell."""
    reading = Reading()
    reading.take_all(RULES.events(enumerate(lines, start=1)))
    if known is not None:
        return diagnose(reading.case, known)
    return Examiner().diagnosis(reading)
