"""Worlds: twins of the twin whose constants differ from the nominal ones by what is known about their error.

Only the simulated engine may import this module: what proposes, admits and estimates knows the nominal constants alone.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from advisor.twin.constants import ABSOLUTE_ERROR, KNOWN_ERROR, MEASUREMENT_NOISE, NOMINAL, TwinConstants

_WORLD_STREAM, _NOISE_STREAM = 0x776F726C, 0x6E6F6973


def draw_world(world: int | None) -> TwinConstants:
    """Constants of one world: nominal for None and 0, else every constant drawn within its known error.

    Factors and sizes are log-normal with the nominal value as median; fields of `ABSOLUTE_ERROR` are normal.
    """
    if not world:
        return NOMINAL
    rng = np.random.default_rng([_WORLD_STREAM, world])
    drawn = {}
    for name, sigma in KNOWN_ERROR.items():
        nominal, deviate = getattr(NOMINAL, name), float(rng.standard_normal()) * sigma
        drawn[name] = nominal + deviate if name in ABSOLUTE_ERROR else nominal * float(np.exp(deviate))
    return replace(NOMINAL, **drawn)


def measurement_noise(seed: int, n: int, sigma: float = MEASUREMENT_NOISE) -> NDArray[np.float64]:
    """Multipliers with median 1 for `n` measured durations of one benchmark, shape (n,)."""
    rng = np.random.default_rng([_NOISE_STREAM, seed & (2**63 - 1)])
    return np.asarray(np.exp(sigma * rng.standard_normal(n)), dtype=np.float64)
