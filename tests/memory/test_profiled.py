"""What a log said of memory, as a report, and the distance of a prediction from it."""

from __future__ import annotations

import pytest

from advisor.domain.measurement import MemoryReport, ProfiledMemory
from advisor.domain.strict import changed
from advisor.memory.profiled import memory_report, residuals

SAID = ProfiledMemory(
    weights=28.0,
    activations=3.0,
    outside_torch=4.5,
    temporary_kv=1.0,
    peak=35.5,
    total=80.0,
    fraction=0.9,
    available_kv=40.95,
    kv_pool=40.95,
    kv_tokens=335_000,
)
PREDICTED = MemoryReport(weights=27.5, activations=2.0, cuda_graphs=0.5, kv_pool=42.0, other=3.5, capacity=79.2)


def test_a_log_alone() -> None:
    """What stays outside torch is all but the temporary pool; it holds the graphs, which no line tells."""
    report = memory_report(SAID)
    assert report == MemoryReport(
        weights=28.0, activations=3.0, cuda_graphs=None, kv_pool=40.95, other=3.5, capacity=80.0
    )
    assert report.used == pytest.approx(35.5 - 1.0 + 40.95)


@pytest.mark.parametrize("said", [SAID, changed(SAID, outside_torch=None)])
def test_old_releases_state_only_the_peak(said: ProfiledMemory) -> None:
    assert memory_report(said) == memory_report(SAID)


def test_the_driver_knows_what_was_in_use() -> None:
    report = memory_report(SAID, capacity_gib=79.2, driver_peak_gib=77.25)
    assert report is not None
    assert report.used == pytest.approx(77.25)
    assert report.headroom == pytest.approx(1.95)
    assert report == memory_report(changed(SAID, driver_peak=77.25), capacity_gib=79.2)
    low = memory_report(SAID, driver_peak_gib=60.0)
    assert low is not None
    assert low.other == 0.0


@pytest.mark.parametrize("unsaid", ["weights", "activations", "kv_pool", "total"])
def test_no_report_of_what_was_not_said(unsaid: str) -> None:
    assert memory_report(changed(SAID, **{unsaid: None})) is None


def test_residuals_of_a_log() -> None:
    found = residuals(PREDICTED, SAID)
    assert found == pytest.approx({"weights": 0.5, "activations": 1.0, "kv_pool": -1.05, "other": 3.5 - 4.0})
    assert residuals(PREDICTED, ProfiledMemory(weights=28.0)) == pytest.approx({"weights": 0.5})


def test_residuals_of_a_report_add_up_to_the_difference_in_use() -> None:
    for measured in (memory_report(SAID), changed(PREDICTED, weights=30.0, cuda_graphs=1.0)):
        assert measured is not None
        assert sum(residuals(PREDICTED, measured).values()) == pytest.approx(measured.used - PREDICTED.used)
    assert "cuda_graphs" in residuals(PREDICTED, changed(PREDICTED, cuda_graphs=1.0))


def test_what_is_cached_is_in_use_and_lacks_nowhere() -> None:
    caching = changed(PREDICTED, cached=0.7)
    assert caching.headroom == PREDICTED.headroom
    assert caching.left_free == pytest.approx(PREDICTED.headroom - 0.7)


def test_a_driver_counts_what_is_cached_and_a_log_does_not() -> None:
    caching = changed(PREDICTED, cached=0.7)
    by_driver = changed(SAID, driver_peak=77.25)
    seen = memory_report(by_driver, capacity_gib=79.2)
    assert seen is not None
    for measured in (seen, by_driver, changed(PREDICTED, cached=0.2)):
        found = residuals(caching, measured)
        used = measured.used if isinstance(measured, MemoryReport) else 77.25
        assert sum(found.values()) == pytest.approx(used - caching.used)
    assert residuals(caching, SAID) == pytest.approx(residuals(PREDICTED, SAID))
