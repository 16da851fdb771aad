"""How long the report takes to write and to open, and how large it is: `make bench-report-page`.

A small study of the twin is played, its trials are repeated until there are as many as asked for, every seventh of them
turned into one that ran out of memory, and `advisor report` is asked for the page. It is opened in the machine's own
Chromium from `file://`, network off, until what is in view is drawn, and until every chart is; times are the best of
three.
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
from tests.report.browser import opened
from tools.chromium import chromium

SIZES = (24, 200, 1000)
TARGET_S, TARGET_BYTES = 3.0, 6_000_000
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
        for n in SIZES:
            grown(session, records, n)
            began_s = time.monotonic()
            written = write_report(session.run_folder, Path(name) / "page")
            write_s = time.monotonic() - began_s
            view_s, all_s = map(min, zip(*(_open_s(browser, written.page) for _ in range(N_OPENED)), strict=True))
            size = written.page.stat().st_size
            met = "met" if view_s <= TARGET_S and (n > 200 or size <= TARGET_BYTES) else "MISSED"
            print(
                f"{n:5} trials: written in {write_s:5.2f} s, {size / 1e6:5.2f} MB, "
                f"open in {view_s:5.2f} s, every chart drawn in {all_s:5.2f} s  {met}"
            )


def _open_s(browser: Browser, page_file: Path) -> tuple[float, float]:
    """Seconds from the navigation until what is in view is drawn, and until every chart is, by the page's own clock."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_offline(True)
    page, _ = opened(context, page_file)
    view_ms, all_ms = (
        page.evaluate(f"performance.getEntriesByName('{stage}')[0].startTime") for stage in ("view", "all")
    )
    context.close()
    return view_ms / 1000, all_ms / 1000


if __name__ == "__main__":
    main()
