"""`advisor export --closest`: of all shapes that were tuned in a folder of results, the nearest one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from advisor.app.exporting import Closest, Export, Found, export, read_found
from advisor.app.manifest import RESULT_NAME
from advisor.domain.errors import BadInput
from advisor.domain.strict import changed
from advisor.search.shapes import FAR_OCTAVES, Shape, octaves

TRIALS = "trials"  # a folder of evidence: no result lies below it


def export_closest(folder: Path, asked: Shape, engine_version: str | None = None) -> Export:
    """The YAML of the tuned shape nearest to the one asked for.

    Args:
        folder: `results/`, or a study or run below it.
        asked: Lengths and, optionally, concurrency.
        engine_version: Release to write for; none for the one it was tuned for.

    Raises:
        BadInput: no result below the folder, results of several deployments, or a release that cannot express it.
    """
    places = tuned_shapes(folder)
    deployments = sorted({_deployment_text(found) for _, found in places})
    if len(deployments) > 1:
        raise BadInput(
            f"{folder} holds results of {len(deployments)} deployments ({'; '.join(deployments)}): "
            f"name the folder of one study, such as {folder / places[0][1].study}."
        )
    place, found = nearest_shape(places, asked)
    far = octaves(found.workload, asked)
    closest = Closest(
        asked=asked, workload_name=found.workload_name, folder=str(place), octaves=far, n_shapes=len(places)
    )
    exported = export(place, engine_version or found.engine_version)
    warnings = [*exported.warnings]
    if far > FAR_OCTAVES:
        warnings.append(f"{found.workload_name} is {far:.1f} octaves away from what was asked: tune that shape.")
    served_tokens, longest_tokens = exported.max_seq_len or 0, asked.isl + asked.osl
    if longest_tokens > served_tokens:
        warnings.append(
            f"Its max_seq_len of {served_tokens:,} is too short for requests of {longest_tokens:,} tokens: raise it."
        )
    return changed(exported, closest=closest, warnings=tuple(warnings))


def nearest_shape(places: Sequence[tuple[Path, Found]], asked: Shape) -> tuple[Path, Found]:
    """The nearest; of equally near ones a measured one before a simulated one, then by name."""
    return min(
        places, key=lambda entry: (octaves(entry[1].workload, asked), entry[1].source != "measured", str(entry[0]))
    )


def tuned_shapes(folder: Path) -> list[tuple[Path, Found]]:
    """Every result with a winner below a folder.

    Raises:
        BadInput: no such folder, no winner in it, or a damaged result.
    """
    if not folder.is_dir():
        raise BadInput(f"There is no folder {folder}: give the folder of results that `advisor tune` wrote.")
    found = [(place, read_found(place)) for place in sorted(_result_folders(folder))]
    tuned = [(place, each) for place, each in found if each.best is not None]
    if not tuned:
        raise BadInput(f"No tuned shape lies below {folder}: run `advisor tune` first, or give another folder.")
    return tuned


def _result_folders(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != TRIALS]
        if RESULT_NAME in names:
            yield Path(place)


def _deployment_text(found: Found) -> str:
    fixed = found.deployment
    on = f"{fixed.model} {fixed.quantization} on {fixed.gpus} x {fixed.gpu}"
    return on if fixed.engine == "trtllm" else f"{on}, {fixed.engine}"
