"""One process at a time works in a run folder."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from advisor.domain.errors import BadInput
from advisor.store.yaml_files import cannot_write, make_folder

LOCK = ".lock"


class RunLock:
    """Held from construction until `release` or the end of the process, however it ends.

    Raises:
        BadInput: another process holds it, or the folder cannot be written.
    """

    def __init__(self, run: Path) -> None:
        path = make_folder(run) / LOCK
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise cannot_write(path, error) from None
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(self._descriptor, 32).decode(errors="replace").strip()
            os.close(self._descriptor)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise BadInput(
                    f"{run} is already being tuned by process {holder or 'of unknown number'}: wait for it, stop it, "
                    "or choose another folder with --out."
                ) from None
            raise BadInput(f"{run} is on a file system without locks: choose a local folder with --out.") from None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let another process work here."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
