"""A page of ours in the machine's Chromium, and all that it complains of."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import BrowserContext, Page

READY_MS = 60_000


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
