"""The normal distribution against SciPy's."""

from __future__ import annotations

import numpy as np
from scipy.stats import norm

from advisor.domain.normal import normal_cdf, normal_pdf


def test_it_is_scipy_s_far_into_both_tails() -> None:
    z = np.linspace(-9, 9, 2001)
    assert np.abs(normal_cdf(z) - norm.cdf(z)).max() < 1e-14
    assert np.allclose(normal_pdf(z), norm.pdf(z), rtol=1e-12)
    assert ((normal_cdf(z) >= 0) & (normal_cdf(z) <= 1)).all()


def test_infinities() -> None:
    assert np.allclose(normal_cdf([-np.inf, 0.0, np.inf]), [0.0, 0.5, 1.0], atol=1e-15)
