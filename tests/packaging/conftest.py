"""The distributions, built once a session."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from tests.packaging.environment import ROOT, build


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    return build(ROOT, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def sdist_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that this checkout's sdist builds."""
    folder = tmp_path_factory.mktemp("sdist")
    with tarfile.open(build(ROOT, "sdist", folder)) as archive:
        archive.extractall(folder, filter="data")
    (tree,) = (path for path in folder.iterdir() if path.is_dir())
    return build(tree, "wheel", tmp_path_factory.mktemp("sdist-wheel"))
