"""A log read so far: what the diagnosis needs of it, however long it is."""

from __future__ import annotations

from dataclasses import dataclass, field

from advisor.domain.outcome import Phase
from advisor.memory.events import RETRIED, Kind, LogEvent
from advisor.memory.phases import STAGE_ORDER, Passes

MAX_CANDIDATES = 200
MAX_EXCEPTIONS = 20

# Whatever ends a server makes its peers fail too; the kinds are in the order in which one brings about the next.
CAUSAL_ORDER: tuple[tuple[Kind, ...], ...] = (
    ("oom", "host_oom", "insufficient_kv"),
    ("config", "auth", "checkpoint", "unsupported_model", "unsupported_arch", "version_mismatch", "port", "mpi"),
    ("kernel_error",),
    ("nccl",),
    ("hang",),
    ("crash",),
    ("request_rejected",),
)
_CAUSAL_RANK = {kind: rank for rank, kinds in enumerate(CAUSAL_ORDER) for kind in kinds}
_WEAKER = len(CAUSAL_ORDER)  # a soft cause stands behind every other
_OUTLIVED = CAUSAL_ORDER[1]  # a server that became ready afterwards did not die of these

_POOL_STAGES = ("kv_estimate", "kv_allocate", "warm_up")
_RUNNING = ("warm_up", "serve")
_CAUGHT_LINES = 60  # the length of a traceback of an error that was caught


@dataclass(frozen=True)
class Place:
    """Where in the life of a server."""

    stage: Phase | None = None
    detail: str = ""
    component: str | None = None


@dataclass(frozen=True)
class Candidate:
    """A possible root cause, with the place that marks and traceback gave it."""

    event: LogEvent
    mark: Place
    frame: Place

    @property
    def kind(self) -> Kind:
        """What kind of failure it would be."""
        return self.event.meaning.kind or "crash"

    @property
    def rank(self) -> float:
        """Position in the chain of causes; 0 brings about the rest."""
        meaning = self.event.meaning
        return _CAUSAL_RANK[self.kind] + (_WEAKER if meaning.soft else 0) + (0.5 if meaning.vague else 0.0)


@dataclass
class Report:
    """TensorRT-LLM's own account of a failed executor creation."""

    component: LogEvent | None = None
    before_gib: float | None = None
    total_gib: float | None = None
    rows: dict[str, tuple[float, float]] = field(default_factory=dict)

    def take(self, event: LogEvent) -> None:
        """The first report counts; ranks repeat it."""
        if event.meaning.name == "component":
            self.component = self.component or event
        elif event.meaning.name == "row" and len(self.rows) < len(STAGE_ORDER) * 3:
            before, after = event.number("row_before"), event.number("row_after")
            if before is not None and after is not None:
                self.rows.setdefault(event.values["row"], (before, after))
        elif event.meaning.name == "before" and self.before_gib is None:
            self.before_gib = event.number("before")
        elif event.meaning.name == "total" and self.total_gib is None:
            self.total_gib = event.number("total")


@dataclass
class Case:
    """What was seen, bounded: the first of everything that repeats, the last of everything that moves."""

    place: Place = Place()
    ready: LogEvent | None = None
    candidates: list[Candidate] = field(default_factory=list)
    alarms: dict[str, LogEvent] = field(default_factory=dict)
    wrappers: dict[str, LogEvent] = field(default_factory=dict)
    exceptions: list[LogEvent] = field(default_factory=list)
    last_words: LogEvent | None = None
    facts: dict[str, LogEvent] = field(default_factory=dict)
    report: Report = field(default_factory=Report)
    marks: list[LogEvent] = field(default_factory=list)
    passes: Passes = field(default_factory=Passes)
    stopping: bool = False
    _retried_line: int = 0
    _frames: dict[str, Place] = field(default_factory=dict)
    _seen: set[tuple[str, str, int | None]] = field(default_factory=set)

    def take(self, event: LogEvent) -> None:
        """Count one event in."""
        meaning = event.meaning
        if self.stopping and _noise_of_stopping(event):
            return
        if meaning.role in ("mark", "ready"):
            self._move(event)
        elif meaning.role == "shutdown":
            self.stopping = self.ready is not None
        elif meaning.role == "cause":
            self._suspect(event)
        elif meaning.role == "alarm":
            self.alarms.setdefault(meaning.name, event)
        elif meaning.role == "wrapper":
            self.wrappers.setdefault(meaning.name, event)
        elif meaning.role == "block":
            self.report.take(event)
        elif meaning.role == "frame" and len(self._frames) < MAX_CANDIDATES:
            self._remember_frame(event)
        elif meaning.role == "exception":
            self._remember_exception(event)
        elif meaning.role == "fact":
            for name in event.values:
                self.facts[name] = event

    def _move(self, event: LogEvent) -> None:
        """Marks tell the stage; a part that is slower than others does not take it back."""
        meaning = event.meaning
        if meaning.stage == "launch":  # a new start in the same log
            self.stopping = False
            if self.ready or self.candidates:
                self.passes = Passes()
        stage = self.passes.phase_of(meaning)
        if self.place.stage in _POOL_STAGES and meaning.stage in ("connect", "load"):
            return  # a slower rank
        if meaning.role == "ready":
            self.ready = event
        if meaning.name == RETRIED:
            self._retried_line = event.line
        if not self.marks or self.marks[-1].meaning.stage != meaning.stage:
            self.marks = [*self.marks[-11:], event]
        self.last_words = None
        self.place = Place(stage, meaning.detail)
        self._frames.pop(event.source, None)

    def _suspect(self, event: LogEvent) -> None:
        place = self.place
        if event.meaning.vague and place.stage == "serve":
            return  # a request's fields, not the server's arguments
        if event.meaning.soft and event.meaning.kind == "hang" and place.stage not in _RUNNING:
            return  # weights take as long as they take
        key = (event.meaning.name, place.stage or "", event.line if event.meaning.soft else None)
        repeated = key in self._seen and not event.values
        if repeated or len(self.candidates) >= MAX_CANDIDATES:
            return
        self._seen.add(key)
        self.candidates.append(Candidate(event, place, self._frames.get(event.source, Place())))

    def _remember_exception(self, event: LogEvent) -> None:
        if self._retried_line and event.line - self._retried_line <= _CAUGHT_LINES:
            return
        self.last_words = self.last_words or event
        if len(self.exceptions) < MAX_EXCEPTIONS:
            self.exceptions.append(event)

    def _remember_frame(self, event: LogEvent) -> None:
        """Frames run from the outermost call inwards: a later one is nearer to the failure."""
        known, meaning = self._frames.get(event.source, Place()), event.meaning
        self._frames[event.source] = Place(
            meaning.stage or known.stage, meaning.detail or known.detail, meaning.component or known.component
        )


def _noise_of_stopping(event: LogEvent) -> bool:
    """Parts of a server that is being stopped miss each other and complain."""
    if event.meaning.role == "cause":
        return event.meaning.soft or event.meaning.kind in ("nccl", "hang", "crash", "mpi")
    return event.meaning.role in ("wrapper", "exception", "frame")


def root_cause(case: Case) -> Candidate | None:
    """The earliest candidate of the first rank in the causal order; none where the server outlived them all."""
    ready_line = case.ready.line if case.ready else 0
    alive = [each for each in case.candidates if not _outlived(each, ready_line)]
    return min(alive, key=lambda each: (each.rank, each.event.line), default=None)


def _outlived(candidate: Candidate, ready_line: int) -> bool:
    """A soft cause, or a start-up failure of a part, after which the server became ready all the same."""
    if candidate.event.line >= ready_line or candidate.kind == "port":
        return False
    if candidate.event.meaning.soft:
        return True
    return candidate.kind in _OUTLIVED and "serve" not in (candidate.event.meaning.stage, candidate.mark.stage)
