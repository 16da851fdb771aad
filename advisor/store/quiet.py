"""Optuna without its log lines and warnings: advisor tells people itself what they need to know."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Silence Optuna's logger and its notices of experimental features, and put both back afterwards."""
    from optuna import exceptions, logging

    level = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", exceptions.ExperimentalWarning)
            warnings.filterwarnings("ignore", message=".*greenlet.*")
            yield
    finally:
        logging.set_verbosity(level)
