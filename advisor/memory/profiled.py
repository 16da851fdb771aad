"""What an engine said of its memory, in the words of a report, and how far the memory law was from it."""

from __future__ import annotations

from advisor.domain.measurement import MemoryReport, ProfiledMemory


def memory_report(
    profiled: ProfiledMemory, capacity_gib: float | None = None, driver_peak_gib: float | None = None
) -> MemoryReport | None:
    """GiB of one GPU by component; None where the log does not say weights, activations and pool.

    No line of TensorRT-LLM tells the memory of CUDA graphs: PyTorch keeps their pools, and the log counts them as
    memory outside torch. So `cuda_graphs` is None there and `other` holds them, besides runtime, NCCL, fragmentation
    and whatever other processes hold; vLLM tells them. `other` is what the driver saw at its peak beyond what is named;
    without a driver, what profiling found beyond weights, activations and the temporary pool.

    Args:
        profiled: As the log says it.
        capacity_gib: Of the GPU, where it is known better than from the log.
        driver_peak_gib: Most memory in use on that GPU, where somebody watched the driver.
    """
    weights, activations, pool = profiled.weights, profiled.activations, profiled.kv_pool
    capacity, driver_peak = capacity_gib or profiled.total, driver_peak_gib or profiled.driver_peak
    if weights is None or activations is None or pool is None or capacity is None:
        return None
    graphs = profiled.cuda_graphs
    if driver_peak is not None:
        other: float | None = driver_peak - weights - activations - pool - (graphs or 0.0)
    elif profiled.peak is None and graphs is not None:
        other = 0.0  # vLLM counts all that it saw among the activations
    else:
        other = beside_torch(profiled)
    if other is None:
        return None
    return MemoryReport(
        weights=weights,
        activations=activations,
        cuda_graphs=graphs,
        kv_pool=pool,
        other=max(0.0, other),
        capacity=capacity,
    )


def beside_torch(profiled: ProfiledMemory) -> float | None:
    """GiB outside PyTorch that stay: runtime, NCCL, graph pools, other processes; None where the log does not say."""
    outside = profiled.outside_torch
    if outside is None and None not in (profiled.peak, profiled.weights, profiled.activations):
        assert profiled.peak is not None and profiled.weights is not None and profiled.activations is not None
        outside = profiled.peak - profiled.weights - profiled.activations
    return None if outside is None else outside - (profiled.temporary_kv or 0.0)


def residuals(predicted: MemoryReport, measured: ProfiledMemory | MemoryReport) -> dict[str, float]:
    """GiB measured minus predicted, by component; what was not measured is left out.

    Where graphs, or what is only cached, were not measured on their own, they are compared within `other`. A log alone
    says nothing of the load: `other` then lacks the sampling buffers and the fragmentation that the prediction has, and
    nothing is cached yet; with a driver's peak it has all of them.
    """
    found: dict[str, float | None]
    if isinstance(measured, ProfiledMemory):
        report = memory_report(measured, capacity_gib=predicted.capacity)
        found = {name: getattr(measured, name) for name in ("weights", "activations", "cuda_graphs", "kv_pool")}
        found["other"] = report.other if report else beside_torch(measured)
        under_load = report is not None and measured.driver_peak is not None
    else:
        found = measured.model_dump(exclude={"capacity"})
        under_load = measured.cached is None
    expected = {name: size or 0.0 for name, size in predicted.model_dump().items()}
    if found["cuda_graphs"] is None:
        expected["other"] += expected["cuda_graphs"]
    if under_load:
        expected["other"] += expected["cached"]
    return {name: value - expected[name] for name, value in found.items() if value is not None}
