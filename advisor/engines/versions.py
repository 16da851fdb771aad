"""Version strings of engines in the order in which they were published."""

from __future__ import annotations

import math
import re

from advisor.domain.errors import BadInput

_VERSION = re.compile(
    r"v?(?P<release>\d+(?:\.\d+)*)(?:\.?(?P<stage>a|b|rc)(?P<pre>\d+))?(?:\.post(?P<post>\d+))?(?:\.dev(?P<dev>\d+))?(?:\+[\w.]+)?",
    re.IGNORECASE,
)

VersionKey = tuple[tuple[int, ...], tuple[str, float], float, float]


def version_key(version: str) -> VersionKey:
    """A key that sorts as PEP 440 does: `1.0.0.dev1 < 1.0.0rc2 < 1.0.0rc2.post1 < 1.0.0 < 1.0.0.post1`.

    Raises:
        BadInput: not a version.
    """
    match = _VERSION.fullmatch(version.strip())
    if not match:
        raise BadInput(f"{version!r} is not a version: write it like 1.2.0 or 1.3.0rc5.")
    numbers = [int(part) for part in match["release"].split(".")]
    while len(numbers) > 1 and numbers[-1] == 0:
        numbers.pop()
    stage = (match["stage"] or "").lower()
    if not stage:
        only_dev = match["dev"] is not None and match["post"] is None
        stage = "" if only_dev else "~"  # "" sorts before a, b, rc; "~" after them
    return (
        tuple(numbers),
        (stage, float(match["pre"] or 0)),
        float(match["post"]) if match["post"] else -1.0,
        float(match["dev"]) if match["dev"] else math.inf,
    )
