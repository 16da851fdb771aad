"""Running a session for a person: banner, progress, signals, files, the last word and the exit code."""

from __future__ import annotations

import contextlib
import os
import signal
from types import FrameType
from typing import TYPE_CHECKING

from advisor.cli.main import INTERRUPTED
from advisor.cli.options import OutputFormat
from advisor.domain.errors import EngineFailed, NothingFeasible

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from advisor.app.live import LivePage
    from advisor.app.tuning import Session
    from advisor.domain.ports import Ledger

LEAST_GAIN = 0.01  # repeats of one benchmark differ by about as much


class Cancel:
    """One Ctrl-C or SIGTERM: finish this measurement and write what is known. Three Ctrl-C: stop now."""

    def __init__(self) -> None:
        self._count = 0

    @property
    def cancelled(self) -> bool:
        """True once somebody asked to stop."""
        return self._count > 0

    def install(self) -> None:
        """Listen to SIGINT and SIGTERM."""
        signal.signal(signal.SIGINT, self._hear)
        signal.signal(signal.SIGTERM, self._hear)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self._count += 1
        if number == signal.SIGINT and self._count >= 3:
            _say(b"advisor: stopped; finished trials are safe, go on with --resume\n")
            raise SystemExit(INTERRUPTED)  # not os._exit: servers are ended and files set aside removed on the way out
        if self._count == 1:
            _say(b"\nadvisor: finishing this measurement, then writing what is known (Ctrl-C twice more: stop now)\n")


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
    from advisor.report.progress import reporter_for
    from advisor.report.study_notes import calibrated_text, taught_text, unmodelled_text
    from advisor.report.summary import study_view

    cancel = Cancel()
    cancel.install()
    identity = session.context.identity
    screen = console.stderr()
    screen.print(console.banner(identity.source, identity.label, session.why_twin))
    if session.forecaster.dialect.warning:
        screen.print(session.forecaster.dialect.warning, markup=False)
    if said := plan_view.answers_text(session.context):
        screen.print(said, markup=False)
    if session.context.unmodelled is not None:
        screen.print(f"advisor: {unmodelled_text(session.context.unmodelled)}.", markup=False)
    if session.earlier.calibration is not None:
        screen.print(calibrated_text(session.twin_calibration), markup=False)
    for text in (*session.earlier.notes, *([taught_text(session.taught_by)] if session.taught_by else [])):
        screen.print(text, markup=False)
    with session.open_ledger() as ledger, _live_page(session, ledger, live_port) as live:
        with reporter_for(screen)(session.context, screen, ledger.records()) as reporter:
            summary = session.run(ledger, live.watching(reporter), cancel)
        paths = bundle.write(session, ledger.records(), summary)
        live.end(paths["report"], summary.stopped_by)
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
