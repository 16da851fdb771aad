"""Two independent readings of each release meet: what advisor writes, the stand-in understands as it was meant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.domain.deployment import Deployment
from advisor.domain.serving_config import ServingConfig
from advisor.engines.trtllm.command import to_argv, to_yaml
from advisor.engines.trtllm.dialects import dialect
from advisor.engines.words import as_mapping
from advisor.store.yaml_files import dump_yaml, load_yaml
from advisor.twin.graphs import captured_sizes
from tests.standin.command_line import parse
from tests.standin.equipment import MODEL
from tests.standin.releases import RELEASES
from tests.standin.settings import understand

configs = st.builds(
    ServingConfig,
    max_batch_size=st.sampled_from([1, 7, 64, 720, 2048]),
    max_num_tokens=st.sampled_from([64, 1024, 8192, 10_000]),
    cuda_graph_max_batch_size=st.sampled_from([0, 1, 8, 100, 384, 1024, 2048]),
    kv_cache_free_gpu_memory_fraction=st.sampled_from([0.2, 0.85, 0.95]),
)


@pytest.mark.parametrize("release", RELEASES)
@given(
    config=configs, padding=st.booleans(), chunked=st.booleans(), reuse=st.booleans(), interval=st.sampled_from([1, 4])
)
def test_what_advisor_writes_is_understood_as_it_was_meant(
    release: str, config: ServingConfig, padding: bool, chunked: bool, reuse: bool, interval: int
) -> None:
    row = RELEASES[release]
    deployment = Deployment(
        model=MODEL, quantization="bf16", gpu="h100_sxm", gpus=2, tp=2, engine_version=row.number,
        graph_padding=padding, chunked_prefill=chunked, block_reuse=reuse,
        stream_interval=interval if row.graphs == "object" else 1,
    )  # fmt: skip
    spoken = dialect(row.number)
    document = load_yaml(dump_yaml(as_mapping(to_yaml(spoken, deployment, config, 3000))), "written")
    argv = to_argv(spoken, deployment, config, 3000, host="127.0.0.1", port=8123, config_path="extra.yml")
    line = parse(release, list(argv[1:]))
    s = understand(row, line, document)
    assert (line.options.get("--config") or line.options.get("--extra_llm_api_options")) == "extra.yml"
    assert line.options["--backend"] == "pytorch"
    assert (s.host, s.port, s.tp) == ("127.0.0.1", 8123, 2)
    assert (s.max_batch_size, s.max_num_tokens, s.max_seq_len) == (config.max_batch_size, config.max_num_tokens, 3000)
    assert s.kv_fraction == config.kv_cache_free_gpu_memory_fraction
    assert (s.chunked_prefill, s.block_reuse) == (chunked, reuse)
    assert s.stream_interval == deployment.stream_interval
    assert s.iter_stats
    assert s.graph_padding == (padding and bool(config.cuda_graph_max_batch_size))
    assert s.graph_sizes == captured_sizes(
        config.cuda_graph_max_batch_size,
        padding=padding,
        rule=spoken.graph_ladder,
        max_batch_size=config.max_batch_size,
        max_num_tokens=config.max_num_tokens,
    )
