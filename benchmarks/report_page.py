"""How long the report takes to write and to open, and how large it is: `make bench-report-page`.

A small study of the twin is played, its trials are repeated until there are as many as asked for, every seventh of them
turned into one that ran out of memory, and `advisor report` is asked for the page. It is opened in the machine's own
Chromium from `file://`, network off, until all of the first screen is drawn and until every chart is; then at the
address of its first chart, until the screen that shows it is drawn. Times are the best of three.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from playwright.sync_api import Browser

from advisor.app.api import _Quiet
from advisor.app.setup import Question
from advisor.app.tuning import How, Session, open_session
from advisor.domain.outcome import OutOfMemory
from advisor.domain.strict import changed
from advisor.domain.trial import TrialRecord
from advisor.report import bundle
from advisor.report.write_report import write_report
from advisor.store.trial_folder import TrialFolder
from tests.report.browser import READY_MS
from tools.chromium import chromium

OPEN_TARGET_S = {24: 1.0, 200: 1.0, 1000: 3.0}
MOST_BYTES = {24: 6_000_000, 200: 6_000_000}
FIRST_CHART = "#pareto-1k1k_c64"
N_OPENED = 3
OOM_EVERY = 7
SHORT = OutOfMemory(phase="warm_up", component="activations", short_gib=1.5)


def played(out: Path) -> tuple[Session, list[TrialRecord]]:
    """A study of two workloads, and its trials."""
    session = open_session(Question(workloads=("1k1k_c64", "2k1k_c32"), max_launches=12), How(engine="twin", out=out))
    quiet = _Quiet()
    with session.open_ledger() as ledger:
        session.run(ledger, quiet, quiet)
        return session, list(ledger.records())


def grown(session: Session, records: list[TrialRecord], n: int) -> None:
    """The run folder with `n` trials."""
    more = list(records)
    while len(more) < n:
        like = records[len(more) % len(records)]
        update = {"outcome": SHORT, "workloads": (), "memory_measured_gib": None} if len(more) % OOM_EVERY == 0 else {}
        more.append(changed(like, number=len(more), role="search", **update))
        TrialFolder(session.run_folder, len(more) - 1).commit(more[-1])
    bundle.write(session, more, session.summary(records, "budget"))


def main() -> None:
    """Print a line a size."""
    with tempfile.TemporaryDirectory(prefix="report-") as name, chromium() as browser:
        session, records = played(Path(name))
        print(f"Chromium {browser.version}, offline")
        for n, target_s in OPEN_TARGET_S.items():
            grown(session, records, n)
            began_s = time.monotonic()
            written = write_report(session.run_folder, Path(name) / "page")
            write_s = time.monotonic() - began_s
            view_s, all_s = _open_s(browser, written.page)
            chart_s, _ = _open_s(browser, written.page, FIRST_CHART)
            size = written.page.stat().st_size
            met = "met" if view_s <= target_s and size <= MOST_BYTES.get(n, size) else "MISSED"
            print(
                f"{n:5} trials: written in {write_s:5.2f} s, {size / 1e6:5.2f} MB, open in {view_s:5.2f} s, "
                f"at its first chart in {chart_s:5.2f} s, every chart drawn in {all_s:5.2f} s  {met}"
            )


def _open_s(browser: Browser, page_file: Path, place: str = "") -> tuple[float, float]:
    """Seconds from the navigation until what is in view is drawn, and until every chart is, by the page's own clock.

    The best of each.
    """
    times_s = []
    for _ in range(N_OPENED):
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        context.set_offline(True)
        page = context.new_page()
        page.goto(page_file.as_uri() + place)
        page.wait_for_selector("body[data-ready=all]", timeout=READY_MS)
        mark_ms = "stage => performance.getEntriesByName(stage)[0].startTime"
        times_s.append([page.evaluate(mark_ms, stage) / 1000 for stage in ("view", "all")])
        context.close()
    view_s, all_s = map(min, zip(*times_s, strict=True))
    return view_s, all_s


if __name__ == "__main__":
    main()
