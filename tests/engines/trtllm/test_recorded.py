"""Files and command lines of the releases that the guide's deployment has to be shortened for, as recorded.

The others are recorded beside them and checked with the rest of the bundle in `tests/report/test_files.py`.
"""

from __future__ import annotations

import pytest
import yaml

from advisor.engines.trtllm.dialects import dialect
from advisor.engines.trtllm.environment import to_environment
from advisor.engines.trtllm.spoken import TrtllmDialect, trtllm_dialect
from advisor.report.files import Story, config_text, serve_sh
from tests.engines.trtllm.builders import DATA, EVERY_RELEASE, GUIDE, MAVERICK, RELEASES, config, sayable

STORY = Story(
    source="simulated",
    label="simulated by the twin",
    study="llama4-maverick-fp8-b200",
    workload="4k1k_c1024",
    model=MAVERICK.model,
    engine_version="1.2.0",
    date="2026-01-31",
    confidence="candidate, not re-measured",
)


@pytest.mark.parametrize("release", sorted(set(EVERY_RELEASE) - set(RELEASES)))
def test_files_are_as_recorded(release: str) -> None:
    spoken, folder = dialect(release), DATA / release
    deployment, asked = sayable(release, MAVERICK, GUIDE)
    told = STORY.model_copy(update={"engine_version": release})
    text = config_text(told, TrtllmDialect(spoken), deployment, asked, 5120, {})
    assert text == (folder / TrtllmDialect.config_name).read_text(encoding="utf-8")
    served = serve_sh(told, TrtllmDialect(spoken), deployment, asked, 5120)
    assert served == (folder / "serve.sh").read_text(encoding="utf-8")


@pytest.mark.parametrize("release", EVERY_RELEASE)
def test_environment_is_as_recorded(release: str) -> None:
    spoken = dialect(release)
    deployment, asked = sayable(release, MAVERICK, GUIDE)
    found = to_environment(spoken, deployment, asked)
    recorded = (DATA / release / "environment").read_text(encoding="utf-8")
    assert "".join(f"{name}={value}\n" for name, value in found.items()) == recorded


def test_there_is_a_record_of_every_release() -> None:
    assert {folder.name for folder in DATA.iterdir() if folder.is_dir()} >= set(EVERY_RELEASE)


def test_comment_never_becomes_part_of_a_long_value() -> None:
    path = "/a/checkpoint/folder/with/a/name/that/is/longer/than/any/column/of/comments"
    text = config_text(STORY, trtllm_dialect("1.2.0"), MAVERICK, config(options={"tokenizer": path}), 5120, {})
    assert yaml.safe_load(text)["tokenizer"] == path
