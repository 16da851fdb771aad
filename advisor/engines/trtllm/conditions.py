"""The words in which `validators.py` says what a condition means: each makes a test, a function of a file's leaves.

A test answers with the path of the key to blame, or None. What the path names may be a mapping: then all of it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

Leaves = Mapping[str, Any]
Test = Callable[[Leaves], str | None]


def given(path: str) -> Test:
    """A key that is not null, or a mapping with anything below it."""
    below = (f"{path}.", f"{path}[")
    return lambda leaves: (
        path if leaves.get(path) is not None or any(leaf.startswith(below) for leaf in leaves) else None
    )


def is_one_of(path: str, *values: Any) -> Test:
    """A key with one of these values; true is not 1."""
    return lambda leaves: path if any(_same(leaves.get(path), value) for value in values) else None


def is_none_of(path: str, *values: Any) -> Test:
    """A key, given, with another value."""
    return all_of(given(path), unless(is_one_of(path, *values), path))


def below(path: str, limit: float) -> Test:
    """A number under the limit."""
    return number(path, lambda value: value < limit)


def above(path: str, limit: float) -> Test:
    """A number over the limit."""
    return number(path, lambda value: value > limit)


def number(path: str, judge: Callable[[float], bool]) -> Test:
    """A number of which something is true."""
    return lambda leaves: path if any(map(judge, numbers([leaves.get(path)]))) else None


def holds(path: str, judge: Callable[[float], bool]) -> Test:
    """A list with a number in it of which something is true."""
    return lambda leaves: path if any(map(judge, numbers(leaves.get(path)))) else None


def differ(path: str, other: str) -> Test:
    """Two keys, both given, with different values."""
    return all_of(given(other), given(path), lambda leaves: path if leaves.get(path) != leaves.get(other) else None)


def exceeds(path: str, other: str) -> Test:
    """Two numbers, the first the greater."""
    return lambda leaves: path if any(below(other, value)(leaves) for value in numbers([leaves.get(path)])) else None


def empty(path: str) -> Test:
    """A list or text with nothing in it."""
    return lambda leaves: path if leaves.get(path) in ([], "") else None


def lacks(path: str, *needed: str) -> Test:
    """A key is to blame when none of the others is given."""
    return lambda leaves: None if any(given(each)(leaves) for each in needed) else path


def unless(test: Test, path: str) -> Test:
    """A key is to blame when a test does not hold."""
    return lambda leaves: None if test(leaves) else path


def all_of(*tests: Test) -> Test:
    """Every test; the last one names the key to blame."""

    def test(leaves: Leaves) -> str | None:
        path = None
        for each in tests:
            path = each(leaves)
            if path is None:
                return None
        return path

    return test


def any_of(*tests: Test) -> Test:
    """The first test that holds."""
    return lambda leaves: next((path for each in tests if (path := each(leaves)) is not None), None)


def numbers(values: Any) -> list[float]:
    """The numbers of a list; none of anything else."""
    listed = values if isinstance(values, Iterable) and not isinstance(values, str) else ()
    return [value for value in listed if isinstance(value, (int, float)) and not isinstance(value, bool)]


def _same(left: Any, right: Any) -> bool:
    return isinstance(left, bool) == isinstance(right, bool) and bool(left == right)
