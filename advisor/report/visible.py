"""Foreign text made harmless to the eye: what cannot be seen, or reorders what can, is shown by its number."""

from __future__ import annotations

import re

# Unseen or reordering characters are shown by their number; the C0 controls have pictures of their own.
_INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")
_PICTURES = 0x2400


def visible(text: str) -> str:
    """Text in which escape sequences, control and bidirectional characters can be seen and do nothing."""
    return _INVISIBLE.sub(lambda found: _picture(ord(found[0])), text)


def _picture(code: int) -> str:
    return chr(_PICTURES + code) if code < 0x20 else f"\\u{code:04x}"
