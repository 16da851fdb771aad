"""Worlds: twins of the twin whose constants differ from the nominal ones by what is known about their error.

Only the simulated engine may import this module: what proposes, admits and estimates knows the nominal constants alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from advisor.twin.constants import KNOWN_ERROR, MEASUREMENT_NOISE, NOMINAL, TwinConstants, off_by

_WORLD_STREAM, _NOISE_STREAM = 0x776F726C, 0x6E6F6973


def draw_world(world: int | None) -> TwinConstants:
    """Constants of one world: nominal for None and 0, else every constant drawn within its known error.

    Factors and sizes are log-normal with the nominal value as median; fields of `ABSOLUTE_ERROR` are normal.
    """
    if not world:
        return NOMINAL
    rng = np.random.default_rng([_WORLD_STREAM, world])
    return off_by(NOMINAL, {name: float(rng.standard_normal()) for name in KNOWN_ERROR})


def measurement_noise(seed: int, n: int, sigma: float = MEASUREMENT_NOISE) -> NDArray[np.float64]:
    """Multipliers with median 1 for `n` measured durations of one benchmark, shape (n,)."""
    rng = np.random.default_rng([_NOISE_STREAM, seed & (2**63 - 1)])
    return np.asarray(np.exp(sigma * rng.standard_normal(n)), dtype=np.float64)
