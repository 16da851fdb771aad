"""The architecture that a model of a given size usually has, for models whose own nobody described.

Published decoder-only models keep hidden size, layers and heads in proportion: heads of 128, as many layers as heads,
and three quarters of a layer's weights in its feed-forward part. Parameters then grow as hidden size ** 3. Of a
mixture of experts a small share of the parameters works on one token, and that share has these proportions.
"""

from __future__ import annotations

from advisor.domain.deployment import ModelFacts

HEAD_DIM = 128
KV_HEADS = 8
VOCABULARY = 128_256
PARAMETERS_PER_CUBE = 12 / HEAD_DIM  # of layers x hidden size ** 2, with as many layers as heads
ACTIVE_SHARE = 0.06  # Maverick 17 of 400 billion, DeepSeek-R1 37 of 671, Qwen3 22 of 235, gpt-oss 5 of 117
EXPERTS, EXPERTS_PER_TOKEN = 128, 4


def typical_model(name: str, n_parameters: float, tp: int, *, is_moe: bool) -> ModelFacts:
    """Architecture numbers of a model that nobody described.

    Args:
        name: For messages.
        n_parameters: Of the whole model.
        tp: The heads can be split so many ways.
        is_moe: Its weights are mostly experts.
    """
    shaping = n_parameters * (ACTIVE_SHARE if is_moe else 1.0)
    heads = max(1, round((shaping / PARAMETERS_PER_CUBE) ** (1 / 3) / HEAD_DIM / tp)) * tp
    hidden, layers, kv_heads = heads * HEAD_DIM, heads, min(KV_HEADS, heads)
    attention = hidden * HEAD_DIM * 2 * (heads + kv_heads)
    left = max(0.1 * n_parameters, n_parameters - 2 * hidden * VOCABULARY - layers * attention)
    width = max(1, round(left / layers / 3 / hidden / (EXPERTS if is_moe else 1)))
    experts = {
        "num_experts": EXPERTS,
        "experts_per_token": EXPERTS_PER_TOKEN,
        "moe_intermediate_size": width,
        "moe_layers": layers,
    }
    return ModelFacts(
        name=name,
        architecture="unknown",
        layers=layers,
        hidden_size=hidden,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=HEAD_DIM,
        intermediate_size=width,
        vocab_size=VOCABULARY,
        **(experts if is_moe else {}),
    )
