"""The built site in a real browser, opened from its folder with the network off."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from tools.chromium import CHROMIUM, chromium
from tools.site_hooks import ROOT, documents_outside, site_text, site_uri

PAGES = ("index", "out-of-memory", "reference/cli", "concepts", "decisions/index")  # one of each kind
SCHEMES = (("light", ("index", "out-of-memory", "reference/cli")), ("dark", ("index", "tutorial")))

pytestmark = [pytest.mark.system, pytest.mark.xdist_group("site")]  # built once


def build(root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Build the site of a repository with the command of our Makefile."""
    found = re.search(r"^build_site = (.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert found
    command = [*found[1].replace("$(BIN)", str(Path(sys.executable).parent)).split(), *options]
    return subprocess.run(["env", *command], cwd=root, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    built = build(ROOT, "--site-dir", str(folder))
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.fail("chromium is missing")
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page without a network; anything it complains of fails the test."""
    context = browser.new_context(offline=True, viewport={"width": 1280, "height": 900})
    page, complaints = context.new_page(), list[str]()
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith("file:") else complaints.append(request.url))
    yield page
    context.close()
    assert complaints == []


def serious(page: Page) -> list[str]:
    """What an accessibility audit finds that keeps people out."""
    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    return [
        f"{each['id']}: {[node['target'] for node in each['nodes'][:3]]}"
        for each in found
        if each["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize(("scheme", "names"), SCHEMES)
def test_pages_are_accessible(
    site: Path, browser: Browser, scheme: Literal["light", "dark"], names: tuple[str, ...]
) -> None:
    """In a page of its own: the audit asks for style sheets, which a browser refuses it under file://."""
    with browser.new_page(color_scheme=scheme, offline=True) as page:
        for name in names:
            page.goto(f"{site.as_uri()}/{name}.html")
            assert page.locator("h1").count() == 1, name
            assert serious(page) == [], f"{name}, {scheme}"


def test_search_finds_the_handbook_first(site: Path, page: Page) -> None:
    page.goto(f"{site.as_uri()}/index.html")
    page.get_by_role("textbox", name="Search").press_sequentially("out of memory")
    first = page.locator(".md-search-result__link").first
    first.wait_for()
    assert first.inner_text().startswith("Out-of-memory handbook")


def test_pages_need_no_network_and_fit_a_narrow_screen(site: Path, page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    for name in PAGES:
        page.goto(f"{site.as_uri()}/{name}.html")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, name


def test_pictures_are_shown(site: Path, page: Page) -> None:
    page.goto(f"{site.as_uri()}/concepts.html")
    widths = page.evaluate("[...document.querySelectorAll('article img')].map(image => image.naturalWidth)")
    assert len(widths) == 3
    assert min(widths) > 100


def test_a_page_outside_the_navigation_and_a_link_to_nowhere_fail_the_build(tmp_path: Path) -> None:
    for name in ("mkdocs.yml", "tools/site_hooks.py", "docs/decisions/README.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "docs" / "slo.md").write_text("# Limits\n", encoding="utf-8")
    (tmp_path / "docs" / "stray.md").write_text("# Stray\n\n[there](slo.md#nowhere)\n", encoding="utf-8")
    built = build(tmp_path)
    assert built.returncode != 0
    assert "  - stray.md\n" in built.stderr
    assert "'slo.md' does not contain an anchor '#nowhere'" in built.stderr


def test_links_that_leave_docs_hold_on_the_site() -> None:
    text = (
        "See [the rules](../CONTRIBUTING.md#house-rules), [code](../tools/check_docs.py) and [a page](slo.md#limits).\n"
    )
    assert site_text(text, Path("docs/index.md")) == (
        "See [the rules](repository/CONTRIBUTING.md#house-rules), code and [a page](slo.md#limits).\n"
    )


def test_a_link_to_nowhere_stays_so_that_the_build_finds_it() -> None:
    text = "[gone](../gone.md) and [gone](gone.csv)\n"
    assert site_text(text, Path("docs/index.md")) == text


def test_code_blocks_are_left_alone() -> None:
    text = "```text\n[the rules](../CONTRIBUTING.md)\n```\n"
    assert site_text(text, Path("docs/index.md")) == text


def test_documents_outside_are_found_and_named() -> None:
    assert {Path("CONTRIBUTING.md"), Path("CHANGELOG.md")} <= set(documents_outside(Path("docs/index.md")))
    assert site_uri(Path("NOTICE")) == "repository/NOTICE.md"
    assert site_uri(Path("docs/slo.md")) == "slo.md"
