"""How much one deployment says about another: where it stands among those of the same model."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from advisor.domain.deployment import Deployment

Array = NDArray[np.float64]

# Assumed: in units of what makes two servers strangers (their correlation is exp(-1/2) at 1).
OTHER_GPU = 0.7
OTHER_RELEASE = 0.3
OTHER_KV_DTYPE = 0.3
OCTAVE_OF_RANKS = 0.4  # of TP, PP or EP
OTHER_ATTENTION = 0.4  # attention data parallelism on one side only
OTHER_STUDY = 0.3  # another day, client and set of prompts, or a server that is not what it is called
MOST_STUDIES = 6
SERVER_AXES = 7 + MOST_STUDIES


def is_kin(theirs: Deployment, ours: Deployment) -> bool:
    """True where the same weights are served by the same engine."""
    return (theirs.model, theirs.quantization, theirs.engine) == (ours.model, ours.quantization, ours.engine)


def standing(theirs: Deployment, ours: Deployment, study: int) -> Array:
    """Where the server of an earlier study stands when ours is the origin, shape (SERVER_AXES,).

    Args:
        theirs: Its deployment.
        ours: This study's.
        study: Its number, below `MOST_STUDIES`: studies of one deployment still stand apart.
    """
    apart = np.zeros(MOST_STUDIES)
    apart[study] = OTHER_STUDY
    return np.concatenate([_differences(theirs, ours), apart])


def _differences(theirs: Deployment, ours: Deployment) -> Array:
    return np.array(
        [
            OTHER_GPU * (theirs.gpu != ours.gpu),
            OTHER_RELEASE * (theirs.engine_version != ours.engine_version),
            OTHER_KV_DTYPE * (theirs.kv_dtype != ours.kv_dtype),
            OTHER_ATTENTION * (theirs.attention_dp != ours.attention_dp),
            *(OCTAVE_OF_RANKS * math.log2(a / b) for a, b in zip(_ranks(theirs), _ranks(ours), strict=True)),
        ]
    )


def distance(theirs: Deployment, ours: Deployment) -> float:
    """How much differs between two deployments, 0 where nothing that matters does."""
    return float(np.linalg.norm(_differences(theirs, ours)))


def _ranks(deployment: Deployment) -> tuple[int, int, int]:
    return deployment.tp, deployment.pp, deployment.ep
