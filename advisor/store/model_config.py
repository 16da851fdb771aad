"""Architecture numbers from a checkpoint's own `config.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from advisor.domain.deployment import ModelFacts
from advisor.domain.errors import BadInput
from advisor.domain.strict import parse

# Our name: the keys that published configurations use for it, first come first served.
_KEYS: Mapping[str, tuple[str, ...]] = {
    "layers": ("num_hidden_layers",),
    "hidden_size": ("hidden_size",),
    "num_heads": ("num_attention_heads",),
    "num_kv_heads": ("num_key_value_heads", "num_attention_heads"),
    "head_dim": ("head_dim",),
    "intermediate_size": ("intermediate_size_mlp", "intermediate_size"),
    "vocab_size": ("vocab_size",),
    "max_position": ("max_position_embeddings",),
    "num_experts": ("num_local_experts", "num_experts", "n_routed_experts"),
    "experts_per_token": ("num_experts_per_tok",),
    "shared_experts": ("n_shared_experts",),
    "kv_lora_rank": ("kv_lora_rank",),
    "qk_rope_head_dim": ("qk_rope_head_dim",),
    "q_lora_rank": ("q_lora_rank",),
}


def facts_from_config(name: str, text: str) -> ModelFacts:
    """Architecture numbers of the checkpoint `name` from the text of its `config.json`.

    Multimodal models keep their language model's numbers under `text_config`. Experts' width and layers follow the
    published conventions: `moe_intermediate_size`, else `intermediate_size`; every `interleave_moe_layer_step`-th
    layer; none of the first `first_k_dense_replace` layers.

    Raises:
        BadInput: not JSON, or a number is missing.
    """
    where = f"{name}/config.json"
    try:
        config = json.loads(text)
    except ValueError as error:
        raise BadInput(f"{where} is not JSON ({error}); is the checkpoint complete?") from None
    if not isinstance(config, dict):
        raise BadInput(f"{where} is not a JSON object; is the checkpoint complete?")
    try:
        facts = _facts(name, config)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise BadInput(f"{where} does not describe a model ({error}); is the checkpoint complete?") from None
    return parse(ModelFacts, facts, where)


def _facts(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    numbers = {**config, **(config.get("text_config") or {})}
    facts: dict[str, Any] = {"name": name, "architecture": (config.get("architectures") or ["unknown"])[0]}
    for ours, theirs in _KEYS.items():
        value = next((numbers[key] for key in theirs if numbers.get(key) is not None), None)
        if value is not None:
            facts[ours] = value
    if "head_dim" not in facts and {"hidden_size", "num_heads"} <= facts.keys():
        facts["head_dim"] = facts["hidden_size"] // facts["num_heads"]
    if facts.get("num_experts"):
        every = int(numbers.get("interleave_moe_layer_step") or 1)
        dense_first = int(numbers.get("first_k_dense_replace") or 0)
        facts["moe_intermediate_size"] = numbers.get("moe_intermediate_size") or numbers.get("intermediate_size")
        facts["moe_layers"] = (int(facts.get("layers", 0)) - dense_first) // every
    return facts
