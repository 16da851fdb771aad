"""Which baselines a study shows, and which of them it launches."""

from __future__ import annotations

from pathlib import Path

from advisor.app.forecast import Forecaster
from advisor.app.setup import Resolved
from advisor.domain.errors import BadInput
from advisor.domain.strict import unknown_name
from advisor.search.baselines import BASELINE_NAMES, Baseline, baseline_named, baselines
from advisor.search.space import completed
from advisor.store import catalog
from advisor.store.yaml_files import load_yaml, read_text


def choose_baselines(
    resolved: Resolved, asked: tuple[str, ...], forecaster: Forecaster
) -> tuple[tuple[Baseline, ...], tuple[str, ...]]:
    """All baselines of a study, and the names of those to launch: the study's own first, then those asked for.

    Raises:
        BadInput: an unknown name, an unreadable file, or the study's own baseline does not apply here.
    """
    longest = max(resolved.workloads, key=lambda workload: workload.max_tokens_per_request)
    known = list(
        baselines(
            resolved.deployment,
            forecaster.facts,
            forecaster.gpu,
            longest,
            forecaster.dialect.default_config(forecaster.gpu),
            catalog.curated(),
        )
    )
    if forecaster.stand_in is not None and forecaster.stand_in.is_typical:
        known = [_without_architecture(entry) for entry in known]
    own = baseline_named(resolved.study.baseline, known)
    launched = [own.name if own.config is not None else "default"]
    for name in asked:
        if name not in BASELINE_NAMES:
            known.append(_from_file(name, resolved, forecaster))
        elif baseline_named(name, known).config is None:
            raise BadInput(f"Baseline {name!r} does not apply here: {baseline_named(name, known).why}.")
        if name not in launched:
            launched.append(name)
    return tuple(_completed(entry, resolved) for entry in known), tuple(launched)


def _without_architecture(entry: Baseline) -> Baseline:
    """trtllm-bench sizes by the architecture, and a typical one is not the model's."""
    if entry.name != "trtllm-bench":
        return entry
    return Baseline(name=entry.name, config=None, why="its sizing rule needs the model's architecture")


def _completed(entry: Baseline, resolved: Resolved) -> Baseline:
    """With every dimension of the space stated, so that a baseline and a proposal of the same settings are equal."""
    if entry.config is None:
        return entry
    return Baseline(name=entry.name, config=completed(resolved.space, entry.config, resolved.deployment), why=entry.why)


def _from_file(name: str, resolved: Resolved, forecaster: Forecaster) -> Baseline:
    path = Path(name)
    if not path.suffix and "/" not in name:
        raise unknown_name("baseline", name, (*BASELINE_NAMES, "a YAML file"))
    document = load_yaml(read_text(path), name)
    try:
        read = forecaster.dialect.read(document, resolved.deployment)
    except BadInput as error:
        raise BadInput(f"{name}: {error}") from None
    return Baseline(name=name, config=read.config, why="; ".join(("your file", *read.notes)))
