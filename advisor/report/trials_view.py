"""Every trial of the report: one row, and behind it the command, the settings in effect, the log and the diagnosis."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from advisor.app.report_sources import Sources
from advisor.app.results import Result
from advisor.app.trial_evidence import TrialEvidence
from advisor.domain.outcome import summary
from advisor.domain.serving_config import OptionValue
from advisor.domain.trial import TrialRecord
from advisor.memory.remedies import Remedy
from advisor.report.charts_data import group_of
from advisor.report.console import short_name, value_text
from advisor.report.metric_rows import METRICS, NONE
from advisor.report.page_tables import Cells, Shown, Table, value_of
from advisor.report.shell import command
from advisor.report.summary import setting_title

EVIDENCE_CHARACTERS = 400
MOST_EVIDENCE = 20  # lines
MOST_TEXT = 8_000  # characters of a configuration
_EFFECTIVE = ("max_batch_size", "max_num_tokens")


@dataclass(frozen=True)
class Detail:
    """What a row opens."""

    diagnosis: str = ""
    remedies: Sequence[str] = ()
    evidence: Sequence[tuple[int, str]] = ()
    settings: Table | None = None
    surprises: Sequence[str] = ()
    command: str = ""
    config_name: str = ""
    config_text: str = ""
    log_tail: str = ""
    phases: str = ""


@dataclass(frozen=True)
class TrialRow:
    """One trial; `cells` are those of the columns behind its number."""

    number: int
    badge: str
    kind: str
    cells: Sequence[str]
    detail: Detail


@dataclass(frozen=True)
class TrialsTable:
    """The table; `words` and `outcome` are numbers of columns that hold words, and how a trial ended."""

    groups: Sequence[tuple[str, int]] = ()
    columns: Sequence[str] = ()
    rows: Sequence[TrialRow] = ()
    words: frozenset[int] = field(default_factory=frozenset)
    outcome: int = 0


def trials_table(sources: Sources) -> TrialsTable:
    """Every trial in order; a group of columns a workload."""
    run = sources.run
    results = () if run.summary is None else run.summary.results
    names = list(dict.fromkeys(name for record in run.records for name in record.config.flat()))
    columns = ["trial", "role", "proposed by", *(short_name(name) for name in names), "outcome", "free, GiB"]
    outcome = len(columns) - 2
    words, groups = {1, 2, outcome}, [("", len(columns))]
    for workload in run.card.workloads:
        words.add(len(columns) + 3)
        columns += ["tok/s", "TTFT p99, ms", "TPOT, ms", "limited by"]
        groups.append((f"{workload.name}, {run.card.source}", 4))
    baseline = next((record.config.flat() for record in run.records if record.role == "baseline"), {})
    rows = [_row(sources, record, results, names, _detail(sources, record, baseline, names)) for record in run.records]
    return TrialsTable(groups, columns, rows, frozenset(words), outcome)


def _row(
    sources: Sources, record: TrialRecord, results: Sequence[Result], names: Sequence[str], detail: Detail
) -> TrialRow:
    group = group_of(results, record)
    flat, memory = record.config.flat(), record.memory_measured_gib
    cells = [
        record.role,
        record.origin,
        *(value_of(flat, name) for name in names),
        record.source if record.measured else summary(record.outcome),
        NONE if memory is None or not record.served else f"{memory.headroom:.1f}",
        *(cell for workload in sources.run.card.workloads for cell in _measured(record, workload.name)),
    ]
    badge = "" if group == "other" else group
    return TrialRow(record.number, badge, badge or ("" if record.served else "lost"), cells, detail)


def _measured(record: TrialRecord, workload: str) -> list[str]:
    outcome = record.workload(workload)
    if outcome is None or outcome.metrics is None:
        return [NONE, NONE, NONE, NONE if outcome is None else outcome.note or NONE]
    limited = (outcome.limited_by or NONE).replace("_", " ")
    return [*(METRICS[number].text(outcome.metrics) for number in (0, 4, 5)), limited]


def _detail(sources: Sources, record: TrialRecord, baseline: dict[str, OptionValue], names: Sequence[str]) -> Detail:
    evidence = sources.evidence.get(record.number, TrialEvidence())
    found = evidence.diagnosis
    engine = sources.run.card.deployment.engine
    return Detail(
        diagnosis=(summary(record.outcome) if found is None else found.summary) if not record.served else "",
        remedies=[] if found is None else [_remedy_text(remedy) for remedy in found.remedies],
        evidence=[(proof.line, proof.text[:EVIDENCE_CHARACTERS]) for proof in record.outcome.evidence[:MOST_EVIDENCE]],
        settings=_settings(record, baseline, names, engine),
        surprises=record.surprises,
        command=command(evidence.argv, {}),
        config_name=evidence.config_name,
        config_text=evidence.config_text[:MOST_TEXT],
        log_tail="\n".join(evidence.log_tail),
        phases=_phases(record),
    )


def _remedy_text(remedy: Remedy) -> str:
    step = "" if remedy.to is None else f" to {value_text(remedy.to)}"
    before = "" if remedy.from_ is None else f" from {value_text(remedy.from_)}"
    frees = "" if remedy.frees_gib is None else f", frees {remedy.frees_gib:.2f} GiB (estimate)"
    return f"{remedy.setting}{before}{step}{frees}: {remedy.why}"


def _settings(record: TrialRecord, baseline: dict[str, OptionValue], names: Sequence[str], engine: str) -> Table:
    """As asked, beside the baseline and what the server really uses; what differs is marked."""
    flat = record.config.flat()
    used = dict(_in_effect(record))
    rows: list[Cells] = []
    kinds = []
    for name in names:
        asked, effect = value_of(flat, name), used.get(name, NONE)
        apart = [
            *(["unlike the baseline"] if baseline and value_of(baseline, name) != asked else []),
            *(["not as asked"] if effect not in (NONE, asked) else []),
        ]
        title = Shown(setting_title(engine, name), code=True, breaks=True)
        rows.append([title, value_of(baseline, name), asked, effect, ", ".join(apart)])
        kinds.append("differs" if apart else "")
    for name, value in used.items():
        if name not in names:
            rows.append([Shown(name, code=True), NONE, NONE, value, ""])
            kinds.append("")
    heads = ["setting", "baseline", "asked", "in effect", ""]
    return Table(f"Settings of trial #{record.number}.", heads, rows, frozenset((4,)), kinds)


def _in_effect(record: TrialRecord) -> Iterator[tuple[str, str]]:
    """What the server said that it uses; nothing where it did not come so far."""
    effective = record.effective
    if effective is None:
        return
    for name in _EFFECTIVE:
        yield name, value_text(getattr(effective, name))
    if effective.cuda_graph_sizes:
        yield "cuda_graph_max_batch_size", value_text(max(effective.cuda_graph_sizes))
        yield "CUDA graphs captured", value_text(len(effective.cuda_graph_sizes))
    yield "max_seq_len", value_text(effective.max_seq_len)
    yield "KV cache, tokens per rank", value_text(effective.kv_tokens)


def _phases(record: TrialRecord) -> str:
    """How long each phase took."""
    if not record.phases:
        return ""
    parts = ", ".join(f"{phase.name} {phase.duration_s:,.1f} s" for phase in record.phases)
    attempts = f", {record.n_attempts} starts" if record.n_attempts > 1 else ""
    return f"Phases: {parts}{attempts}; seed {record.seed}."
