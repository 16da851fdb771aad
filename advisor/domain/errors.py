"""Every error advisor raises on purpose. The command line maps each class to an exit code in one table.

An expected outcome of a trial (out of memory, timed out ...) is a value, not an error: see `outcome.py`.
"""

from __future__ import annotations


class AdvisorError(Exception):
    """Base of all: its text says what was wrong, where, and what to do."""


class BadInput(AdvisorError):
    """The request cannot be meant: unknown name, illegal value, impossible workload, damaged file."""


class NothingFeasible(AdvisorError):
    """No configuration of the space can serve the workload, or meet its limits."""


class EngineMissing(AdvisorError):
    """The engine asked for, or the GPUs it needs, are not here."""


class EngineFailed(AdvisorError):
    """The engine is here but could not be used, and no trial says why."""


class Interrupted(AdvisorError):
    """A person or a signal said stop; everything finished is on disk."""
