"""A diagnosis for people: the verdict first, then where, the proof, and what to change."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from rich.text import Text

from advisor.domain.outcome import Phase
from advisor.memory.diagnosis import Diagnosis
from advisor.memory.events import LogEvent
from advisor.memory.pricing import Price
from advisor.memory.remedies import Remedy
from advisor.report.console import WIDTH_WITHOUT_TERMINAL, value_text
from advisor.report.price_view import price_text

_STYLES = {"benign": "bold green", "unknown": "bold yellow", "request_rejected": "bold yellow"}


def diagnosis_json(diagnosis: Diagnosis) -> str:
    """One JSON document."""
    return diagnosis.model_dump_json(indent=2, by_alias=True)


def diagnosis_lines(diagnosis: Diagnosis) -> Iterator[Text]:
    """Lines of text; evidence and patches stay whole, so that they can be searched for and pasted."""
    yield Text(diagnosis.summary, style=_STYLES.get(diagnosis.verdict, "bold red"))
    yield Text()
    detail = f" ({diagnosis.phase_detail})" if diagnosis.phase_detail else ""
    short = None if diagnosis.short_gib is None else f"{diagnosis.short_gib:.2f} GiB"
    engine = {"trtllm": "TensorRT-LLM", "vllm": "vLLM", None: None}[diagnosis.engine]
    facts = {
        "verdict": diagnosis.verdict,
        "phase": f"{diagnosis.phase}{detail}" if diagnosis.phase else None,
        "component": diagnosis.component,
        "short": short,
        "engine": f"{engine} {diagnosis.engine_version or ''}".strip() if engine else None,
    }
    for name, value in facts.items():
        if value:
            yield Text.assemble((f"  {name:<10} ", "dim"), value)
    if diagnosis.evidence:
        yield Text("\nEvidence", style="bold")
        width = max(len(str(each.line)) for each in diagnosis.evidence)
        for each in diagnosis.evidence:
            yield Text.assemble((f"  line {each.line:>{width}}  ", "dim"), each.text)
    if diagnosis.remedies:
        yield Text("\nWhat to change, cheapest first", style="bold")
    for number, remedy in enumerate(diagnosis.remedies, start=1):
        yield from _remedy(number, remedy)
    yield from _patch(diagnosis)
    yield from _prices(diagnosis.prices)
    if diagnosis.calibration != "none":
        yield Text(f"\nThe memory law was fitted to {diagnosis.calibration}.", style="dim")
    if diagnosis.next_probe:
        yield Text("\nTo be sure", style="bold")
        yield from _wrapped(diagnosis.next_probe, "  ")
    for note in diagnosis.notes:
        yield from _wrapped(f"Note: {note}", "")


def phase_line(phase: Phase, event: LogEvent) -> Text:
    """One line while a log is followed: the phase, and what says so."""
    return Text.assemble((f"{phase:<12}", "bold"), (f" line {event.line}  ", "dim"), event.text)


def _remedy(number: int, remedy: Remedy) -> Iterator[Text]:
    before = "" if remedy.from_ is None else f" {value_text(remedy.from_)}"
    after = "" if remedy.to is None else f" -> {value_text(remedy.to)}" if before else f" = {value_text(remedy.to)}"
    frees = f", frees about {remedy.frees_gib:.2f} GiB" if remedy.frees_gib else ""
    enough = {None: "", True: ", enough alone", False: ", not enough alone"}[remedy.covers]
    yield Text.assemble(
        f"  {number}. ",
        (remedy.setting, "bold"),
        f"{before}{after}{frees}{enough} ",
        (f"({remedy.confidence} confidence)", "dim"),
    )
    yield from _wrapped(f"{remedy.why}{_costs(remedy)}", "     ")
    for line in (remedy.yaml_patch or "").splitlines():
        yield Text(f"       {line}", style="cyan")
    if remedy.flag and not remedy.yaml_patch:
        yield Text(f"       {remedy.flag}", style="cyan")


def _costs(remedy: Remedy) -> str:
    """KV tokens by the memory law, throughput by the twin: estimates both."""
    said = []
    if remedy.kv_tokens_change:
        said.append(f"about {remedy.kv_tokens_change:+,} KV tokens")
    if remedy.throughput_change is not None:
        percent = round(100 * remedy.throughput_change, 1) + 0.0  # no -0.0
        said.append(f"{percent:+.1f} % output tok/s, estimated by the twin")
    return f" [{'; '.join(said)}]" if said else ""


def _patch(diagnosis: Diagnosis) -> Iterator[Text]:
    """What to merge, where it is more than one remedy's own patch."""
    single = any(remedy.yaml_patch == diagnosis.yaml_patch for remedy in diagnosis.remedies)
    if diagnosis.yaml_patch is None or (single and not diagnosis.flags):
        return
    yield Text("\nTogether", style="bold")
    for line in diagnosis.yaml_patch.splitlines():
        yield Text(f"  {line}", style="cyan")
    for flag in diagnosis.flags:
        yield Text(f"  {flag}", style="cyan")


def _prices(prices: Sequence[Price]) -> Iterator[Text]:
    if prices:
        yield Text("\nWhat a step is worth on one GPU, by the memory law", style="bold")
    width = max((len(price.setting) for price in prices), default=0)
    for price in prices:
        yield Text(f"  {price.setting:<{width}}  {price_text(price)}")


def _wrapped(text: str, indent: str) -> Iterator[Text]:
    for line in textwrap.wrap(text, WIDTH_WITHOUT_TERMINAL, initial_indent=indent, subsequent_indent=indent):
        yield Text(line)
