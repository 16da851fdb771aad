"""Where the words of logs and reports meet the stages of the memory law."""

from __future__ import annotations

import re

from advisor.domain.outcome import Phase
from advisor.memory.law import STAGES

LOAD, FIRST_EXTRA, PROFILING, POOL, FINAL_EXTRA, UNDER_LOAD = range(len(STAGES))

# Stage -> what a diagnosis or a release's own report calls the component, in small letters.
_NAMES: tuple[tuple[int, re.Pattern[str]], ...] = (
    (LOAD, re.compile(r"model$|(?:model|engine|expert) weights")),
    (FIRST_EXTRA, re.compile("additional executor resources|_no_capture_init_extra_resources|cuda graphs|autotuner")),
    (PROFILING, re.compile("model resources created during usage|model_extra|activations")),
    (POOL, re.compile("kv[ _]cache")),
    (
        FINAL_EXTRA,
        re.compile("additional executor resources|executor_extra|resources created after|cuda graphs|autotuner"),
    ),
    (UNDER_LOAD, re.compile("activations|sampler|context logits|logits|buffers of a step")),
)


def law_stage(phase: Phase | None, component: str | None) -> int | None:
    """Index into `law.STAGES` of what ran out of memory; None where the law has no such stage."""
    named = (component or "").lower()
    return next((stage for stage, name in _NAMES if STAGES[stage].phase == phase and name.match(named)), None)


def law_component(phase: Phase, component: str) -> str:
    """A component by the name that the memory law has for it; as it is where the law has none."""
    stage = law_stage(phase, component)
    return component if stage is None else STAGES[stage].component
