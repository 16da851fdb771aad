"""Asks a server's `/metrics` again and again, in a thread, whatever the engine makes of the answers."""

from __future__ import annotations

import contextlib
import threading
from abc import ABC, abstractmethod

from advisor.engines.asking import TROUBLE, get

TIMEOUT_S = 3.0  # trtllm-serve without any iteration answers after two seconds


class PollingThread(ABC):
    """Begins to poll when it is made; `polled` guards what was read, and tells when there is more.

    Args:
        base_url: Of the server.
        every_s: Between two polls.
    """

    def __init__(self, base_url: str, every_s: float) -> None:
        self._url, self._every_s = f"{base_url}/metrics", every_s
        self.polled = threading.Condition()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="advisor-metrics", daemon=True)
        self._thread.start()

    @abstractmethod
    def take(self, page: bytes) -> None:
        """Count one answer in; called with `polled` held.

        Raises:
            ValueError: nonsense, which tells nothing.
        """

    def stop(self) -> None:
        """Begin no further poll; one under way ends with its answer, or with the server."""
        self._stop.set()

    def join(self) -> None:
        """Wait for the last poll."""
        self._thread.join()

    def ask(self) -> None:
        """Poll once. A server that does not answer tells nothing; why is found elsewhere."""
        with contextlib.suppress(*TROUBLE):
            page = get(self._url, timeout_s=TIMEOUT_S)
            with self.polled:
                self.take(page)
                self.polled.notify_all()

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            self.ask()
