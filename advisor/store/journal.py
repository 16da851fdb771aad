"""The journal file under an Optuna study: mended where its end is torn, refused where its middle is damaged."""

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
        BadInput: a damaged entry is followed by whole ones.
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
    """Length of the whole entries at the beginning; what follows them must not be entries again."""
    lines = data.split(b"\n")
    ended = lines[:-1]
    n_whole = next((number for number, line in enumerate(ended) if not _is_entry(line)), len(ended))
    if any(_is_entry(line) for line in ended[n_whole:]):
        raise damaged(journal, f"line {n_whole + 1} is no entry")
    return sum(len(line) + 1 for line in ended[:n_whole])


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
