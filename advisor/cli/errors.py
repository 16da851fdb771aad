"""Errors of the program to one paragraph on stderr and an exit code."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import typer

from advisor.domain.errors import AdvisorError, BadInput, EngineFailed, EngineMissing, Interrupted, NothingFeasible

EXIT_CODES: dict[type[AdvisorError], int] = {
    BadInput: 2,
    NothingFeasible: 3,
    EngineMissing: 4,
    EngineFailed: 5,
    Interrupted: 130,
}

P = ParamSpec("P")
R = TypeVar("R")


def guarded(command: Callable[P, R]) -> Callable[P, R]:
    """Turn every error advisor raises on purpose into its text and exit code; a bug keeps its traceback."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except AdvisorError as error:
            code = next(code for kind, code in EXIT_CODES.items() if isinstance(error, kind))
            typer.echo(f"advisor: {error}", err=True)
            raise typer.Exit(code) from None

    return run
