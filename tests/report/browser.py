"""The machine's own Chromium, driven by playwright: no download, no network."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
READY_MS = 60_000


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """A headless browser; skips where the machine has none."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS])
        try:
            yield browser
        finally:
            browser.close()


def opened(context: BrowserContext, page_file: Path) -> tuple[Page, list[str]]:
    """A page with all its charts drawn, and a list that fills with whatever should not happen on it."""
    wrong: list[str] = []
    page = context.new_page()
    page.on("console", lambda message: wrong.append(f"console {message.type}: {message.text}"))
    page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
    page.on("request", lambda asked: None if asked.url == page_file.as_uri() else wrong.append(asked.url[:200]))
    page.goto(page_file.as_uri())
    page.wait_for_selector("body[data-ready=all]", timeout=READY_MS)
    return page, wrong
