"""The packages around an installed engine, by their metadata: nothing of them is imported."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field

from advisor.domain.strict import StrictModel
from advisor.host.bounded import answer_of

ASKED = ("torch", "mpi4py", "transformers", "huggingface_hub")
# The runtime of CUDA that PyTorch brings: the wheels of CUDA 12 have a suffix, those of CUDA 13 have none.
CUDA_RUNTIMES = ("nvidia-cuda-runtime", "nvidia-cuda-runtime-cu13", "nvidia-cuda-runtime-cu12")
CUDA_VERSION_FILE = "usr/local/cuda/version.json"

_ASK = """
import json, sys
from importlib.metadata import PackageNotFoundError, version
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = version(name)
    except PackageNotFoundError:
        pass
print(json.dumps({"python": sys.version.split()[0], "prefix": sys.prefix, "versions": found}))
"""


class Packages(StrictModel):
    """What one interpreter has."""

    python: str
    prefix: str = Field(description="Folder of its environment")
    versions: dict[str, str] = Field(description="Of the packages asked about, those that are there")


def read_packages(interpreter: str, package: str, env: Mapping[str, str], timeout_s: float) -> Packages | None:
    """Ask an interpreter for an engine's package and those around it; None where it does not start, or says nothing."""
    said = answer_of([interpreter, "-c", _ASK, package, *ASKED, *CUDA_RUNTIMES], env, timeout_s)
    try:
        told = json.loads(said.output)
        return Packages(python=told["python"], prefix=told["prefix"], versions=told["versions"])
    except (ValueError, LookupError, TypeError):
        return None


def cuda_needed(packages: Packages, root: Path, env: Mapping[str, str]) -> str | None:
    """The CUDA that PyTorch there was built for, such as `12.8`; None where nothing tells.

    The wheels say it by their CUDA runtime or by a suffix of PyTorch's version (`2.9.1+cu130`); NVIDIA's containers,
    whose PyTorch uses the CUDA of the image, by `CUDA_VERSION` or a file.
    """
    by_package = (packages.versions.get(name) for name in CUDA_RUNTIMES)
    suffix = re.search(r"\+cu(\d+)(\d)$", packages.versions.get("torch", ""))
    told = (
        *by_package,
        f"{suffix[1]}.{suffix[2]}" if suffix else None,
        env.get("CUDA_VERSION"),
        _version_in(root / CUDA_VERSION_FILE),
    )
    matches = (re.match(r"(\d+)\.(\d+)", version) for version in told if version)
    return next((f"{match[1]}.{match[2]}" for match in matches if match), None)


def _version_in(path: Path) -> str | None:
    try:
        version = json.loads(path.read_text(encoding="utf-8"))["cuda"]["version"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return version if isinstance(version, str) else None
