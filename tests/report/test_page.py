"""The report: it says what its numbers are, shows every trial and the summary's numbers, and no text becomes code."""

from __future__ import annotations

import base64
import csv
import hashlib
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.app.report_sources import contenders, gather
from advisor.app.results import StudySummary
from advisor.app.run_reading import read_run
from advisor.domain.errors import BadInput
from advisor.domain.strict import changed
from advisor.report.charts_data import Chart, ChartsDocument
from advisor.report.charts_memory import COMPONENTS
from advisor.report.page_data import ReportData, report_data
from advisor.report.page_html import embedded, plotly_js, report_page
from advisor.report.visible import visible
from advisor.report.write_report import write_report
from advisor.store.trial_folder import TrialFolder, committed
from tests.report.conftest import SCRIPT_TEXT
from tests.report.page_reader import Page

pytestmark = pytest.mark.xdist_group("chromium")  # they share the run

EVIDENCE = Path(__file__).parents[2] / "studies" / "evidence" / "h100-vllm-0.24.0"
MOST_BYTES = 6_000_000


@pytest.fixture(scope="module")
def page(page_text: str) -> Page:
    return Page(page_text)


@pytest.fixture(scope="module")
def summary(study_folder: Path) -> StudySummary:
    found = read_run(study_folder).summary
    assert found is not None
    return found


def chart(data: ReportData, name: str) -> Chart:
    return next(each for each in data.charts.charts if each.name == name)


def rendered(folder: Path) -> Page:
    return Page(report_page(report_data(gather(folder))))


def test_says_its_source_first_and_in_every_picture(page: Page, report: ReportData) -> None:
    (banner,) = page.all("p", role="note")
    assert banner[1].startswith("SIMULATED")
    assert "no number below is a measurement" in banner[1]
    assert page.all("title")[0][1].startswith("SIMULATED")
    variants = [variant for figure in report.figures.values() for variant in figure.variants.values()]
    assert len(variants) > 20
    assert {variant["layout"]["annotations"][0]["text"] for variant in variants} == {"SIMULATED", "PREDICTED"}
    cells = [words for _, words in page.all("td")]
    assert "simulated" in cells
    assert "measured" not in cells
    assert '"measured"' not in json.dumps(page.document("charts"))


@pytest.mark.parametrize("name", ["study", "oom-load", "oom-start"])
def test_a_measured_study_says_measured(name: str) -> None:
    """Real studies of an H100, written by an older advisor."""
    page = rendered(EVIDENCE / name)
    assert page.all("p", role="note")[0][1] == "MEASURED on 1 x NVIDIA H100 80GB HBM3 with vLLM 0.24.0."
    assert any("older advisor" in words for _, words in page.all("li"))
    assert {each["source"] for each in page.document("charts")["charts"]} <= {"measured", "predicted"}
    assert "simulated" not in json.dumps(page.document("charts"))


def test_every_trial_is_a_row_and_a_mark(study_folder: Path, page: Page, report: ReportData) -> None:
    records = committed(study_folder)
    rows = [int(attributes["id"].removeprefix("trial-")) for attributes, _ in page.all("tbody") if "id" in attributes]
    assert rows == [record.number for record in records]
    for workload in ("1k1k_c64", "2k1k_c32"):
        for kind in ("pareto", "course"):
            numbers = [row["number"] for row in chart(report, f"{kind}-{workload}").records()]
            assert numbers == rows
            (variant,) = report.figures[f"{kind}-{workload}"].variants.values()
            drawn = [number for trace in variant["data"] for number in trace.get("customdata", ())]
            assert sorted(drawn) == rows


def test_a_trial_without_a_result_stands_where_it_is_predicted(report: ReportData) -> None:
    rows = chart(report, "pareto-1k1k_c64").records()
    (fallen,) = (row for row in rows if row["outcome"] == "out_of_memory")
    assert fallen["place"] == "predicted"
    assert fallen["output_tok_per_s_per_gpu"] > 0
    assert fallen["short_gib"] == 3.25
    assert not fallen["keeps_limits"] and not fallen["on_front"]
    (variant,) = report.figures["pareto-1k1k_c64"].variants.values()
    (trace,) = (trace for trace in variant["data"] if trace.get("customdata") == [fallen["number"]])
    assert "predicted place" in trace["name"]


def test_an_oom_says_how_many_gib_were_missing_and_proves_it(page: Page) -> None:
    assert any("out of memory at warm_up (activations), 3.25 GiB short" in words for _, words in page.all("td"))
    assert any(words.startswith("line 1204: OutOfMemoryError") for _, words in page.all("li"))
    said = "End of the log of trial"
    logs = [text for attributes, text in page.all("pre") if attributes.get("aria-label", "").startswith(said)]
    assert len(logs) == 2
    assert all(log.startswith(f"first line\n{SCRIPT_TEXT}\n\u241b[31mred") for log in logs)


def test_comparison_shows_the_summarys_numbers(page_text: str, summary: StudySummary) -> None:
    tables = re.findall(r"<table><caption>Best against.*?</table>", page_text, re.S)
    assert len(tables) == len(summary.results)
    for block, result in zip(tables, summary.results, strict=True):
        shown = {}
        for line in re.findall(r"<tr.*?</tr>", block, re.S):
            row = Page(line)
            shown[row.all("th")[0][1]] = [words for _, words in row.all("td")]
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


def test_is_one_file_that_needs_no_other_and_lets_nothing_else_run(page: Page, page_text: str) -> None:
    assert len(page_text.encode()) < MOST_BYTES
    ids = [attributes["id"] for _, attributes, _ in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for name, attributes, _ in page.elements:
        assert name not in ("img", "link", "iframe", "object", "base")
        assert not {"src", "srcset", "style"} & set(attributes)
        assert not [key for key in attributes if key.startswith("on")]
        if "href" in attributes:
            assert attributes["href"].removeprefix("#") in ids
        for other in " ".join((attributes.get("aria-labelledby", ""), attributes.get("aria-describedby", ""))).split():
            assert other in ids
    ((policy, _),) = page.all("meta", http_equiv="") or page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    (script,) = (words for attributes, words in page.all("script") if "type" not in attributes)
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (script, plotly_js())]
    allowed = re.findall(r"'sha256-([^']+)'", policy["content"])
    assert allowed == digests
    assert policy["content"].startswith("default-src 'none';")
    assert "unsafe-eval" not in policy["content"]


def test_two_hundred_trials_stay_small(copied: Path) -> None:
    records = committed(copied)
    for number in range(len(records), 200):
        like = changed(records[number % len(records)], number=number, role="search")
        TrialFolder(copied, number).commit(like)
    page_file = write_report(copied, copied).page
    assert page_file.stat().st_size < MOST_BYTES
    page = Page(page_file.read_text(encoding="utf-8"))
    assert sum("id" in attributes for attributes, _ in page.all("tbody")) == 200


def test_hostile_words_are_text(page: Page, page_text: str, report: ReportData) -> None:
    assert len(page.all("script")) == 4
    assert not page.all("b")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", page_text)
    assert "\u241b[31mred" in page_text
    assert any(SCRIPT_TEXT in words for _, words in page.all("td"))
    for trace in traces(report):
        for text in flattened(trace.get("text")):
            assert not isinstance(text, str) or not re.search(r"<(?!br>)", text)


def traces(data: ReportData) -> Iterator[dict[str, Any]]:
    for figure in data.figures.values():
        for variant in figure.variants.values():
            yield from variant["data"]


def flattened(values: Any) -> list[Any]:
    if isinstance(values, (list, tuple)):
        return [each for value in values for each in flattened(value)]
    return [values]


def test_the_page_embeds_the_document_beside_it(page: Page, study_folder: Path) -> None:
    beside = (study_folder / "charts.json").read_text(encoding="utf-8")
    assert page.document("charts") == json.loads(beside)
    document = ChartsDocument.model_validate_json(beside)
    assert len({each.name for each in document.charts}) == len(document.charts)
    for each in document.charts:
        assert next(csv.reader(each.csv().splitlines())) == list(each.columns)


def test_a_figure_shows_no_number_that_its_chart_does_not_hold(report: ReportData) -> None:
    families: dict[str, set[Any]] = {}
    for each in report.charts.charts:
        values = families.setdefault(each.family, set())
        values.update(value for row in each.rows for value in row)
        values.update(each.facts.values())
    for name, figure in report.figures.items():
        known = families[name]
        for variant in figure.variants.values():
            for trace in variant["data"]:
                axes = ("z",) if trace["type"] == "heatmap" or name == "frontier" else ("x", "y", "base")
                for value in flattened([trace.get(axis, []) for axis in axes]):
                    assert isinstance(value, str) or value is None or value == 0 or value in known, (name, value)


def test_bars_leave_room_for_the_text_beside_them(report: ReportData) -> None:
    for name in (name for name in report.figures if name.startswith("worth-")):
        (variant,) = report.figures[name].variants.values()
        for axis in ("x", "x2"):
            low, high = variant["layout"][f"{axis[0]}axis{axis[1:]}"]["range"]
            ends = [end for trace in variant["data"] if trace["xaxis"] == axis for end in (0.0, *trace["x"])]
            room = 0.1 * (high - low)
            assert low <= min(ends) - room * (min(ends) < 0)
            assert max(ends) + room * (max(ends) > 0) <= high


def test_what_the_charts_show_is_in_the_csv_and_the_records(study_folder: Path, report: ReportData) -> None:
    with (study_folder / "trials.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for workload in ("1k1k_c64", "2k1k_c32"):
        of = {int(row["number"]): row for row in rows if row["workload"] == workload}
        for mark in chart(report, f"pareto-{workload}").records():
            if mark["place"] == "predicted":
                assert of[mark["number"]]["output_tok_per_s_per_gpu"] == ""
                continue
            for name, digits in (("output_tok_per_s_per_gpu", 0.06), ("output_tok_per_s_per_user", 0.006)):
                assert float(of[mark["number"]][name]) == pytest.approx(mark[name], abs=digits)
        assert [row["short_gib"] for row in of.values() if row["short_gib"]] == ["3.250"]
    records = {record.number: record for record in committed(study_folder)}
    for row in chart(report, "memory").records():
        record = records[row["number"]]
        shown = record.memory_predicted_gib if row["said_by"] == "predicted" else record.memory_measured_gib
        assert shown is not None
        for key, _ in COMPONENTS:
            assert row[f"{key}_gib"] == pytest.approx(getattr(shown, key), rel=1e-5)
        parts = sum(row[f"{key}_gib"] or 0.0 for key, _ in COMPONENTS)
        assert parts + row["left_free_gib"] == pytest.approx(row["capacity_gib"], rel=1e-4)


def test_the_timeline_is_the_time_that_trials_took(study_folder: Path, report: ReportData) -> None:
    found = chart(report, "timeline")
    rows, records = found.records(), committed(study_folder)
    whole = sum(record.duration_s for record in records)
    assert sum(row["duration_s"] for row in rows) == pytest.approx(whole, rel=1e-4)
    assert sum(value for key, value in found.facts.items() if isinstance(value, float)) == pytest.approx(
        whole, rel=1e-4
    )
    for before, after in itertools.pairwise(rows):
        assert before["start_s"] + before["duration_s"] == pytest.approx(after["start_s"], rel=1e-4)
    lost = {row["number"] for row in rows if row["spent_on"] == "lost"}
    assert lost == {record.number for record in records if record.outcome.kind in ("out_of_memory", "crashed")}


def test_latencies_rise_and_end_at_their_percentiles(report: ReportData, summary: StudySummary) -> None:
    for result in summary.results:
        rows = chart(report, f"latency-{result.workload_name}").records()
        for contender, entry in contenders(result):
            for latency in ("ttft", "tpot", "itl"):
                line = [row["ms"] for row in rows if (row["contender"], row["latency"]) == (contender, latency)]
                assert line == sorted(line)
                assert len(line) == 101, "every whole percentile"
                told = [getattr(each, f"{latency}_ms") for each in entry.repeats]
                lowest, highest = (pick([each.p95 for each in told]) for pick in (min, max))
                assert 0.95 * lowest <= line[95] <= 1.05 * highest, "of all benchmarks together, where told are means"


def test_one_configuration_for_all_workloads_has_its_place(page: Page) -> None:
    ((_, words),) = page.all("section", id="robust")
    assert "One configuration for all 2 workloads" in words
    assert "1k1k_c64" in words


def test_a_run_that_was_killed_still_has_its_report(copied: Path) -> None:
    """No summary yet, and the last trial has no outcome."""
    (copied / "summary.json").unlink()
    numbers = [record.number for record in committed(copied)]
    (copied / "trials" / f"{numbers[-1]:04d}" / "outcome.json").unlink()
    page = rendered(copied)
    assert any("has not ended" in words for _, words in page.all("li"))
    rows = [attributes["id"] for attributes, _ in page.all("tbody") if "id" in attributes]
    assert rows == [f"trial-{number}" for number in numbers[:-1]]
    assert page.document("charts")["charts"]


def test_a_run_without_any_trial_says_so(copied: Path) -> None:
    for path in (copied / "trials").glob("*/outcome.json"):
        path.unlink()
    (copied / "summary.json").unlink()
    page = rendered(copied)
    assert any("No trial has ended yet" in words for _, words in page.all("p"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("summary.json", "{"),
        ("summary.json", '{"schema_version": 99}'),
        ("study.json", "[]"),
        ("earlier.json", '{"runs": 3}'),
        ("trials/0001/outcome.json", '{"number": 1}'),
        ("trials/0001/argv.json", '{"a": [[[['),
        ("trials/0001/samples-1k1k_c64.npz", "not an archive"),
        ("1k1k_c64/extra-llm-api-config.yml", "\x00\x01"),
    ],
)
def test_a_damaged_file_is_left_out_and_named(copied: Path, name: str, text: str) -> None:
    (copied / name).write_text(text, encoding="utf-8")
    found = report_data(gather(copied))
    page = Page(report_page(found))
    assert page.all("section", id="trials")
    if name.endswith("outcome.json") or name.count("/") == 0:
        assert any(Path(name).name in notice or "0001" in notice for notice in found.notices), found.notices


def test_names_in_documents_lead_nowhere(copied: Path, tmp_path: Path) -> None:
    """A summary edited by hand cannot make the report read files elsewhere."""
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "serve.sh").write_text("a secret")
    text = (copied / "summary.json").read_text()
    (copied / "summary.json").write_text(text.replace('"workload_name": "1k1k_c64"', '"workload_name": "../secret"'))
    assert "a secret" not in report_page(report_data(gather(copied)))


def test_what_is_no_run_is_refused_with_the_way_out(study_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="There is no folder"):
        gather(tmp_path / "nowhere")
    with pytest.raises(BadInput, match="is no run folder"):
        gather(tmp_path)
    with pytest.raises(BadInput, match=re.escape(f"advisor report {study_folder}")):
        gather(study_folder.parent)
    (tmp_path / "trials").mkdir()
    with pytest.raises(BadInput, match="says what they are about"):
        gather(tmp_path)


def test_writing_it_again_writes_the_same(study_folder: Path, tmp_path: Path, page_text: str) -> None:
    written = write_report(study_folder, tmp_path / "again")
    assert written.page.read_text(encoding="utf-8") == page_text
    assert written.charts.read_bytes() == (study_folder / "charts.json").read_bytes()


@given(
    st.recursive(
        st.text() | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_embedded_json_reads_back_and_ends_nothing(document: Any) -> None:
    text = embedded(document)
    assert json.loads(text) == document
    assert not set("<>&\u2028\u2029") & set(text)
    assert text.isascii()


@given(st.text(st.characters()))
def test_what_can_be_seen_is_left_as_it_is(words: str) -> None:
    shown = visible(words)
    assert visible(shown) == shown
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", shown)
    if words.isprintable():
        assert shown == words
