"""A typical model has the size it was asked for, and a shape that grows with it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.domain.units import GIB_BYTES
from advisor.store import catalog
from advisor.twin.layout import Layout, QuantModes, TableKey
from advisor.twin.roofline import roofline_tables
from advisor.twin.typical import typical_model

BF16 = QuantModes("bfloat16", "bfloat16", "bfloat16", "bfloat16")


def weights_gib(n_parameters: float, tp: int, *, is_moe: bool) -> float:
    """Of all ranks together, by the law that other models go by."""
    facts = typical_model("nobody's", n_parameters, tp, is_moe=is_moe)
    layout = Layout(tp, 1, 1, tp) if is_moe else Layout(tp, 1, 1, 1)
    gpu = catalog._gpu_specs()["h100_sxm"]
    return tp * roofline_tables(TableKey("nobody's", "h100_sxm", layout, BF16), facts, gpu).memory.weights_gib


@settings(max_examples=20)
@given(billions=st.floats(5, 1000), tp=st.sampled_from([1, 2, 4, 8]), is_moe=st.booleans())
def test_it_weighs_what_the_checkpoint_weighs(billions: float, tp: int, is_moe: bool) -> None:
    size_gib = billions * 1e9 * 2 / GIB_BYTES
    assert weights_gib(billions * 1e9, tp, is_moe=is_moe) == pytest.approx(size_gib, rel=0.05)


@settings(max_examples=20)
@given(billions=st.floats(1, 500), tp=st.sampled_from([1, 2, 4, 8]), is_moe=st.booleans())
def test_more_parameters_never_make_it_smaller_and_its_heads_can_be_split(
    billions: float, tp: int, is_moe: bool
) -> None:
    small, large = (typical_model("x", n * 1e9, tp, is_moe=is_moe) for n in (billions, 2 * billions))
    assert small.hidden_size <= large.hidden_size
    assert small.layers <= large.layers
    assert small.num_heads % tp == large.num_heads % tp == 0
    assert small.is_moe is is_moe


@pytest.mark.parametrize(("billions", "layers", "hidden"), [(8, 32, 4096), (70, 80, 8192)])
def test_published_models_are_typical(billions: float, layers: int, hidden: int) -> None:
    """Llama-3.1-8B and Llama-3.3-70B."""
    facts = typical_model("x", billions * 1e9, 1, is_moe=False)
    assert facts.layers == pytest.approx(layers, rel=0.15)
    assert facts.hidden_size == pytest.approx(hidden, rel=0.15)
