"""The journal file under an Optuna study: mended when its end is torn, refused when its middle is damaged."""

from __future__ import annotations

import json
from pathlib import Path

from advisor.domain.errors import BadInput
from advisor.store.yaml_files import cannot_write

JOURNAL = "ledger.journal"


def mend(journal: Path) -> int:
    """Cut off a torn end, which Optuna would glue its next entry to. Returns the bytes cut.

    Only for the one process that holds the run's lock: it also removes the lock of a killed writer.

    Raises:
        BadInput: an entry before the last one is damaged.
    """
    for lock in journal.parent.glob(f"{journal.name}.lock*"):
        lock.unlink(missing_ok=True)
    try:
        data = journal.read_bytes()
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise BadInput(f"Cannot read {journal}: {error.strerror}.") from None
    whole = whole_bytes(data, journal)
    if whole < len(data):
        try:
            with journal.open("r+b") as file:
                file.truncate(whole)
        except OSError as error:
            raise cannot_write(journal, error) from None
    return len(data) - whole


def whole_bytes(data: bytes, journal: Path) -> int:
    """Length of the longest beginning that is made of whole entries; only the last entry may be torn."""
    whole = 0
    lines = data.splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        if not (line.endswith(b"\n") and _is_entry(line)):
            if number < len(lines):
                raise damaged(journal, f"line {number} is no entry")
            break
        whole += len(line)
    return whole


def damaged(journal: Path, what: str) -> BadInput:
    """The error for a journal that cannot be read, with the way out."""
    return BadInput(
        f"{journal} is damaged: {what}. Nothing measured is lost: remove that file and run again with --resume; "
        "it is rebuilt from the finished trials in trials/."
    )


def _is_entry(line: bytes) -> bool:
    try:
        entry = json.loads(line)
    except ValueError:
        return False
    return isinstance(entry, dict) and isinstance(entry.get("op_code"), int)
