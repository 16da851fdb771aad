"""`/metrics` of vLLM as recorded, and the laws of what is made of them."""

from __future__ import annotations

import pytest

from advisor.engines.vllm.stats import Samples, read_metrics

PAGE = """# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{{engine="0",model_name="tiny"}} {running}
vllm:num_requests_waiting{{engine="0",model_name="tiny"}} {waiting}
vllm:num_requests_waiting_by_reason{{engine="0",model_name="tiny",reason="capacity"}} 7.0
vllm:kv_cache_usage_perc{{engine="0",model_name="tiny"}} {kv}
vllm:prefix_cache_queries_total{{engine="0",model_name="tiny"}} {queries}
vllm:prefix_cache_queries_created{{engine="0",model_name="tiny"}} 1.7958788508572776e+09
vllm:prefix_cache_hits_total{{engine="0",model_name="tiny"}} {hits}
vllm:num_preemptions_total{{engine="0",model_name="tiny"}} {preempted}
vllm:iteration_tokens_total_count{{engine="0",model_name="tiny"}} {steps}
vllm:inter_token_latency_seconds_sum{{engine="0",model_name="tiny"}} nan
"""


def page(
    running: float = 8.0,
    waiting: float = 0.0,
    kv: float = 0.5,
    queries: float = 0,
    hits: float = 0,
    preempted: int = 0,
    steps: int = 0,
) -> str:
    return PAGE.format(
        running=running, waiting=waiting, kv=kv, queries=queries, hits=hits, preempted=preempted, steps=steps
    )


def counted(*pages: str, max_num_seqs: int = 8) -> Samples:
    samples = Samples(max_num_seqs)
    for each in pages:
        samples.take(read_metrics(each))
    return samples


@pytest.mark.parametrize(
    ("busy", "limit"),
    [
        ({"running": 8.0, "waiting": 3.0, "kv": 0.4}, "max_batch_size"),
        ({"running": 5.0, "waiting": 3.0, "kv": 0.99}, "kv_capacity"),
        ({"running": 5.0, "waiting": 3.0, "kv": 0.4}, "max_num_tokens"),
        ({"running": 5.0, "waiting": 0.0, "kv": 0.4}, None),
    ],
)
def test_what_holds_requests_back(busy: dict[str, float], limit: str | None) -> None:
    said = counted(*[page(**busy)] * 3, page(running=8.0, steps=90)).summary()  # type: ignore[arg-type]
    assert said.get("limited_by") == limit
    assert said["n_iterations"] == 90


def test_counters_are_compared_between_the_ends_and_idle_samples_count_for_nothing_else() -> None:
    idle = page(running=0.0, queries=100, hits=100, preempted=2)
    said = counted(idle, page(running=6.0, queries=200, hits=100, preempted=3), idle.replace("100", "300")).summary()
    assert said["mean_active_requests"] == said["peak_active_requests"] == 6.0
    assert said["kv_cache_hit_rate"] == 1.0


def test_several_engines_and_a_page_of_another_server() -> None:
    two = page(running=8.0, waiting=1.0) + page(running=4.0).replace('engine="0"', 'engine="1"')
    said = counted(two).summary()
    assert (said["mean_active_requests"], said["limited_by"]) == (12.0, "max_batch_size")
    assert counted("<html>no metrics here</html>").summary() == {"n_iterations": 0}
