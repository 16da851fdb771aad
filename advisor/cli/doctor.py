"""`advisor doctor`: what a crashed server's log says, and what to change."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from advisor.cli import options as opt
from advisor.cli.asking import question
from advisor.cli.errors import guarded

if TYPE_CHECKING:
    from advisor.app.doctoring import Examiner
    from advisor.domain.outcome import Phase
    from advisor.memory.diagnosis import Diagnosis
    from advisor.memory.events import LogEvent


@guarded
def doctor(
    log: Annotated[str, typer.Argument(help="The server's log: a file, a .gz, or - for standard input.")],
    config: Annotated[
        Path | None, typer.Option(help="The server's YAML file: remedies then say from what to what.")
    ] = None,
    model: opt.Model = None,
    gpu: opt.Gpu = None,
    gpus: opt.Gpus = None,
    tp: opt.Tp = None,
    pp: opt.Pp = None,
    ep: opt.Ep = None,
    attention_dp: opt.AttentionDp = None,
    quant: opt.Quant = None,
    kv_cache_dtype: opt.KvCacheDtype = None,
    engine_version: opt.EngineVersion = None,
    isl: opt.Isl = None,
    osl: opt.Osl = None,
    concurrency: opt.Concurrency = None,
    request_rate: opt.RequestRate = None,
    workload: opt.Workloads = None,
    results: Annotated[
        Path | None,
        typer.Option(help="Folder with measured studies of this deployment: what they taught makes remedies exact."),
    ] = None,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow", "-f", help="Read on as the log grows: say each phase, and what is wrong, until Ctrl-C."
        ),
    ] = False,
    output: opt.Output = opt.OutputFormat.text,
) -> None:
    """Explain a crash: what failed and where, the GiB that were missing, and which setting to change by how much.

    The log alone is enough. The server's file and its model and GPU make remedies exact; a workload prices them in
    throughput, estimated by the twin.
    """
    from advisor.app.doctoring import Examiner

    asked = question(
        model=model,
        gpu=gpu,
        gpus=gpus,
        tp=tp,
        pp=pp,
        ep=ep,
        attention_dp=attention_dp,
        quant=quant,
        kv_cache_dtype=kv_cache_dtype,
        engine_version=engine_version,
        isl=isl,
        osl=osl,
        concurrency=concurrency,
        request_rate_per_s=request_rate,
        workloads=workload,
    )
    examiner = Examiner(config=config, asked=asked, results=results, log=log)
    if follow:
        _follow(log, examiner, output)
    else:
        _show(examiner.examine(log), output)


def _show(diagnosis: Diagnosis, output: opt.OutputFormat) -> None:
    from advisor.report import console, doctor_view

    if output is opt.OutputFormat.json:
        console.show_document(doctor_view.diagnosis_json(diagnosis))
    else:
        console.show_lines(*doctor_view.diagnosis_lines(diagnosis))


def _follow(log: str, examiner: Examiner, output: opt.OutputFormat) -> None:
    """Until the log ends, or somebody says that it is enough, which is how following a file ends well: exit code 0."""
    from advisor.app.following import follow

    enough = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: enough.set())
    watcher = _Telling(output)
    last = follow(log, examiner, watcher, enough.wait)
    if last != watcher.told:
        _show(last, output)


class _Telling:
    """Phases go to stderr as they pass; diagnoses to stdout, of which JSON has only the last."""

    def __init__(self, output: opt.OutputFormat) -> None:
        self._output = output
        self.told: Diagnosis | None = None

    def phase(self, phase: Phase, event: LogEvent) -> None:
        """One line."""
        from advisor.report import console, doctor_view

        console.stderr().print(doctor_view.phase_line(phase, event), soft_wrap=True)

    def diagnosis(self, found: Diagnosis) -> None:
        """In full, for people."""
        if self._output is opt.OutputFormat.text:
            _show(found, self._output)
            self.told = found
