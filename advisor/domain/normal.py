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


def normal_cdf(z: ArrayLike) -> Array:
    """P(Z <= z), any shape; absolute error below 1e-7 (Abramowitz and Stegun, 7.1.26)."""
    z = np.asarray(z, np.float64)
    t = 1.0 / (1.0 + 0.3275911 / math.sqrt(2.0) * np.abs(z))
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    tail = 0.5 * series * np.exp(-0.5 * z * z)
    return np.asarray(np.where(z < 0, tail, 1.0 - tail))
