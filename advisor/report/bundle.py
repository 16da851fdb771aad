"""The results tree of a run, written aside and renamed file by file, and what to type next."""

from __future__ import annotations

import csv
import datetime
import io
import shlex
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from rich.text import Text

from advisor.app.answers import agreements
from advisor.app.manifest import MANIFEST, RESULT_NAME, Manifest, sums, tried
from advisor.app.results import Result, StudySummary
from advisor.app.tuning import Session
from advisor.domain.measurement import MemoryReport, Metrics
from advisor.domain.objective import Objective, latency_ms
from advisor.domain.outcome import OutOfMemory, Rejected, summary
from advisor.domain.serving_config import ServingConfig
from advisor.domain.trial import TrialRecord
from advisor.engines.contained import Contained, contained, image_for
from advisor.engines.spoken import spoken_by
from advisor.report import files
from advisor.report.deploy_files import deploy_files, not_covered
from advisor.report.robust_files import robust_files, robust_story
from advisor.report.study_notes import ROBUST, miss_text
from advisor.report.summary import interval_text
from advisor.report.visible import visible
from advisor.report.write_report import write_report
from advisor.store.run_card import read_card
from advisor.store.yaml_files import make_folder, read_text, write_atomic

MEMORY = ("weights", "activations", "cuda_graphs", "other", "kv_pool", "headroom", "capacity")


def write(session: Session, records: Sequence[TrialRecord], outcome: StudySummary) -> dict[str, Path]:
    """Write everything that follows from the records; running it again writes the same.

    Returns:
        The files a person wants to know of, by title.

    Raises:
        BadInput: the folder cannot be written; what was there before is whole.
    """
    run = session.run_folder
    paths: dict[str, Path] = {}
    config_name = session.forecaster.dialect.config_name
    for result in outcome.results:
        folder = make_folder(run / result.workload_name)
        write_atomic(folder / RESULT_NAME, result.model_dump_json(indent=2) + "\n")
        if result.best is None:
            continue
        _write_bundle(session, records, result)
        _merge_lookup(session, result)
        title = result.workload_name if len(outcome.results) > 1 else "config"
        paths[title] = folder / config_name
    for_all = _robust_files(session, outcome)
    if for_all:
        _write_texts(make_folder(run / ROBUST), for_all)
        paths["for all"] = run / ROBUST / config_name
    write_atomic(run / "summary.json", outcome.model_dump_json(indent=2) + "\n")
    write_atomic(run / "trials.csv", trials_csv(session, records))
    paths["report"] = write_report(run, run).page
    paths["all trials"] = run / "trials.csv"
    return paths


def _write_bundle(session: Session, records: Sequence[TrialRecord], result: Result) -> None:
    """The files of a workload, those for containers among them, and the manifest over all of them."""
    context, texts = session.context, workload_files(session, result)
    folder = session.run_folder / result.workload_name
    server = _server(session, result, texts[session.forecaster.dialect.config_name])
    ours = texts if server is None else {**texts, **deploy_files(_story(result).lines, server)}
    clean = {name: session.redacted(text) for name, text in ours.items()}
    _write_texts(folder, clean)
    manifest = Manifest(
        date=_today(),
        source=result.source,
        label=result.label,
        study=result.study,
        run=context.run_name,
        workload=result.workload_name,
        advisor_version=version("trtllm-advisor"),
        engine=result.engine,
        engine_version=result.engine_version,
        gpu=result.deployment.gpu,
        n_gpus=result.deployment.gpus,
        machine=read_card(session.run_folder).machine,
        image=None if server is None else server.image.reference,
        seed=result.seed,
        sampler=result.sampler,
        not_covered=not_covered(server),
        history=tried(records, result),
        files=sums({**clean, RESULT_NAME: read_text(folder / RESULT_NAME)}),
    )
    write_atomic(folder / MANIFEST, session.redacted(manifest.model_dump_json(indent=2)) + "\n")


def _server(session: Session, result: Result, config_text: str) -> Contained | None:
    """The recommendation of a workload in a container."""
    assert result.best is not None
    best = result.best
    return _contained(session, best.serving_config, result.workload_name, config_text, [best.metrics], best.memory_gib)


def _contained(
    session: Session,
    config: ServingConfig,
    purpose: str,
    config_text: str,
    measured: Sequence[Metrics],
    memory_gib: MemoryReport | None,
) -> Contained | None:
    """A configuration of the study in a container; None where there is no image for it."""
    context, deployment = session.context, session.context.deployment
    spoken = spoken_by(deployment)
    ran_in = session.how.container_image if context.identity.source == "measured" else None
    image = image_for(spoken, deployment, ran_in)
    if image is None:
        return None
    return contained(
        spoken,
        deployment,
        config,
        context.max_seq_len,
        image=image,
        purpose=purpose,
        config_text=config_text,
        measured=measured,
        memory_gib=memory_gib,
        deadlines=context.deadlines,
    )


def _robust_files(session: Session, outcome: StudySummary) -> dict[str, str]:
    """The files of the configuration for all workloads; nothing where there is no such configuration."""
    choice = outcome.robust
    if choice is None:
        return {}
    story = robust_story(session.context, outcome, choice)
    texts = robust_files(session.context, outcome, choice, story)
    measured = [result.best.metrics for result in outcome.results if result.best is not None]
    config_text = texts[session.forecaster.dialect.config_name]
    server = _contained(session, choice.serving_config, ROBUST, config_text, measured, choice.memory_gib)
    ours = texts if server is None else {**texts, **deploy_files(story.lines, server)}
    return {name: session.redacted(text) for name, text in ours.items()}


def _write_texts(folder: Path, texts: Mapping[str, str]) -> None:
    for name, text in texts.items():
        write_atomic(folder / name, text)
        if name.endswith(".sh"):
            (folder / name).chmod(0o755)


def workload_files(session: Session, result: Result) -> dict[str, str]:
    """Text of the YAML and the commands of one recommendation, by file name."""
    assert result.best is not None
    context, deployment, config = session.context, result.deployment, result.best.serving_config
    spoken = spoken_by(deployment)
    story = _story(result)
    searched = [dimension.name for dimension in context.space.active]
    why = "the baseline kept after" if result.status == "baseline_within_noise" else "best of"
    origin = files.origins(searched, result.counts.launches, spoken.default_config(context.gpu), why)
    max_seq_len = context.max_seq_len
    return {
        spoken.config_name: files.config_text(story, spoken, deployment, config, max_seq_len, origin),
        "serve.sh": files.serve_sh(story, spoken, deployment, config, max_seq_len),
        "benchmark.sh": files.benchmark_sh(story, spoken, deployment.with_options(config.options), result.served),
        "verify.sh": files.verify_sh(story, deployment, result.served, result.best.metrics.output_tok_per_s),
    }


def _story(result: Result) -> files.Story:
    return files.Story(
        source=result.source,
        label=result.label,
        study=result.study,
        workload=result.workload_name,
        model=result.deployment.model,
        engine=spoken_by(result.deployment).title,
        engine_version=result.engine_version,
        date=_today(),
        confidence=confidence_text(result),
    )


def _today() -> str:
    return datetime.datetime.now(datetime.timezone.utc).date().isoformat()


def confidence_text(result: Result) -> str:
    """One clause for the head of a file."""
    gain = result.confidence.gain
    if result.status == "baseline_within_noise":
        return f"the {result.baseline.name} configuration; nothing found is clearly better"
    if gain is None:
        return "candidate, nothing to compare with"
    percent = f"{100 * (gain - 1):+.1f} % on {result.baseline.name}"
    if result.confidence.interval is not None:
        return f"{percent}, {interval_text(result.confidence.interval)}"
    return f"candidate, {percent} in a single run"


def _merge_lookup(session: Session, result: Result) -> None:
    path = session.study_folder / "lookup.yaml"
    name = session.forecaster.dialect.config_name
    config_path = f"{session.context.run_name}/{result.workload_name}/{name}"
    row = files.lookup_row(result.deployment, result.served, session.context.facts.architecture, config_path)
    if row is not None:
        existing = read_text(path) if path.exists() else None
        write_atomic(path, files.merge_lookup(existing, row, result.label))


def trials_csv(session: Session, records: Sequence[TrialRecord]) -> str:
    """One row a trial and workload, settings and metrics in plain columns."""
    dimensions = [dimension.name for dimension in session.context.space.active]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    head = ["number", "role", "origin", "source", "outcome", "launches", "duration_s", *dimensions]
    measured = [
        "workload", "output_tok_per_s", "output_tok_per_s_per_gpu", "output_tok_per_s_per_user", "ttft_p99_ms",
        "tpot_mean_ms", "limited_by", "http_cpu_share", "objective",
    ]  # fmt: skip
    answers = agreements(records)
    last = ["short_gib", *(["answers_differing"] if answers else [])]
    writer.writerow([*head, *measured, *(f"{name}_gib" for name in MEMORY), *last])
    for record in records:
        flat = record.config.flat()
        left = [
            record.number, record.role, visible(record.origin), record.source, visible(record.ending),
            record.n_attempts, f"{record.duration_s:.1f}", *(flat.get(name, "") for name in dimensions),
        ]  # fmt: skip
        memory = record.memory_measured_gib
        sizes_gib = [None if memory is None else getattr(memory, name) for name in MEMORY]
        right = ["" if size_gib is None else f"{size_gib:.3f}" for size_gib in sizes_gib]
        right.append(f"{record.outcome.short_gib:.3f}" if isinstance(record.outcome, OutOfMemory) else "")
        if answers:
            right.append(f"{answers[record.number].differing:.3f}" if record.number in answers else "")
        for workload in session.context.workloads:
            writer.writerow(
                [*left, workload.name, *_metric_cells(record, workload.name, session.context.objective), *right]
            )
    return stream.getvalue()


def _metric_cells(record: TrialRecord, workload: str, objective: Objective) -> list[str]:
    outcome = record.workload(workload)
    if outcome is None or outcome.metrics is None:
        return [""] * 8
    metrics = outcome.metrics
    tpot, value = latency_ms(metrics, "tpot", "mean"), objective.value(metrics)
    return [
        f"{metrics.output_tok_per_s:.1f}",
        f"{metrics.output_tok_per_s_per_gpu:.1f}",
        f"{metrics.output_tok_per_s_per_user:.2f}",
        f"{metrics.ttft_ms.p99:.1f}",
        "" if tpot is None else f"{tpot:.3f}",
        outcome.limited_by or "",
        "" if outcome.server is None else f"{outcome.server.http_cpu_share:.3f}",
        "" if value is None else f"{value:.3f}",
    ]


def closing_lines(session: Session, outcome: StudySummary, paths: dict[str, Path]) -> list[Text]:
    """Where the files are, and the one command to type next; lines that must not be wrapped."""
    lines = [Text(f"{title + ':':<12} {path}") for title, path in paths.items()]
    if outcome.stopped_by == "cancelled":
        return [*lines, Text(f"Next: the same command with --resume goes on in {session.run_folder}.", style="bold")]
    spoken = session.forecaster.dialect
    configs = [path for path in paths.values() if path.name == spoken.config_name]
    if not configs:
        return lines
    where = "" if outcome.source == "measured" else f", on a machine with {spoken.title} and these GPUs"
    serve = shlex.quote(str(configs[0].parent / "serve.sh"))
    return [*lines, Text.assemble((f"Next{where}: ", "bold"), (f"bash {serve}", "bold"))]


def why_nothing(outcome: StudySummary, records: Sequence[TrialRecord]) -> str:
    """Why no configuration is feasible, from the nearest miss, and what would help."""
    first = outcome.results[0]
    miss, fixed = first.nearest_miss, first.deployment
    if miss is not None and miss.blocks == "slo":
        return f"no configuration that was launched keeps {first.slo.text} on {first.workload_name}. {miss_text(miss)}"
    if miss is not None:
        where = f"{fixed.gpus} x {fixed.gpu}"
        return f"no configuration of {fixed.model} serves {first.workload_name} on {where}. {miss_text(miss)}"
    refused = [record.outcome for record in records if isinstance(record.outcome, Rejected)]
    if refused and all(not record.launched for record in records):
        nearest = min(refused, key=lambda outcome: outcome.excess)
        return f"every configuration was rejected before launch; the nearest: {nearest.reason}."
    return "no launch ended with a measurement; see trials/ for the evidence of each."


def why_stopped(records: Sequence[TrialRecord]) -> str:
    """Why a study gave up on its surroundings, and what to do."""
    last = next(record for record in reversed(records) if record.infrastructure)
    return (
        "launches fail one after the other for reasons that no configuration can help; "
        f"trial #{last.number} ended with {summary(last.outcome)}. Mend that, then go on with --resume: "
        "nothing measured so far is lost."
    )
