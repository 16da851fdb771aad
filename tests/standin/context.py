"""What every part of one launch needs to know."""

from __future__ import annotations

from dataclasses import dataclass

from tests.standin.dial import Dial, Faults
from tests.standin.log import Log
from tests.standin.settings import Settings


@dataclass(frozen=True)
class Context:
    """One launch: its settings, its dials and faults, and where it writes."""

    settings: Settings
    dial: Dial
    faults: Faults
    log: Log
