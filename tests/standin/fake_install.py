"""TEST EQUIPMENT: an environment in which an engine seems installed: an interpreter, metadata, a command.

Nothing in it can serve. What advisor reads of a real installation, it can read here.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from advisor.engines.installed import PROGRAMS, Program

VERSION = "1.2.0"
PACKAGES = {"torch": "2.9.1", "mpi4py": "4.1.1", "nvidia-cuda-runtime": "13.0.96", "huggingface-hub": "0.36.0"}
SYSTEM_PATH = "/usr/bin:/bin"


def fake_install(
    folder: Path,
    version: str = VERSION,
    packages: Mapping[str, str] = PACKAGES,
    program: Program = PROGRAMS["trtllm"],
) -> dict[str, str]:
    """Make the environment, a virtual one of this Python, and say what finds it: the PATH."""
    python = folder / "bin" / "python3"
    site = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    python.parent.mkdir(parents=True)
    python.symlink_to(Path(sys.executable).resolve())
    (folder / "pyvenv.cfg").write_text(f"home = {Path(sys.executable).resolve().parent}\n")
    for name, number in {program.package: version, **packages}.items():
        info = site / f"{name.replace('-', '_')}-{number}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n")
    script(folder / "bin" / program.command, f"#!{python}\nraise SystemExit('TEST EQUIPMENT: it serves nothing')\n")
    return {"PATH": f"{folder / 'bin'}:{SYSTEM_PATH}"}


def script(path: Path, text: str) -> Path:
    """Write an executable file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path
