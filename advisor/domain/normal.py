"""The standard normal distribution over arrays; SciPy is too heavy a dependency for it."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def normal_pdf(z: ArrayLike) -> Array:
    """Density at z, any shape."""
    z = np.asarray(z, np.float64)
    return np.asarray(np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi))


# Hart's rational approximation (algorithm 5666 of Computer Approximations), highest power first.
_UPPER = (0.0352624965998911, 0.700383064443688, 6.37396220353165, 33.912866078383, 112.079291497871, 221.213596169931,
          220.206867912376)  # fmt: skip
_LOWER = (0.0883883476483184, 1.75566716318264, 16.064177579207, 86.7807322029461, 296.564248779674, 637.333633378831,
          793.826512519948, 440.413735824752)  # fmt: skip
_FAR = 7.07  # from here on a continued fraction is as good


def normal_cdf(z: ArrayLike) -> Array:
    """P(Z <= z), any shape; absolute error below 1e-14."""
    z = np.asarray(z, np.float64)
    size = np.minimum(np.abs(z), 40.0)
    near = np.polyval(_UPPER, size) / np.polyval(_LOWER, size)
    far = 1 / (math.sqrt(2 * math.pi) * (size + 1 / (size + 2 / (size + 3 / (size + 4 / (size + 0.65))))))
    tail = np.exp(-0.5 * size * size) * np.where(size < _FAR, near, far)
    return np.asarray(np.where(z < 0, tail, 1.0 - tail))
