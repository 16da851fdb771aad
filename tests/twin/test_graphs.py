"""The CUDA-graph ladder against the published lists of three releases, and which size a batch replays."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.twin.graphs import LadderRule, captured_sizes, ladder, replayed_size

RULES: tuple[LadderRule, ...] = ("floor", "ceil", "step64")


@pytest.mark.parametrize(
    ("graph_max", "floor_tail", "ceil_tail", "n_step64"),
    [
        (128, [], [], 19),
        (256, [256], [256], 21),
        (384, [384], [256, 384], 23),
        (512, [256, 512], [256, 512], 25),
        (720, [256, 720], [256, 512, 720], 29),
        (1024, [256, 512, 1024], [256, 512, 1024], 33),
        (1536, [256, 512, 1536], [256, 512, 1024, 1536], 41),
        (2048, [256, 512, 1024, 2048], [256, 512, 1024, 2048], 49),
    ],
)
def test_padded_ladder_above_128(graph_max: int, floor_tail: list[int], ceil_tail: list[int], n_step64: int) -> None:
    low = [1, 2, 4, *range(8, 129, 8)]
    assert ladder(graph_max, padding=True, rule="floor") == (*low, *floor_tail)
    assert ladder(graph_max, padding=True, rule="ceil") == (*low, *ceil_tail)
    assert len(ladder(graph_max, padding=True, rule="step64")) == n_step64


@pytest.mark.parametrize(("graph_max", "n_sizes"), [(128, 34), (1024, 37)])
def test_unpadded_ladder_counts(graph_max: int, n_sizes: int) -> None:
    assert len(ladder(graph_max, padding=False, rule="ceil")) == n_sizes


def test_sizes_above_the_batch_become_one_graph_at_the_batch() -> None:
    sizes = captured_sizes(1024, padding=True, rule="ceil", max_batch_size=300, max_num_tokens=8192)
    assert sizes[-2:] == (256, 300)


def test_max_num_tokens_below_the_batch_shrinks_graphs() -> None:
    assert captured_sizes(512, padding=True, rule="ceil", max_batch_size=512, max_num_tokens=100)[-1] == 100
    assert captured_sizes(512, padding=False, rule="ceil", max_batch_size=512, max_num_tokens=100)[-1] == 64


def test_zero_turns_graphs_off() -> None:
    assert captured_sizes(0, padding=True, rule="ceil", max_batch_size=8, max_num_tokens=64) == ()


@given(
    graph_max=st.integers(1, 4096),
    batch=st.integers(1, 4096),
    cap=st.integers(1, 4096),
    padding=st.booleans(),
    rule=st.sampled_from(RULES),
)
def test_a_replayed_size_holds_the_batch(graph_max: int, batch: int, cap: int, padding: bool, rule: LadderRule) -> None:
    sizes = captured_sizes(graph_max, padding=padding, rule=rule, max_batch_size=cap, max_num_tokens=8192)
    assert list(sizes) == sorted(set(sizes))
    assert all(1 <= size <= min(cap, max(graph_max, cap if padding else 1)) for size in sizes)
    size = replayed_size(batch, sizes, padding=padding)
    if padding:
        assert size == min((s for s in sizes if s >= batch), default=None)
    else:
        assert size == (batch if batch in sizes else None)
