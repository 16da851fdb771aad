"""Running a session for a person: banner, progress, signals, files, the last word and the exit code."""

from __future__ import annotations

import contextlib
import os
import signal
from types import FrameType
from typing import TYPE_CHECKING

from advisor.cli.main import INTERRUPTED
from advisor.cli.options import OutputFormat
from advisor.domain.errors import AdvisorError, EngineFailed, NothingFeasible

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from advisor.app.live import LivePage
    from advisor.app.tuning import Session
    from advisor.domain.ports import Ledger

LEAST_GAIN = 0.01  # repeats of one benchmark differ by about as much


FINISHING = "finishing this measurement, then writing what is known (Ctrl-C twice more: stop now)"
STOPPING = "stopping now: the server is ended, finished trials are safe"


class Cancel:
    """One Ctrl-C or SIGTERM: finish this measurement and write what is known. Three Ctrl-C: stop now.

    Args:
        speaks: Say so at once; False where the live panel shows `word`.
    """

    def __init__(self, *, speaks: bool) -> None:
        self._count, self._speaks = 0, speaks
        self._now = False

    @property
    def cancelled(self) -> bool:
        """True once somebody asked to stop."""
        return self._count > 0

    @property
    def word(self) -> str:
        """What is being done about it, empty before."""
        return STOPPING if self._now else FINISHING if self.cancelled else ""

    def install(self) -> None:
        """Listen to SIGINT and SIGTERM."""
        signal.signal(signal.SIGINT, self._hear)
        signal.signal(signal.SIGTERM, self._hear)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self._count += 1
        self._now = self._now or (number == signal.SIGINT and self._count >= 3)
        if self._speaks and (self._count == 1 or self._now):
            _say(f"\nadvisor: {self.word}\n".encode())
        if self._now:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # more of them would leave half-ended what is being ended
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            raise SystemExit(INTERRUPTED)  # not os._exit: servers are ended and files set aside removed on the way out


def _say(text: bytes) -> None:
    """To stderr from inside a signal handler, where nothing that locks may be used; nobody may be reading."""
    with contextlib.suppress(OSError):
        os.write(2, text)


def dry_run(session: Session, output: OutputFormat) -> None:
    """Say what would be done."""
    from advisor.report import console, plan_view

    if output is OutputFormat.json:
        console.show_document(plan_view.plan_document(session).model_dump_json(indent=2))
    else:
        console.show(plan_view.plan_text(session))


def worth_launching(session: Session, output: OutputFormat) -> bool:
    """Before the first real launch: what it will cost, and False, with a word on it, where nothing is to be gained."""
    from advisor.report import console, plan_view

    context = session.context
    if context.identity.source != "measured" or session.how.rescue is not None or session.is_begun():
        return True
    plan, screen = plan_view.plan_document(session), console.stderr()
    gain = "" if plan.unmodelled else f"; {plan_view.gain_text(plan.predicted_gain, context.baseline.name)}"
    screen.print(f"At most {plan.max_launches} launches; time of the node: {plan_view.time_text(plan)}{gain}.")
    if plan.reference_launches is not None:
        added = plan_view.reference_text(plan.reference_launches, session.expected_launch_hours)
        screen.print(f"{added.capitalize()}.")
    if plan.predicted_gain is None or plan.predicted_gain >= 1 + LEAST_GAIN:
        return True
    if output is OutputFormat.json:
        console.show_document(plan.model_dump_json(indent=2))
    else:
        console.show(
            f"Nothing was launched: a gain of {100 * (plan.predicted_gain - 1):.1f} % is below what a benchmark can "
            f"tell from noise (about {100 * LEAST_GAIN:.0f} %). Keep the {context.baseline.name} configuration, or "
            "measure all the same with --yes."
        )
    return False


def run(session: Session, output: OutputFormat, live_port: int | None = None) -> int:
    """Run a session to its end, with its page on a port of the loopback address where one is given.

    Returns:
        The exit code: 0 done, 130 interrupted.

    Raises:
        NothingFeasible: no configuration serves any workload within its limits.
        EngineFailed: launches failed one after the other for reasons outside their configurations.
    """
    from advisor.report import bundle, console, plan_view
    from advisor.report.live import reporter_for
    from advisor.report.summary import study_view

    screen = console.stderr()
    cancel = Cancel(speaks=not screen.is_live)
    cancel.install()
    identity = session.context.identity
    screen.print(plan_view.plan_text(session))
    for text in (session.forecaster.dialect.warning, *session.earlier.notes):
        if text:
            screen.print(text)
    try:
        with session.open_ledger() as ledger, _live_page(session, ledger, live_port) as live:
            with reporter_for(screen, session.context, ledger.records(), lambda: cancel.word) as reporter:
                summary = session.run(ledger, live.watching(reporter), cancel)
            paths = bundle.write(session, ledger.records(), summary)
            live.end(paths["report"], summary.stopped_by)
    except (SystemExit, AdvisorError):  # what was being written when it was stopped may say that it cannot be
        if cancel.word != STOPPING:
            raise
        screen.print(f"advisor: stopped. Finished trials are safe in {session.run_folder}; go on with --resume.")
        raise SystemExit(INTERRUPTED) from None
    if output is OutputFormat.json:
        console.show_document(summary.model_dump_json(indent=2))
    else:
        console.show(console.banner(identity.source, identity.label, session.why_twin), study_view(summary), "")
        console.show_lines(*bundle.closing_lines(session, summary, paths))
    if summary.stopped_by == "cancelled":
        return INTERRUPTED
    if summary.stopped_by == "infrastructure":
        raise EngineFailed(bundle.why_stopped(ledger.records()))
    if not summary.feasible:
        raise NothingFeasible(bundle.why_nothing(summary, ledger.records()))
    return 0


def _live_page(session: Session, ledger: Ledger, port: int | None) -> AbstractContextManager[LivePage]:
    from advisor.app.live import live_page
    from advisor.report import console
    from advisor.report.write_report import page_of

    def say(text: str) -> None:
        console.stderr().print(text, markup=False, soft_wrap=True)

    return live_page(port, lambda: page_of(session.run_folder), bool(ledger.records()), say)
