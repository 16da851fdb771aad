"""What a step of each setting takes and gives: one line, a table on the terminal, the cells of any table."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from advisor.memory.pricing import Price
from advisor.report.console import table

PRICES_NOTE = "What the last step of each setting takes and gives by the memory law, +- one standard deviation."
HEADS = ("one step", "of", "takes, GiB per GPU", "gives, KV tokens")


def price_text(price: Price) -> str:
    """`0.655 +- 0.012 GiB, +5,344 +- 98 KV tokens per 0.01`."""
    gib, tokens = price_cells(price)
    return f"{gib} GiB, {tokens} KV tokens per {price.step}"


def price_table(prices: Sequence[Price]) -> Table:
    """Prices with their standard deviations."""
    grid = table(*HEADS)
    grid.columns[1].justify = "left"
    for price in prices:
        grid.add_row(price.setting, price.step, *price_cells(price))
    return grid


def price_cells(price: Price) -> tuple[str, str]:
    """What it takes and gives, with standard deviations."""
    return (
        f"{price.gib:.3f} +- {price.gib_sd:.3f}",
        f"{price.kv_tokens:+,} +- {price.kv_tokens_sd:,}",
    )
