"""Settings every test shares."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

from tests.standin.fixtures import make_standin, standin

__all__ = ["make_standin", "standin"]  # fixtures of every test folder

# Machines differ in speed, so no deadlines; in CI the same examples are drawn every time.
settings.register_profile("local", deadline=None)
settings.register_profile(
    "ci", deadline=None, derandomize=True, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.fixture(autouse=True)
def _only_the_test_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own advisor settings and terminal width do not reach the tests."""
    for name in [name for name in os.environ if name.startswith("ADVISOR_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("NO_COLOR", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slow installations start first, so that the rest runs beside them."""
    items.sort(key=lambda item: "packaging" not in item.keywords)
