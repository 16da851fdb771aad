"""Naming the dialect of a file: by who accepts it, and by the keys that betray it."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.domain.deployment import Deployment
from advisor.domain.errors import BadInput
from advisor.domain.serving_config import ServingConfig
from advisor.engines.trtllm.command import to_yaml
from advisor.engines.trtllm.dialects import dialect
from advisor.engines.trtllm.documents import flatten, nested
from advisor.engines.trtllm.identify import identify, objections
from advisor.engines.words import as_mapping
from tests.engines.trtllm.builders import EVERY_RELEASE, configs, deployments, sayable

FROM_1_0 = ("1.0.0", "1.1.0", "1.2.0", "1.3.0rc", "1.3.0rc24", "main")
FROM_1_1, FROM_1_3 = FROM_1_0[1:], FROM_1_0[3:]


@pytest.mark.parametrize(
    ("text", "accepted"),
    [
        ("cuda_graph_config: {padding_enabled: true}", ("1.0.0rc1",)),
        ("cuda_graph_config: {enable_padding: true}", FROM_1_0),
        ("{use_cuda_graph: true, cuda_graph_padding_enabled: true}", ("0.21.0",)),
        ("pytorch_backend_config: {use_cuda_graph: true}", ("0.20.0",)),
        ("kv_cache_dtype: fp8", ("0.21.0", "1.0.0rc1")),
        ("kv_cache_config: {dtype: fp8}", FROM_1_0),
        ("stream_interval: 4", ("1.0.0rc1", *FROM_1_0)),
        ("stream_interval: 0", ()),
        ("max_batch_size: 64", FROM_1_1),
        ("build_config: {max_batch_size: 64}", ("0.20.0", "0.21.0", "1.0.0rc1", "1.0.0", "1.1.0")),
        ("kv_cache_config: {tokens_per_block: 64}", FROM_1_1),
        ("sampler_type: TorchSampler", FROM_1_1[:-1]),
        ("moe_config: {backend: TRITON}", FROM_1_1),
        ("moe_config: {backend: WIDEEP}", ("1.0.0rc1", *FROM_1_0[:-1])),
        ("moe_config: {backend: AUTO}", FROM_1_3),
        ("speculative_config: {decoding_type: DraftTarget, speculative_model_dir: x}", ("1.0.0rc1", *FROM_1_0[:3])),
        ("speculative_config: {decoding_type: Draft_Target, speculative_model: x, max_draft_len: 3}", FROM_1_3),
        ("speculative_config: {decoding_type: Draft_Target, speculative_model: x}", ()),
        ("kv_cache_config: {use_kv_cache_manager_v2: auto}", FROM_1_3[1:]),
        ("kv_cache_free_gpu_mem_fraction: 0.8", ()),
        ("enable_attention_dp: true", EVERY_RELEASE),
        ("enable_attention_dp: 1", ()),
        ("{}", EVERY_RELEASE),
    ],
)
def test_who_accepts_it_as_it_is(text: str, accepted: tuple[str, ...]) -> None:
    assert identify(flatten(yaml.safe_load(text))).accepted_as_is == accepted


def test_0_20_starts_with_anything_at_the_top_level_and_does_nothing_about_it() -> None:
    found = identify(flatten({"stream_interval": 4, "max_batchsize": 3}))
    assert found.starts_with == ("0.20.0",)
    assert [key.path for key in found.telling] == ["stream_interval"]
    assert {each.kind for each in objections(dialect("0.20.0"), {"stream_interval": 4})} == {"ignored"}


def test_members_are_refused_where_they_are_strict() -> None:
    typo = {"kv_cache_config.tokens_per_blok": 64}
    (refused,) = objections(dialect("1.2.0"), typo)
    assert (refused.kind, "Did you mean 'kv_cache_config.tokens_per_block'?" in refused.why) == ("illegal", True)
    assert [each.kind for each in objections(dialect("0.21.0"), typo)] == ["ignored"]


@pytest.mark.parametrize(
    ("release", "sizes", "largest", "fine"),
    [
        ("1.2.0", [1, 3], 3, False),
        ("1.2.0", [1, 2, 3], 3, True),
        ("1.2.0", [*range(1, 32), 32, 64, 128], 128, True),
        ("1.3.0rc", [1, 2, 3], 3, True),
        ("1.3.0rc", [1, 2, 3], 4, False),
    ],
)
def test_graph_sizes_with_their_maximum(release: str, sizes: list[int], largest: int, fine: bool) -> None:
    leaves = {"cuda_graph_config.batch_sizes": sizes, "cuda_graph_config.max_batch_size": largest}
    assert (objections(dialect(release), leaves) == ()) == fine


@given(release=st.sampled_from(EVERY_RELEASE), deployment=deployments, asked=configs)
def test_every_release_obeys_what_is_written_for_it(release: str, deployment: Deployment, asked: ServingConfig) -> None:
    spoken, (deployment, asked) = dialect(release), sayable(release, deployment, asked)
    leaves = flatten(as_mapping(to_yaml(spoken, deployment, asked, 5120)))
    found = identify(leaves)
    assert release in found.accepted_as_is
    assert release in found.nearest


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.lists(st.integers(), max_size=3),
    lambda inner: st.dictionaries(st.text("abc_", min_size=1, max_size=4), inner, max_size=3),
    max_leaves=6,
)
documents = st.dictionaries(
    st.sampled_from(
        ["kv_cache_config", "cuda_graph_config", "speculative_config", "moe_config", "max_batch_size", "x"]
    ),
    plain | st.fixed_dictionaries({"decoding_type": st.sampled_from(["MTP", "Draft_Target", "No"]), "a": plain}),
    max_size=4,
)


@settings(max_examples=50)
@given(documents)
def test_leaves_are_the_whole_document(document: dict[str, Any]) -> None:
    leaves = flatten(document)
    assert nested(leaves) == document
    identify(leaves)


@pytest.mark.parametrize(
    "document",
    [{"kv_cache_config.dtype": "fp8"}, {"--max_batch_size": 5}, {"kv_cache_config": {"a[b]": 1}}],
)
def test_key_that_only_looks_like_a_path_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="no key of TensorRT-LLM"):
        flatten(document)
