"""TEST EQUIPMENT: docker and srun with pyxis, as far as a server on the stand-in needs them.

Both run the command on this machine, with what would be mounted replaced by where it lies and the published port in the
place of the container's own, and both note what they were asked for.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

_HEAD = f"""#!{sys.executable}
# TEST EQUIPMENT: a stand-in for a container engine.
import csv, json, os, sys

def run(words, mounts, env, replaced):
    json.dump({{"argv": sys.argv[1:], "mounts": mounts, "env": env}}, open(os.environ["ASKED"], "w"))
    def outside(word):
        for inside, here in mounts.items():
            if word == inside or word.startswith(inside + "/"):
                return here + word[len(inside):]
        return replaced.get(word, word)
    os.execvpe(words[0], [outside(word) for word in words], {{**os.environ, **env}})

"""
_DOCKER = """
flags = {"--rm", "--init", "--ipc=host"}
words, mounts, env, port, entrypoint = sys.argv[1:], {}, {}, None, []
assert words.pop(0) == "run"
while words[0].startswith("-"):
    flag = words.pop(0)
    if flag in flags:
        continue
    value = words.pop(0)
    if flag == "--mount":
        fields = dict(field.partition("=")[::2] for field in next(csv.reader([value])))
        assert os.path.exists(fields["source"]), fields
        mounts[fields["target"]] = fields["source"]
    elif flag == "--env":
        name, equals, said = value.partition("=")
        env |= {name: said} if equals else {name: os.environ[name]} if name in os.environ else {}
    elif flag == "--publish":
        address, port, inside = value.split(":")
    elif flag == "--entrypoint":
        entrypoint = [value]
image = words.pop(0)
run([*entrypoint, *words], mounts, env, {"0.0.0.0": address, inside: port})
"""
_SRUN = """
words, mounts, env = sys.argv[1:], {}, {}
while words[0].startswith("-"):
    flag, _, value = words.pop(0).partition("=")
    if flag == "--container-mounts":
        mounts = {each.split(":")[1]: each.split(":")[0] for each in value.split(",")}
        assert all(map(os.path.exists, mounts.values())), mounts
    elif flag == "--export":
        env = dict(each.split("=") for each in value.split(",") if "=" in each)
run(words, mounts, env, {})
"""
_LAUNCHER = '#!/bin/sh\nexec "$@"\n'


def install(folder: Path) -> Path:
    """A folder with the programs, for the front of a PATH."""
    folder.mkdir()
    for name, text in (
        ("docker", _HEAD + _DOCKER),
        ("srun", _HEAD + _SRUN),
        ("trtllm-llmapi-launch", _LAUNCHER),
    ):
        (folder / name).write_text(text, encoding="utf-8")
        (folder / name).chmod(0o755)
    return folder


def asked(path: Path) -> dict[str, Any]:
    """What the program was asked for: `argv`, `mounts` (inside to outside) and `env`."""
    noted: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return noted
