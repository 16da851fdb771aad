"""The report: it says what its numbers are, shows every trial and the summary's numbers, and no text becomes code."""

from __future__ import annotations

import csv
import io
import json
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from advisor.app.api import _Quiet
from advisor.app.results import StudySummary
from advisor.app.setup import Question
from advisor.app.tuning import How, Session, open_session
from advisor.cli.app import app
from advisor.domain.outcome import Crashed, Evidence, OutOfMemory
from advisor.domain.trial import TrialRecord
from advisor.report import bundle
from advisor.report.charts import marks
from advisor.report.html import report_html
from advisor.report.markup import Html, join, tag
from advisor.report.memory_view import COMPONENTS
from advisor.report.plan_view import plan_document
from advisor.report.reproduce import tune_argv
from advisor.report.svg import ticks
from advisor.store import catalog

VOID = {"meta", "wbr", "br", "hr", "img", "input", "link"}
SCRIPT_TEXT = "<script>alert(1)</script>"
ESCAPE_TEXT = "\x1b[31mred\x1b[0m \x00 \u202eevil \ud800"


class Page(HTMLParser):
    """Elements in order with their attributes and the text inside each; refuses what is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[int] = []
        self.elements: list[tuple[str, dict[str, str], list[str]]] = []
        self.feed(text)
        self.close()
        assert self.open == [], [self.elements[number][0] for number in self.open]

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((name, {key: value or "" for key, value in attributes}, []))
        if name not in VOID:
            self.open.append(len(self.elements) - 1)

    def handle_endtag(self, name: str) -> None:
        assert self.elements[self.open.pop()][0] == name

    def handle_data(self, text: str) -> None:
        for number in self.open:
            self.elements[number][2].append(text)

    def all(self, name: str, **wanted: str) -> list[tuple[dict[str, str], str]]:
        return [
            (attributes, "".join(words))
            for found, attributes, words in self.elements
            if found == name and all(attributes.get(key) == value for key, value in wanted.items())
        ]


def rendered(session: Session, records: list[TrialRecord], summary: StudySummary | None = None) -> str:
    summary = summary or session.summary(records, "budget")
    texts = {each.workload_name: bundle.workload_files(session, each) for each in summary.results if each.best}
    argv = tune_argv(session.context, session.resolved.study, catalog.study_names())
    return report_html(session.context, summary, records, texts, argv=argv, version="1.2.3")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Session, list[TrialRecord]]:
    """A small study of two workloads, with one trial that ran out of memory and one that crashed."""
    question = Question(workloads=("1k1k_c64", "2k1k_c32"), max_launches=10, slo="ttft:p99<20s")
    session = open_session(question, How(engine="twin", out=tmp_path_factory.mktemp("out"), seed=3))
    quiet = _Quiet()
    with session.open_ledger() as ledger:
        session.run(ledger, quiet, quiet)
        records = list(ledger.records())
    proof = (Evidence(line=1204, text=f"OutOfMemoryError {ESCAPE_TEXT} {SCRIPT_TEXT}"),)
    oom = OutOfMemory(phase="warm_up", component="activations", short_gib=3.25, evidence=proof)
    crash = Crashed(phase="load", reason=f"{SCRIPT_TEXT} {ESCAPE_TEXT}")
    searched = [number for number, record in enumerate(records) if record.role in ("start", "search")]
    for number, outcome in zip(searched[-2:], (oom, crash), strict=True):
        nothing = {"outcome": outcome, "workloads": (), "memory_measured_gib": None}
        records[number] = records[number].model_copy(update=nothing)
    return session, records


@pytest.fixture(scope="module")
def text(ran: tuple[Session, list[TrialRecord]]) -> str:
    return rendered(*ran)


def test_says_its_source_first_and_in_every_picture(text: str) -> None:
    page = Page(text)
    (banner,) = page.all("p", role="note")
    assert banner[1].startswith("SIMULATED")
    assert "no number below is a measurement" in banner[1]
    assert page.all("title")[0][1].startswith("SIMULATED")
    pictures = page.all("svg", role="img")
    assert len(pictures) == 6
    assert all("simulated" in words for _, words in pictures)
    cells = [words for _, words in page.all("td")]
    assert "simulated" in cells
    assert "measured" not in cells


def test_a_measured_study_says_measured(ran: tuple[Session, list[TrialRecord]]) -> None:
    session, records = ran
    label = "measured on 8 x B200 SXM"
    summary = session.summary(records, "budget")
    results = tuple(each.model_copy(update={"source": "measured", "label": label}) for each in summary.results)
    measured = summary.model_copy(update={"source": "measured", "label": label, "results": results})
    page = Page(rendered(session, records, measured))
    assert page.all("p", role="note")[0][1] == "MEASURED on 8 x B200 SXM."
    assert all("measured" in words and "simulated" not in words for _, words in page.all("svg", role="img"))


def test_every_trial_is_a_row_and_every_measured_one_a_mark_in_both_charts(
    ran: tuple[Session, list[TrialRecord]], text: str
) -> None:
    session, records = ran
    page = Page(text)
    rows = [words for attributes, words in page.all("th", scope="row") if re.match(r"#\d+ ", words)]
    assert [int(words[1:].split()[0]) for words in rows] == [record.number for record in records]
    assert 0 < sum(record.measured for record in records) < len(records)
    wanted = [f"#{record.number}" for record in records if record.measured]
    for result in session.summary(records, "budget").results:
        for chart in ("tradeoff", "course"):
            drawing = text[text.index(f'id="{chart}-{result.workload_name}"') :]
            drawing = drawing[: drawing.index("</svg>")]
            found = re.findall(r'class="mark [^"]*"><title>(#\d+)', drawing)
            assert sorted(found) == sorted(wanted)
            assert len(re.findall(r'class="oom"><title>', drawing)) == (chart == "course")
        assert [mark.record.number for mark in marks(result, records)] == [r.number for r in records if r.measured]


def test_an_oom_says_how_many_gib_were_missing_and_proves_it(text: str) -> None:
    page = Page(text)
    assert any("out of memory at warm_up (activations), 3.25 GiB short" in words for _, words in page.all("summary"))
    assert any(words.startswith("line 1204: OutOfMemoryError") for _, words in page.all("li"))
    assert sum(words == "3.25 GiB short" for _, words in page.all("text")) == 2


def test_comparison_shows_the_summarys_numbers(ran: tuple[Session, list[TrialRecord]], text: str) -> None:
    session, records = ran
    tables = [block for block in re.findall(r"<table>.*?</table>", text, re.S) if "<caption>Best against" in block]
    results = session.summary(records, "budget").results
    assert len(tables) == len(results)
    for block, result in zip(tables, results, strict=True):
        page = Page(block)
        shown = {}
        for line in re.findall(r"<tr.*?</tr>", block, re.S):
            row = Page(line)
            shown[row.all("th")[0][1]] = [words for _, words in row.all("td")]
        assert page.all("th", scope="col")
        best, base = result.best, result.baseline.compared
        assert best is not None
        assert base is not None
        for number, entry in enumerate((best, base)):
            metrics, memory = entry.metrics, entry.memory_gib
            assert memory is not None
            assert metrics.tpot_ms is not None
            assert shown["Output, tok/s"][number] == f"{metrics.output_tok_per_s:,.0f}"
            assert shown["Output per GPU, tok/s"][number] == f"{metrics.output_tok_per_s_per_gpu:,.0f}"
            assert shown["TTFT p99, ms"][number] == f"{metrics.ttft_ms.p99:,.0f}"
            assert shown["TPOT mean, ms"][number] == f"{metrics.tpot_ms.mean:,.2f}"
            assert shown["KV pool, GiB per GPU"][number] == f"{memory.kv_pool:,.2f}"
            assert shown["max_batch_size"][number] == f"{entry.serving_config.max_batch_size:,}"
        ratio = best.metrics.output_tok_per_s / base.metrics.output_tok_per_s
        change = shown["Output, tok/s"][2]
        assert change == "same" if abs(ratio - 1) < 0.0005 else change.startswith(f"{100 * (ratio - 1):+.1f} %")


def test_is_one_file_that_needs_no_other(text: str) -> None:
    page = Page(text)
    assert len(text.encode()) < 300_000
    ids = [attributes["id"] for _, attributes, _ in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for name, attributes, _ in page.elements:
        assert name not in ("img", "link", "iframe", "object", "base")
        assert not {"src", "srcset", "style"} & set(attributes)
        assert not [key for key in attributes if key.startswith("on")]
        if "href" in attributes:
            assert attributes["href"].removeprefix("#") in ids
        for other in attributes.get("aria-labelledby", "").split():
            assert other in ids
    assert "url(" not in text
    assert "@import" not in text
    assert len(page.all("script")) == 1


def test_hostile_names_are_text(ran: tuple[Session, list[TrialRecord]]) -> None:
    session, records = ran
    summary = session.summary(records, "budget")
    evil = f"{SCRIPT_TEXT}\"' onload=x {ESCAPE_TEXT}"
    results = tuple(
        each.model_copy(
            update={
                "label": evil,
                "study": evil,
                "baseline": each.baseline.model_copy(update={"name": evil, "why": evil}),
            }
        )
        for each in summary.results
    )
    text = rendered(session, records, summary.model_copy(update={"label": evil, "study": evil, "results": results}))
    page = Page(text)
    assert len(page.all("script")) == 1
    assert not [key for _, attributes, _ in page.elements for key in attributes if key.startswith("on")]
    assert SCRIPT_TEXT in page.all("p", role="note")[0][1]
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\ud800-\udfff]", text)
    assert "\u241b[31mred" in text
    text.encode()


def test_a_study_without_a_winner_still_has_its_report(ran: tuple[Session, list[TrialRecord]]) -> None:
    session, records = ran
    page = Page(rendered(session, [record for record in records if not record.measured]))
    assert any("Nothing feasible" in words for _, words in page.all("p"))
    assert any("3.25 GiB short" in words for _, words in page.all("summary"))
    Page(rendered(session, []))


def test_one_configuration_for_all_workloads_has_its_place(ran: tuple[Session, list[TrialRecord]], text: str) -> None:
    session, records = ran
    ((_, words),) = Page(text).all("section", id="robust")
    assert "One configuration for all 2 workloads" in words
    assert "1k1k_c64" in words
    nothing = [record for record in records if not record.measured]
    ((_, words),) = Page(rendered(session, nothing)).all("section", id="robust")
    assert "No configuration that was launched serves all workloads" in words


MAVERICK = "nvidia/Llama-4-Maverick-17B-128E-Instruct-FP8"


@pytest.mark.parametrize(
    ("question", "how"),
    [
        (Question(isl="1024", osl="8192"), How(engine="twin")),
        (
            Question(study="llama3.3-70b-fp8-h200", tp=8, slo="ttft:p95<2s", max_hours=2.5, gpu_hours=30.0),
            How(engine="twin", twin_world=3, sampler="random", seed=7, baselines=("trtllm-bench",)),
        ),
        (
            Question(
                model=MAVERICK, attention_dp=False, workloads=("3000to4096-700_r2.5",), search_space="low_latency"
            ),
            How(engine="twin"),
        ),
        (
            Question(model="meta-llama/Llama-3.1-8B-Instruct", gpu="h200_sxm", engine_version="1.1.0"),
            How(engine="twin"),
        ),
        (Question(workloads=("1k1k_c64", "4k1k_c64"), objective="tpot:mean", max_launches=9), How(engine="twin")),
    ],
)
def test_the_command_shown_asks_for_the_same_run(question: Question, how: How) -> None:
    """The command line itself takes the command that the report shows back to the same plan."""
    session = open_session(question, how)
    argv = tune_argv(session.context, session.resolved.study, catalog.study_names())
    answer = CliRunner().invoke(app, [*argv[1:], "--dry-run", "--output", "json"])
    assert answer.exit_code == 0, answer.output
    assert f"--sampler {how.sampler} --seed {how.seed}" in " ".join(argv)
    assert json.loads(answer.stdout) == plan_document(session).model_dump(mode="json")


def test_what_the_charts_show_is_in_the_csv(ran: tuple[Session, list[TrialRecord]]) -> None:
    session, records = ran
    rows = list(csv.DictReader(io.StringIO(bundle.trials_csv(session, records))))
    for result in session.summary(records, "budget").results:
        of = {int(row["number"]): row for row in rows if row["workload"] == result.workload_name}
        assert len(of) == len(records)
        for mark in marks(result, records):
            row, memory = of[mark.record.number], mark.record.memory_measured_gib
            assert float(row["output_tok_per_s_per_gpu"]) == pytest.approx(
                mark.metrics.output_tok_per_s_per_gpu, abs=0.06
            )
            assert float(row["output_tok_per_s_per_user"]) == pytest.approx(
                mark.metrics.output_tok_per_s_per_user, abs=0.006
            )
            assert memory is not None
            for name, _ in COMPONENTS:
                assert float(row[f"{name}_gib"]) == pytest.approx(getattr(memory, name), abs=6e-4)
        short = {number: row["short_gib"] for number, row in of.items() if row["short_gib"]}
        assert list(short.values()) == ["3.250"]


@given(st.floats(1e-6, 1e9))
def test_ticks_are_few_rise_evenly_and_stay_inside(high: float) -> None:
    found = ticks(high)
    assert 3 <= len(found) <= 8
    assert found[0] == 0
    assert found[-1] <= high * (1 + 1e-6)
    assert high - found[-1] < found[1] * (1 + 1e-6)


@given(st.text(st.characters()), st.text(st.characters()))
def test_text_and_attributes_come_out_as_they_went_in(words: str, value: str) -> None:
    """Whatever can be seen is unchanged; nothing opens an element or an attribute."""
    element = tag("p", words, title=value)
    assert isinstance(element, Html)
    page = Page(element)
    ((name, attributes, _),) = page.elements
    assert (name, set(attributes)) == ("p", {"title"})
    if words.isprintable() and value.isprintable():
        assert page.all("p") == [({"title": value}, words)]
    assert join(element) == element
