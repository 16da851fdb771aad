"""The published image of each release of an engine, and what its container is started with.

Sources: NVIDIA/TensorRT-LLM docker/release.md and docs/source/quick-start-guide.md (a tag is the number of its
release); vllm-project/vllm docs/deployment/docker.md and docker/Dockerfile (a tag is `v` and the number; the entrypoint
changed between releases, so that whoever starts it has to say one).
"""

from __future__ import annotations

import re

from pydantic import Field

from advisor.domain.strict import StrictModel

TRTLLM_IMAGE = "nvcr.io/nvidia/tensorrt-llm/release"
VLLM_IMAGE = "vllm/vllm-openai"
_PUBLISHED = re.compile(r"\d+\.\d+\.\d+(?:rc\d+)?(?:\.post\d+)?")
_TAGGED = {"trtllm": f"{TRTLLM_IMAGE}:", "vllm": f"{VLLM_IMAGE}:v"}
_PROGRAMS = {"vllm": "vllm"}  # TensorRT-LLM's entrypoint prepares CUDA and runs the command it is given


class Image(StrictModel):
    """What a container is made of; an empty `entrypoint` leaves the image its own."""

    reference: str = Field(pattern=r"^[\w.:/@-]+$", description="As docker takes it")
    entrypoint: tuple[str, ...] = ()


def published(release: str) -> str | None:
    """The release as its tags are called; None for `main`, builds in between and rows of ours that are none."""
    return release if _PUBLISHED.fullmatch(release) else None


def image_of(engine: str, *releases: str) -> Image | None:
    """The image of the first of some releases that has one; None where none has, or the engine has no images."""
    tag = next((release for release in releases if published(release)), None)
    if tag is None or engine not in _TAGGED:
        return None
    return image_named(engine, _TAGGED[engine] + tag)


def usual_image(engine: str, release: str) -> str:
    """Where the image of a release is; `x.y.z` stands for a release that has none."""
    return _TAGGED[engine] + (published(release) or "x.y.z")


def image_named(engine: str, reference: str) -> Image:
    """Somebody's own image of an engine."""
    program = _PROGRAMS.get(engine)
    return Image(reference=reference, entrypoint=(program,) if program else ())
