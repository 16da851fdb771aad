"""The report while a study runs: rendered anew between trials, never during one, and shown on the loopback address."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from advisor.domain.errors import BadInput
from advisor.domain.ports import Asked, Reporter, TrialEvent
from advisor.domain.trial import TrialRecord
from advisor.host.page_server import PageServer

LOOK_EVERY_S = 1.0  # for trials that ended
_NOTHING_YET = (
    '<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>advisor, live</title>'
    "<style>:root { color-scheme: light dark; font: 16px system-ui; }</style>"
    "<p>The report appears when the first trial has ended.</p></html>\n"
)


class LivePage:
    """Publishes the page of a study on a server; without one it does nothing.

    Args:
        server: Where, None for nowhere.
        page: Renders the study as it is.
    """

    def __init__(self, server: PageServer | None, page: Callable[[], str]) -> None:
        self._server, self._page = server, page

    def watching(self, reporter: Reporter) -> Reporter:
        """The reporter, with the page told as well."""
        return reporter if self._server is None else _Watching(reporter, self)

    def refresh(self) -> None:
        """Render and publish. A study is worth more than its page: one that cannot be rendered is said to be so."""
        if self._server is None:
            return
        try:
            self._server.publish(self._page())
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the page must not end the study
            self._server.tell(f"The page could not be made: {error!r}. The study goes on.")

    def tell(self, status: str) -> None:
        """Say where the study is, and that the page does not know its end."""
        if self._server is not None:
            self._server.tell(f"Running, so the verdict is provisional. {status}")

    def end(self, report: Path, how: str) -> None:
        """Show the report that was written as the last."""
        if self._server is not None:
            self._server.publish(report.read_text(encoding="utf-8"))
            self._server.tell(f"The study has ended ({how}). This page is kept as {report}.", over=True)


class _Watching:
    """Implements `Reporter` over another one."""

    def __init__(self, reporter: Reporter, live: LivePage) -> None:
        self._reporter, self._live, self._number = reporter, live, 0

    def trial_started(self, asked: Asked) -> None:
        self._number = asked.number
        self._live.tell(f"Trial {asked.number} ({asked.origin}) begins.")
        self._reporter.trial_started(asked)

    def event(self, event: TrialEvent) -> None:
        if event.kind == "phase":
            self._live.tell(f"Trial {self._number}: {event.phase} {event.detail}".rstrip() + ".")
        self._reporter.event(event)

    def trial_ended(self, record: TrialRecord) -> None:
        self._reporter.trial_ended(record)
        self._live.tell(f"Trial {record.number} ended: {record.ending}.")
        self._live.refresh()

    def note(self, text: str) -> None:
        self._reporter.note(text)


@contextmanager
def live_page(
    port: int | None, page: Callable[[], str], has_trials: bool, say: Callable[[str], None]
) -> Iterator[LivePage]:
    """The page of a study for as long as it runs.

    Args:
        port: On the loopback address; None for no page. Where it is taken, that is said and the study runs without.
        page: Renders the study as it is.
        has_trials: Whether there is something to show already, as in a resumed study.
        say: Tells the person at the terminal.
    """
    try:
        server = None if port is None else PageServer(port)
    except BadInput as error:
        say(f"advisor: no live page. {error} The study runs without it.")
        server = None
    if server is None:
        yield LivePage(None, page)
        return
    with server:
        live = LivePage(server, page)
        server.publish(_NOTHING_YET)
        live.tell("The study begins.")
        if has_trials:
            live.refresh()
        say(f"Live page: {server.url}")
        yield live


def serve_run(run: Path, page: Callable[[], str], port: int, say: Callable[[str], None]) -> NoReturn:
    """Show a run until somebody ends the process; it is rendered again whenever a trial has ended.

    Args:
        run: Its folder.
        page: Renders it as it is.
        port: On the loopback address.
        say: Tells the person at the terminal.

    Raises:
        BadInput: it is no run folder, or the port is taken.
    """
    seen_ns, text = changed_ns(run), page()
    with PageServer(port) as server:
        server.publish(text)
        say(f"{run}: {server.url}  (Ctrl-C ends it)")
        while True:
            server.tell(f"{run}, shown until its server is ended.")
            time.sleep(LOOK_EVERY_S)
            if (now_ns := changed_ns(run)) != seen_ns:
                seen_ns = now_ns
                LivePage(server, page).refresh()


def changed_ns(run: Path) -> int:
    """When a trial or the summary of a run was last written, ns; 0 where nothing is there."""
    written = [*run.glob("trials/*/outcome.json"), *run.glob("summary.json")]
    return max((path.stat().st_mtime_ns for path in written), default=0)
