"""How TensorRT-LLM dies, in words: the memory report, the chain of wrappers around a cause, the end of its loop."""

from __future__ import annotations

from collections.abc import Sequence

from tests.standin.log import Log
from tests.standin.memory import STAGES, OutOfMemory, RankMemory, Stage
from tests.standin.releases import Release

_CREATOR = "/usr/local/lib/python3.12/dist-packages/tensorrt_llm/_torch/pyexecutor/py_executor_creator.py"
_PACKAGE = "/usr/local/lib/python3.12/dist-packages/tensorrt_llm"
_FRAMES = {
    "model": ("_torch/pyexecutor/model_engine.py", "_load_model"),
    "sampler": ("_torch/pyexecutor/_util.py", "instantiate_sampler"),
    "init_kv": ("_torch/pyexecutor/_util.py", "build_managers"),
    "spec": ("_torch/speculative/utils.py", "get_spec_resource_manager"),
    "drafter": ("_torch/speculative/utils.py", "get_spec_drafter"),
    "init_extra": ("_torch/pyexecutor/model_engine.py", "_capture_generation_cuda_graphs"),
    "model_extra": ("_torch/pyexecutor/_util.py", "configure_kv_cache_capacity"),
    "kv_cache": ("_torch/pyexecutor/_util.py", "build_managers"),
    "executor_extra": ("_torch/pyexecutor/model_engine.py", "_capture_generation_cuda_graphs"),
}
_PARENT = f"""Traceback (most recent call last):
  File "/usr/local/bin/trtllm-serve", line 8, in <module>
    sys.exit(main())
  File "{_PACKAGE}/commands/serve.py", line 352, in serve
    launch_server(host, port, llm_args, metadata_server_cfg, server_role)
  File "{_PACKAGE}/executor/proxy.py", line 352, in _start_executor_workers
    raise RuntimeError("""


def stage_of(release: Release, name: str) -> Stage:
    """A component with the name that the release gives it."""
    stage = STAGES[name]
    return Stage(release.first_kv_name, stage.value, stage.advice) if name == "init_kv" else stage


def memory_report(release: Release, rank: RankMemory, stage: str, free_before_gib: float) -> str:
    """The block that explains a failed creation, with the components made before it."""

    def listed(name: str) -> str:
        known = stage_of(release, name)
        return known.friendly if release.friendly_names else known.value

    made = [name for name, _, _ in rank.created]
    return "\n".join(
        [
            "Executor creation failed due to insufficient GPU memory.",
            "",
            f"The following component could not be created: {stage_of(release, stage).friendly}",
            f"Total GPU memory (GiB): {rank.total_gib:.2f}",
            f"Free GPU memory before component creation attempt (GiB): {free_before_gib:.2f}",
            "",
            "Previously created components and free GPU memory before/after creation (GiB):",
            *(f"{listed(name)}: {before:.2f} / {after:.2f}" for name, before, after in rank.created),
            "",
            f"Please refer to the {release.product} documentation for information on how to control the memory usage "
            f"through {release.product} configuration options. Possible options include:",
            *(f"  {listed(name)}: {stage_of(release, name).advice}" for name in (*made, stage)),
        ]
    )


def creation_oom(log: Log, release: Release, error: OutOfMemory, free_before_gib: float) -> None:
    """Everything that is printed when a component does not fit."""
    report = memory_report(release, error.rank, error.stage, free_before_gib)
    file, function = _FRAMES[error.stage]
    trace = [
        "Traceback (most recent call last):",
        f'  File "{_CREATOR}", line 210, in observe_creation_stage',
        "    yield",
        f'  File "{_PACKAGE}/{file}", line 771, in {function}',
        f"torch.OutOfMemoryError: {error}",
        "",
        "The above exception was the direct cause of the following exception:",
        "",
        "Traceback (most recent call last):",
        f'  File "{_PACKAGE}/executor/worker.py", line 302, in worker_main',
        f'  File "{_CREATOR}", line 244, in create_py_executor',
        f"RuntimeError: {report}",
    ]
    _worker_error(log, error.rank.number, report, trace)


def creation_error(log: Log, rank: int, message: str, function: str) -> None:
    """Everything that is printed when creating the executor fails for another reason; `message` names the class."""
    trace = [
        "Traceback (most recent call last):",
        f'  File "{_PACKAGE}/executor/worker.py", line 302, in worker_main',
        f'  File "{_PACKAGE}/_torch/pyexecutor/resource_manager.py", line 812, in {function}',
        message,
    ]
    _worker_error(log, rank, message.partition(": ")[2], trace)


def _worker_error(log: Log, rank: int, cause: str, trace: Sequence[str]) -> None:
    text = "\n".join(trace)
    log.error(f"Failed to initialize executor on rank {rank}: {cause}", rank)
    log.error(text, rank)
    if rank == 0:
        log.error(f"Executor worker initialization error: {text}")
        log.raw(f'{_PARENT}"Executor worker returned error") from ready_signal')
        log.raw("RuntimeError: Executor worker returned error")
    else:
        worker_died(log)


def worker_died(log: Log) -> None:
    """All that is printed when a worker ends without a word, or one that does not lead fails."""
    log.error("Executor worker died during initialization.")
    log.raw(f'{_PARENT}"Executor worker died during initialization")')
    log.raw("RuntimeError: Executor worker died during initialization")


def refused(log: Log, message: str) -> None:
    """A traceback that ends with `message`, from reading the configuration."""
    log.raw("Traceback (most recent call last):")
    log.raw('  File "/usr/local/bin/trtllm-serve", line 8, in <module>\n    sys.exit(main())')
    log.raw(f'  File "{_PACKAGE}/commands/serve.py", line 352, in serve')
    log.raw(message)


def loop_died(log: Log, error: OutOfMemory) -> None:
    """A forward step that ran out of memory takes the executor's loop with it."""
    rank = error.rank.number
    frame = f'  File "{_PACKAGE}/_torch/pyexecutor/py_executor.py"'
    log.raw("Traceback (most recent call last):")
    log.raw(f"{frame}, line 1461, in _forward_step")
    log.raw(f"torch.OutOfMemoryError: {error}")
    log.error(f"Encountered an error in forward function: {error}", rank)
    log.error("Error in event loop: Sampling failed", rank)
    log.error(
        f"Traceback (most recent call last):\n{frame}, line 305, in _event_loop_wrapper\n    raise e\n"
        f"{frame}, line 1190, in _executor_loop_overlap\n"
        '    assert sample_state is not None, "Sampling failed"\nAssertionError: Sampling failed',
        rank,
    )
