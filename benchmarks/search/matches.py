"""Which truths are played by whom, as jobs for several processes; truths from a file of one's own among them."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from advisor.domain.errors import BadInput
from benchmarks.search.contenders import entry
from benchmarks.search.play import Score, play
from benchmarks.search.truths import Truth, draw_truth

OUTSIDE = "outside"
"""Class name of the truths of a file."""


@dataclass(frozen=True)
class Job:
    """One truth, and who plays it."""

    class_name: str
    seed: int
    contenders: tuple[str, ...]
    truth_file: str | None = None


def outside_truth(path: str) -> Callable[[int], Truth]:
    """The function `truth(seed)` of a Python file.

    Raises:
        BadInput: no such file, or no such function in it.
    """
    if not Path(path).is_file():
        raise BadInput(f"TRUTH={path} is no file; name a Python file that defines truth(seed).")
    spec = importlib.util.spec_from_file_location("outside_truth", path)
    if spec is None or spec.loader is None:
        raise BadInput(f"TRUTH={path} is no Python file; its name must end in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    found = getattr(module, "truth", None)
    if not callable(found):
        raise BadInput(f"TRUTH={path} does not define truth(seed); see docs/search-benchmark.md.")
    return cast("Callable[[int], Truth]", found)


def run(job: Job) -> tuple[Job, dict[str, Score]]:
    """Play one truth: it is drawn once, and every contender meets it afresh."""
    truth = outside_truth(job.truth_file)(job.seed) if job.truth_file else draw_truth(job.class_name, job.seed)
    return job, {name: play(truth, entry(name).make(truth.problem, job.seed)) for name in job.contenders}


def jobs(classes: Sequence[str], contenders: Sequence[str], seeds: range, truth_file: str | None) -> list[Job]:
    """Every truth once, played by all."""
    return [Job(each, seed, tuple(contenders), truth_file) for each in classes for seed in seeds]
