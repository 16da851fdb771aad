"""Time spans in words."""

from __future__ import annotations


def span_text(seconds: float) -> str:
    """A time span in the unit that says most."""
    if seconds >= 1800:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
