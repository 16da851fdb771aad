"""The report in a real Chromium with its network off: it draws, copies, sorts, toggles, and everybody can read it."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, expect

from advisor.report.page_data import ReportData
from advisor.store.trial_folder import committed
from tests.report.browser import READY_MS, opened
from tools.chromium import CHROMIUM, chromium

pytestmark = [pytest.mark.system, pytest.mark.xdist_group("chromium")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    with chromium() as found:
        yield found


@contextlib.contextmanager
def _offline(browser: Browser, **options: object) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, **options)  # type: ignore[arg-type]
    context.set_offline(True)
    try:
        yield context
    finally:
        context.close()


@pytest.fixture(scope="module")
def shared(browser: Browser, study_folder: Path) -> Iterator[tuple[Page, list[str]]]:
    """One open page; each test leaves it as it found it."""
    with _offline(browser, permissions=["clipboard-read", "clipboard-write"]) as context:
        yield opened(context, study_folder / "report.html")


@pytest.fixture
def page(shared: tuple[Page, list[str]]) -> Iterator[Page]:
    page, wrong = shared
    yield page
    assert wrong == []


def test_every_chart_is_drawn_without_network_or_complaint(page: Page, report: ReportData) -> None:
    for name, figure in report.figures.items():
        holder = page.locator(f"figure[data-figure='{name}']")
        assert holder.locator(".plot svg.main-svg").count() > 0, name
        variant = next(iter(figure.variants.values()))
        drawn = holder.locator(".plot").evaluate("plot => plot.data.map(trace => trace.x.length)")
        assert drawn == [len(trace["x"]) for trace in variant["data"]]
    assert page.locator("figure[data-figure]").count() == len(report.figures)


def test_copying_takes_the_file_as_it_is(page: Page, study_folder: Path) -> None:
    page.get_by_role("button", name="Copy extra-llm-api-config.yml").first.click()
    expect(page.locator("#spoken")).to_have_text("Copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == (study_folder / "1k1k_c64" / "extra-llm-api-config.yml").read_text()


def test_copying_works_where_the_clipboard_is_refused(browser: Browser, study_folder: Path) -> None:
    with _offline(browser) as context:
        page, wrong = opened(context, study_folder / "report.html")
        page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('refused')); }")
        page.get_by_role("button", name="Copy the command").click()
        expect(page.locator("#spoken")).to_have_text(re.compile("Copied|Press Ctrl.C"))
        assert page.evaluate("getSelection().toString()").split()[:2] == ["advisor", "tune"]
        assert wrong == []


def test_trials_are_sorted_by_a_column(page: Page, study_folder: Path) -> None:
    records = committed(study_folder)
    numbers = "[...document.querySelectorAll('#trial-table > tbody')].map(body => Number(body.id.slice(6)))"
    rate = {
        record.number: outcome.metrics.output_tok_per_s
        for record in records
        if (outcome := record.workload("1k1k_c64")) and outcome.metrics
    }
    head = page.locator("#trial-table thead tr:last-child th").filter(has_text="tok/s").first
    without = [record.number for record in records if record.number not in rate]
    for falls in (False, True):
        head.get_by_role("button").click()
        assert head.get_attribute("aria-sort") == ("descending" if falls else "ascending")
        order = page.evaluate(numbers)
        assert set(order[-len(without) :]) == set(without)  # what has no number is last, whichever way
        shown = [round(rate[number]) for number in order[: -len(without)]]
        assert shown == sorted(shown, reverse=falls)
    page.locator("#trial-table thead tr:last-child th").first.get_by_role("button").click()
    assert page.evaluate(numbers) == [record.number for record in records]


def test_a_trial_opens_and_closes_by_keyboard(page: Page) -> None:
    button = page.locator("#trial-0 button[aria-expanded]")
    button.focus()
    detail = page.locator("#detail-0")
    assert not detail.is_visible()
    page.keyboard.press("Enter")
    assert detail.is_visible()
    assert "trtllm-serve" in detail.inner_text()
    page.keyboard.press("Space")
    assert not detail.is_visible()


def test_a_legend_entry_hides_and_shows_its_marks(page: Page) -> None:
    holder = page.locator("figure[data-figure='pareto-1k1k_c64']")
    entry = holder.locator(".legend button").filter(has_text="out of memory, predicted place")
    shown = "plot => plot.data.find(trace => trace.name.startsWith('out of memory')).visible !== false"
    for expected in (False, True):
        entry.click()
        assert entry.get_attribute("aria-pressed") == str(expected).lower()
        assert holder.locator(".plot").evaluate(shown) is expected


@pytest.mark.parametrize("name", ["memory", "frontier"])
def test_choosing_changes_the_chart_its_words_and_its_numbers(page: Page, report: ReportData, name: str) -> None:
    holder = page.locator(f"figure[data-figure='{name}']")
    first, *_, last = report.figures[name].variants
    holder.locator("summary").click()
    for label in (last, first):
        holder.locator("select").select_option(label)
        variant = report.figures[name].variants[label]
        expect(holder.locator("figcaption")).to_have_text(variant["about"])
        drawn = holder.locator(".plot").evaluate("plot => plot.data.map(trace => [...trace.y])")
        assert json.loads(json.dumps(drawn)) == [list(trace["y"]) for trace in variant["data"]]
    chart = next(each for each in report.charts.charts if each.family == name)
    assert holder.locator(".numbers tbody tr").count() == min(500, len(chart.rows))
    page.evaluate("document.getElementById('spoken').textContent = ''")
    holder.get_by_role("button", name="Copy as CSV").click()
    expect(page.locator("#spoken")).to_have_text("Copied")
    rows = page.evaluate("navigator.clipboard.readText()").splitlines()
    assert rows[0] == ",".join(chart.columns)
    assert len(rows) == len(chart.rows) + 1
    holder.locator("summary").click()


def test_dark_and_light_by_the_button_and_by_the_system(page: Page) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    plot = "document.querySelector('.plot').layout.template.layout.paper_bgcolor"
    light = page.evaluate(ground)
    assert page.evaluate(plot) == "#ffffff"
    page.locator("#theme").click()
    assert page.evaluate(ground) != light
    assert page.evaluate(plot) == "#14171b"
    page.locator("#theme").click()
    assert page.evaluate(ground) == light
    assert page.evaluate(plot) == "#ffffff"


def test_no_other_script_can_run(browser: Browser, study_folder: Path) -> None:
    """Even one that got into the page: its policy knows two texts, and this is neither."""
    with _offline(browser) as context:
        page, wrong = opened(context, study_folder / "report.html")
        assert page.locator("#trials b, #trials script").count() == 0
        page.evaluate(
            "document.body.append(Object.assign(document.createElement('script'), { textContent: 'window.ran = 1' }))"
        )
        assert page.evaluate("window.ran") is None
        assert len(wrong) == 1
        assert "Content Security Policy" in wrong[0]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_barrier(browser: Browser, study_folder: Path, scheme: str) -> None:
    """The page with a trial and a table of numbers open."""
    with _offline(browser, color_scheme=scheme, bypass_csp=True) as context:
        page, wrong = opened(context, study_folder / "report.html")
        assert wrong == []
        page.locator("#trial-table button[aria-expanded]").first.click()
        page.locator("figure[data-figure='workloads'] summary").click()
        page.wait_for_selector(".numbers table")
        found = Axe().run(page).response["violations"]
        serious = {
            each["id"]: [node["html"][:200] for node in each["nodes"][:3]]
            for each in found
            if each["impact"] in ("serious", "critical")
        }
        assert serious == {}


def test_it_prints_in_light_with_its_charts(browser: Browser, study_folder: Path) -> None:
    with _offline(browser, color_scheme="dark") as context:
        page, wrong = opened(context, study_folder / "report.html")
        assert page.pdf(format="A4").startswith(b"%PDF")
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        widths = page.evaluate("[...document.querySelectorAll('.plot')].map(plot => plot.layout.width)")
        assert set(widths) == {680}
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert wrong == []


NEVER_IDLE = "window.requestIdleCallback = () => 0;"
# What is seen, and what of it is drawn, when the page says that what is in view is drawn.
AT_VIEW = (
    NEVER_IDLE
    + """
const mark = performance.mark.bind(performance);
performance.mark = (stage) => {
  const seen = [...document.querySelectorAll("figure[data-figure]")].filter((figure) => {
    const box = figure.getBoundingClientRect();
    return box.top < innerHeight && box.bottom > 0;
  });
  window.at = { stage, seen: seen.length, drawn: seen.filter((figure) => figure.querySelector("svg.main-svg")).length,
                library: "Plotly" in window };
  return mark(stage);
};
"""
)


@pytest.mark.parametrize("place", ["", "#pareto-1k1k_c64", "#memory"])
def test_in_view_means_that_all_of_it_is_drawn(browser: Browser, study_folder: Path, place: str) -> None:
    """Words do not wait for the chart library; a chart that is seen is waited for."""
    with _offline(browser) as context:
        page = context.new_page()
        page.add_init_script(AT_VIEW)
        page.goto((study_folder / "report.html").as_uri() + place)
        page.wait_for_selector("body[data-ready]", timeout=READY_MS)
        at = page.evaluate("window.at")
        assert at["stage"] == "view"
        assert at["drawn"] == at["seen"]
        assert (at["seen"] > 0) == at["library"] == bool(place)


def test_paper_has_the_charts_that_nobody_scrolled_to(browser: Browser, study_folder: Path) -> None:
    with _offline(browser) as context:
        page = context.new_page()
        page.add_init_script(NEVER_IDLE)
        page.goto((study_folder / "report.html").as_uri() + "#memory")
        page.wait_for_selector("body[data-ready=view]", timeout=READY_MS)
        undrawn = page.locator(".plot:not(:has(svg.main-svg))")
        assert undrawn.count() > 0
        assert page.pdf(format="A4").startswith(b"%PDF")
        assert undrawn.count() == 0


def test_without_scripts_the_tables_are_there(browser: Browser, study_folder: Path) -> None:
    with _offline(browser, java_script_enabled=False) as context:
        page = context.new_page()
        page.goto((study_folder / "report.html").as_uri())
        assert page.locator("noscript p").inner_text().startswith("The charts need JavaScript")
        assert page.locator("#detail-0").is_visible()
        assert not page.locator(".plot").first.is_visible()


def test_a_narrow_screen_scrolls_no_page_sideways(browser: Browser, study_folder: Path) -> None:
    with _offline(browser) as context:
        page = context.new_page()
        page.set_viewport_size({"width": 390, "height": 800})
        page.goto((study_folder / "report.html").as_uri())
        page.wait_for_selector("body[data-ready=all]", timeout=READY_MS)
        assert page.evaluate("document.documentElement.scrollWidth") <= 391
