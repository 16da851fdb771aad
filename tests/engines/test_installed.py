"""The installed TensorRT-LLM is found by its command, whatever way its console script names its interpreter."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from advisor.engines.installed import installation
from tests.standin.fake_install import VERSION, fake_install

REST = "print('TEST EQUIPMENT: not started by these tests')\n"


def test_none_where_there_is_no_command(tmp_path: Path) -> None:
    assert installation({"PATH": str(tmp_path)}) is None


def test_command_interpreter_and_version(tmp_path: Path) -> None:
    env = fake_install(tmp_path)
    found = installation(env)
    assert found is not None
    assert (found.command, found.version) == (str(tmp_path / "bin" / "trtllm-serve"), VERSION)
    assert found.interpreter == str(tmp_path / "bin" / "python3")


@pytest.mark.parametrize(
    "first_lines",
    [
        "#!{python}\n",
        "#!{python} -sE\n",
        "#!/usr/bin/env python3\n",
        "#!/usr/bin/env -S python3 -s\n",
        "#!/bin/sh\n'''exec' \"{python}\" \"$0\" \"$@\"\n' '''\n",
        "#!/bin/sh\n'''exec' {python} \"$0\" \"$@\"\n' '''\n",
    ],
)
def test_the_interpreter_behind_a_console_script(tmp_path: Path, first_lines: str) -> None:
    env, python = fake_install(tmp_path), tmp_path / "bin" / "python3"
    script = tmp_path / "bin" / "trtllm-serve"
    script.write_text(first_lines.format(python=python) + REST)
    found = installation(env)
    assert found is not None
    assert (found.interpreter, found.version) == (str(python), VERSION)


@pytest.mark.parametrize("text", ["", "#!", "#!/bin/sh\n", "\x7fELF\xff", "#!/bin/sh\n'''exec' \"cut off\n"])
def test_a_script_that_does_not_tell_means_this_interpreter(tmp_path: Path, text: str) -> None:
    env = fake_install(tmp_path)
    (tmp_path / "bin" / "trtllm-serve").write_text(text)
    found = installation(env)
    assert found is not None
    assert found.interpreter == sys.executable


def test_an_interpreter_that_does_not_start_has_no_version(tmp_path: Path) -> None:
    env = fake_install(tmp_path)
    (tmp_path / "bin" / "trtllm-serve").write_text(f"#!{tmp_path}/gone/python3\n" + REST)
    found = installation(env)
    assert found is not None
    assert found.version is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_command_that_may_be_run_but_not_read(tmp_path: Path) -> None:
    env = fake_install(tmp_path)
    (tmp_path / "bin" / "trtllm-serve").chmod(0o111)
    found = installation(env)
    assert found is not None
    assert found.interpreter == sys.executable
