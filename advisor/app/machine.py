"""Where a study launches, for its manifest: read once, before the first launch."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from advisor.domain.errors import AdvisorError
from advisor.host import containers
from advisor.host.gpus import find_gpus, visible
from advisor.store.run_card import Machine


def this_machine(image: str | None, env: Mapping[str, str]) -> Machine:
    """GPUs, driver and image of launches from here; what nobody tells stays open.

    Args:
        image: Of the container that launches take place in, if any.
        env: Environment of the launches.
    """
    reading = find_gpus()
    return Machine(
        gpus=tuple(gpu.name for gpu in visible(reading.gpus, env)),
        driver=reading.driver_version,
        cuda=reading.cuda_version,
        image=image,
        image_digest=_digest(image, env) if image else None,
    )


def _digest(image: str, env: Mapping[str, str]) -> str | None:
    with contextlib.suppress(AdvisorError):
        return containers.image_digest(containers.find_runtime(env), image)
    return None
