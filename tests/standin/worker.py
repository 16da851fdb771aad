"""TEST EQUIPMENT: one rank of the stand-in's `trtllm-serve`, a process whose pid holds memory of a fake GPU.

Started by its path with `python -I -S`. It does nothing: it lives until its standard input ends, which is when its
parent does; with `--orphan` it leaves the session, is deaf to polite signals, and outlives everybody.
"""

from __future__ import annotations

import os
import signal
import sys


def main() -> None:
    """Live."""
    if "--orphan" in sys.argv:
        os.setsid()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        while True:
            signal.pause()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    while os.read(0, 1):
        pass


if __name__ == "__main__":
    main()
