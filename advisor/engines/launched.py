"""A server that runs as a process: followed while it comes up, asked whether it lives, ended without a trace."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from typing_extensions import Self

from advisor.domain.deadlines import Deadlines
from advisor.domain.errors import EngineFailed
from advisor.domain.outcome import Crashed, Infrastructure, Outcome, OutOfMemory, Phase
from advisor.domain.ports import MemoryInUse, OnEvent, TrialEvent
from advisor.domain.strict import changed
from advisor.domain.trial import PhaseTiming
from advisor.engines import asking
from advisor.engines.live_log import LiveLog
from advisor.host.gpus import GpuWatch, wait_until_free
from advisor.host.holding import Holder
from advisor.host.output import BoundedLog
from advisor.host.process import Launch, ServerProcess
from advisor.memory.case import Case, root_cause
from advisor.memory.diagnosis import diagnose
from advisor.memory.events import Kind, LogEvent
from advisor.memory.outcomes import Death, outcome_of
from advisor.memory.phases import STAGE_ORDER, PhaseTracker

TICK_S = 0.02
HEALTH_EVERY_S = 0.5
LAST_WORDS_S = 15.0  # from the line that means the end to the end itself: peers may wait in a collective for ever
TOLD_GIB = 0.1  # a change of memory that is worth a word
FOREIGN_GIB = 0.25  # what another process must have taken before an out-of-memory is blamed on it

_FATAL_UNDER_LOAD: tuple[Kind, ...] = ("oom", "host_oom", "insufficient_kv", "kernel_error", "nccl", "hang", "crash")


@dataclass(frozen=True)
class Start:
    """What is started, where it answers, and how long it may take.

    `used_before_gib` is what was in use on its GPUs before, by index; empty where the driver tells nothing. Phases that
    are over when the process starts, such as a download, have `passed`.
    """

    launch: Launch
    base_url: str
    log: BoundedLog
    deadlines: Deadlines
    used_before_gib: dict[int, float]
    passed: tuple[PhaseTiming, ...] = ()
    on_host: bool = False
    """True where the server works in the host's memory, with no GPU."""
    other_pids: Callable[[], frozenset[int]] = frozenset
    """Processes of the launch that are no children of it here, such as those of a container."""
    launcher_trouble: Callable[[str], str | None] = lambda text: None
    """What the words of whatever launches the server mean, where they are about the launch itself."""
    holder: Holder | None = None
    """Has a process ready for each launch after the first; None where each starts afresh."""


class LaunchedServer:
    """A started server; `come_up` follows it until it answers or fails. Leaving the context ends it.

    Args:
        start: What to start.
        observe: Called with every event of its log, in the thread that reads it.
        on_event: Called as phases pass.

    Raises:
        EngineMissing: the program is not there.
        EngineFailed: the system refused to start it.
    """

    def __init__(self, start: Start, observe: Callable[[LogEvent], None], on_event: OnEvent) -> None:
        self.start, self.model = start, ""
        self._observe_also, self._on_event = observe, on_event
        self._tracker, self._clock = PhaseTracker(), _PhaseClock(on_event, start)
        self._told_gib = -math.inf
        self._failure: Outcome | None = None
        self._up = self._closed = False
        self._up_line: int | None = None
        self._news = threading.Event()
        self._doomed_since_s: float | None = None
        self._undo_last: list[Callable[[], object]] = []
        self._asked_health_s = time.monotonic()
        with contextlib.ExitStack() as undo:
            self.live = LiveLog(start.log, self._observe)
            undo.callback(self.live.close)
            self._clock.begin("launch")
            self.process = self._begun()
            undo.callback(self.process.stop, 0.0)
            self.watch = undo.enter_context(GpuWatch(tuple(start.used_before_gib), self._pids))
            self._undo = undo.pop_all()

    def _begun(self) -> ServerProcess:
        launch, holder = self.start.launch, self.start.holder
        if holder is None:
            return ServerProcess(launch, self.live.take)
        begun = holder.start(launch, self.live.take, self.start.deadlines.launch_s)
        self._clock.held = begun.held
        if begun.afresh_because:
            self._on_event(TrialEvent(kind="phase", phase="launch", detail=f"afresh: {begun.afresh_because}"))
        return begun.process

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def endpoint(self) -> str | None:
        """Base URL."""
        return self.start.base_url

    @property
    def is_up(self) -> bool:
        """True once it has generated a token."""
        return self._up

    @property
    def dying(self) -> bool:
        """True when the process has ended or its log says that it is dead inside; costs nothing."""
        return self._failure is not None or self.process.poll() is not None or self._doomed()

    def phases(self) -> tuple[PhaseTiming, ...]:
        """Seconds of every phase of the start so far."""
        return self._clock.timings()

    def come_up(self) -> None:
        """Follow the start until the server answers or fails. Interrupted, it is ended."""
        try:
            while not self._up and self._failure is None:
                self._news.wait(TICK_S)
                self._news.clear()
                self._step()
            if self._up and self.start.holder is not None:
                self.start.holder.wait(self.start.deadlines.launch_s)  # nothing imports while it is measured
        except BaseException:
            self.close()
            raise

    def failure(self) -> Outcome | None:
        """Why it is dead, None while it lives: it must still generate a token, whatever `/health` says."""
        if self._failure is None and self._up:
            trouble = self._asked_one_token(self.start.deadlines.answer_s)
            if self.dying or trouble is not None:
                self._failure = self._explained(said=None if self.dying else trouble)
        return self._failure

    def after_close(self, undo: Callable[[], object]) -> None:
        """Call this too once everything has ended."""
        self._undo_last.append(undo)

    def close(self) -> None:
        """End every process of the launch and wait until the GPUs are as they were."""
        if self._closed:
            return
        self._closed = True
        self._clock.end()
        self.process.stop(self.start.deadlines.stop_s if self._failure is None else 0.0)
        self._undo.close()
        with contextlib.suppress(EngineFailed):  # a driver that is gone is the next launch's trouble
            before = self.start.used_before_gib
            for left in wait_until_free(tuple(before), before, self.start.deadlines.stop_s):
                holders = ", ".join(f"{each.name} (process {each.pid})" for each in left.holders) or "nobody"
                said = f"GPU {left.index}: {left.gib:.1f} GiB did not come back, held by {holders}"
                self._on_event(TrialEvent(kind="memory", phase="stop", detail=said))
        for undo in self._undo_last:
            undo()

    def _pids(self) -> frozenset[int]:
        return self.process.pids() | self.start.other_pids()

    # -- coming up -------------------------------------------------------------------------------------------------

    def _observe(self, event: LogEvent) -> None:
        self._tracker.take(event)
        self._observe_also(event)
        self._news.set()

    def _step(self) -> None:
        if self._tracker.phase is not None:
            self._clock.advance(self._tracker.phase)
        if self.start.holder is not None and self._clock.phase != "launch":  # its own imports are over
            self.start.holder.hold(self.start.launch)
        self._tell_memory()
        deadline_s = self.start.deadlines.of(self._clock.phase)
        if self.process.poll() is not None or self._last_words_spoken():
            self._failure = self._explained()
        elif self._listens():
            self._ask_first()
        elif self._clock.elapsed_s > deadline_s:
            self._failure = self._explained(deadline_s=deadline_s)

    def memory_in_use(self) -> MemoryInUse | None:
        """How full its fullest GPU is; None where nobody tells."""
        return None

    def _tell_memory(self) -> None:
        """Say so when memory has moved."""
        memory = self.memory_in_use()
        if memory is not None and abs(memory.used_gib - self._told_gib) >= TOLD_GIB:
            self._told_gib = memory.used_gib
            self._on_event(TrialEvent(kind="memory", phase=self._clock.phase, memory=memory))

    def _listens(self) -> bool:
        """The log says so or, where it is silent, `/health` does."""
        if self.live.look(lambda case: case.ready is not None):
            return True
        if time.monotonic() - self._asked_health_s < HEALTH_EVERY_S:
            return False
        self._asked_health_s = time.monotonic()
        with contextlib.suppress(*asking.TROUBLE):
            asking.get(f"{self.start.base_url}/health", timeout_s=1.0)
            return True
        return False

    def _ask_first(self) -> None:
        """One real token within its deadline; a server that only just listens may refuse the first calls."""
        deadline_s = self.start.deadlines.answer_s
        until_s = time.monotonic() + deadline_s
        trouble: str | None = "no answer"
        while trouble is not None and time.monotonic() < until_s and not self.dying:
            trouble = self._asked_one_token(until_s - time.monotonic())
            if trouble is not None:
                self._news.wait(10 * TICK_S)
        self._up = trouble is None
        self._tell_memory()
        if self._up:
            self._up_line = self.live.look(lambda case: case.ready.line if case.ready else 0)
            self._clock.end()
        else:
            late = deadline_s if time.monotonic() >= until_s else None
            self._failure = self._explained(deadline_s=late, said=trouble)

    def _asked_one_token(self, timeout_s: float) -> str | None:
        """What came instead of a token, None when one came. A server that is known to be dead is not waited for."""
        said: list[str | None] = []
        asked = threading.Thread(target=lambda: said.append(self._one_token(timeout_s)), name="advisor-probe")
        asked.start()
        self._undo_last.append(asked.join)
        while asked.is_alive() and not self.dying:
            asked.join(TICK_S)
        return said[0] if said else "nothing yet"

    def _one_token(self, timeout_s: float) -> str | None:
        try:
            self.model = self.model or asking.served_model(self.start.base_url, min(5.0, timeout_s))
        except asking.TROUBLE as error:
            return f"{type(error).__name__}: {error}"
        return asking.one_token(self.start.base_url, self.model, timeout_s)

    # -- dying -----------------------------------------------------------------------------------------------------

    def _doomed(self) -> bool:
        return self.live.look(lambda case: doomed(case, self._up_line))

    def _last_words_spoken(self) -> bool:
        """True some time after a line that means the end."""
        if self._doomed_since_s is None and self._doomed():
            self._doomed_since_s = time.monotonic()
        return self._doomed_since_s is not None and time.monotonic() - self._doomed_since_s > LAST_WORDS_S

    def _explained(self, *, deadline_s: float | None = None, said: str | None = None) -> Outcome:
        """End what is left, read the log to its end and say what happened.

        Args:
            deadline_s: The deadline that was missed, if one was.
            said: What the server answered last.
        """
        exit_code = self.process.poll()
        before = self.live.look(diagnose)
        self.process.stop(0.0 if exit_code is not None else min(5.0, self.start.deadlines.stop_s))
        self.live.close()
        # What is printed while it is being ended is about that end, unless the process had ended by itself.
        diagnosis = before if exit_code is None else self.live.look(diagnose)
        phase: Phase = "serve" if self._up else self._clock.phase
        outcome = outcome_of(diagnosis, Death(phase, exit_code, deadline_s, self.start.on_host))
        launcher = self.live.beginning.decode(errors="replace") if phase == "launch" else ""
        if (trouble := self.start.launcher_trouble(launcher)) is not None:
            self._clock.end()
            return Infrastructure(reason=trouble, evidence=outcome.evidence)
        if isinstance(outcome, Crashed) and said is not None:
            outcome = changed(outcome, reason=f"{outcome.reason} Asked for one token, it answered: {said}")
        if isinstance(outcome, OutOfMemory) and not self._up:
            self._clock.advance(outcome.phase)
        self._clock.end()
        return self._blamed_on_others(outcome)

    def _blamed_on_others(self, outcome: Outcome) -> Outcome:
        """Memory that another process took meanwhile is no fault of the configuration."""
        taken = [each for each in self.watch.foreign if (each.used_gib or 0.0) >= FOREIGN_GIB]
        if not isinstance(outcome, OutOfMemory) or not taken:
            return outcome
        names = ", ".join(f"{each.name} (process {each.pid}, {each.used_gib:.1f} GiB)" for each in taken)
        return Infrastructure(
            reason=f"out of memory at {outcome.phase} while other processes held GPU memory: {names}",
            evidence=outcome.evidence,
        )


class _PhaseClock:
    """How long each phase took; phases pass in the order of a start and never come back."""

    def __init__(self, on_event: OnEvent, start: Start) -> None:
        self._on_event, self._deadlines = on_event, start.deadlines
        self._done = [*start.passed]
        self.phase: Phase = "launch"
        self.held = False  # its process had imported before the launch began
        self._began_s: float | None = None

    @property
    def elapsed_s(self) -> float:
        return 0.0 if self._began_s is None else time.monotonic() - self._began_s

    def begin(self, phase: Phase) -> None:
        self.end()
        self.phase, self._began_s = phase, time.monotonic()
        self._on_event(TrialEvent(kind="phase", phase=phase, deadline_s=self._deadlines.of(phase)))

    def advance(self, phase: Phase) -> None:
        if phase != "serve" and STAGE_ORDER.index(phase) > STAGE_ORDER.index(self.phase):
            self.begin(phase)

    def end(self) -> None:
        if self._began_s is not None:
            self._done.append(self._running())
            self._began_s = None

    def timings(self) -> tuple[PhaseTiming, ...]:
        return (*self._done, *(() if self._began_s is None else (self._running(),)))

    def _running(self) -> PhaseTiming:
        held = self.held and self.phase == "launch"
        return PhaseTiming(name=self.phase, duration_s=self.elapsed_s, held=held)


def doomed(case: Case, up_line: int | None) -> bool:
    """True when the log holds a line after which this server will never serve again.

    While it starts only lines that report the end count: what looks like a cause may be an attempt that is recovered
    from. Once it serves, an error of a step or of its loop is the end, although `/health` goes on saying 200.

    Args:
        case: The log so far.
        up_line: Where in the log it began to serve; None while it starts.
    """
    if any(event.line > (up_line or 0) for event in case.wrappers.values()):
        return True
    cause = root_cause(case) if up_line is not None else None
    return cause is not None and cause.event.line > (up_line or 0) and cause.kind in _FATAL_UNDER_LOAD
