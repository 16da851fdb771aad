"""A checkpoint's own config.json gives the numbers that the published table has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from advisor.domain.errors import BadInput
from advisor.store import catalog
from advisor.store.model_config import facts_from_config

# Keys and values of the published configurations, cut to what is read.
LLAMA_8B: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 131072,
}  # fmt: skip
MAVERICK: dict[str, Any] = {
    "architectures": ["Llama4ForConditionalGeneration"],
    "text_config": {
        "hidden_size": 5120, "intermediate_size": 8192, "intermediate_size_mlp": 16384, "num_hidden_layers": 48,
        "num_attention_heads": 40, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 202048,
        "max_position_embeddings": 1048576, "num_local_experts": 128, "num_experts_per_tok": 1,
        "interleave_moe_layer_step": 2,
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("published", "config"),
    [
        ("meta-llama/Meta-Llama-3.1-8B", LLAMA_8B),
        ("meta-llama/Llama-4-Maverick-17B-128E-Instruct", MAVERICK),
    ],
)
def test_the_numbers_of_the_published_table(published: str, config: dict[str, Any]) -> None:
    ours, table = facts_from_config("checkpoint", json.dumps(config)), catalog.model_facts(published)
    assert ours.model_dump(exclude={"name"}) == table.model_dump(exclude={"name"})


def test_a_folder_is_a_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_8B), encoding="utf-8")
    assert catalog.model_facts(str(tmp_path)).layers == 32


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "not JSON"), ("[]", "not a JSON object"), ('{"hidden_size": 4096}', "'layers' is missing")],
)
def test_a_broken_config_names_the_file(text: str, message: str) -> None:
    with pytest.raises(BadInput, match=f"checkpoint/config.json.*{message}"):
        facts_from_config("checkpoint", text)


def test_a_folder_without_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"config\.json"):
        catalog.model_facts(str(tmp_path))
