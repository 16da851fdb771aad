"""Entry point of the `advisor` command. It imports nothing heavy, so that Ctrl-C is heard from the first moment."""

from __future__ import annotations

import os
import signal
from types import FrameType

INTERRUPTED = 130


def stop_at_once(number: int, frame: FrameType | None) -> None:
    """Right wherever nothing was begun that has to be finished; a study listens for itself while it runs."""
    os._exit(INTERRUPTED)


def main() -> None:
    """Run the command line."""
    signal.signal(signal.SIGINT, stop_at_once)
    signal.signal(signal.SIGTERM, stop_at_once)
    from advisor.cli.app import app

    app()
