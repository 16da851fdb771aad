"""The installed tensorrt_llm as judge: its own pydantic classes look at a YAML before any launch."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from advisor.domain.strict import StrictModel

TIMEOUT_S = 180.0  # importing tensorrt_llm imports torch and starts MPI


class UpstreamVerdict(StrictModel):
    """What the installed release says."""

    version: str
    errors: tuple[str, ...]


# In a process of its own: the import prints on stdout, starts MPI and may end the process.
_JUDGE = """
import json, os, sys
answer = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
import tensorrt_llm
from tensorrt_llm.llmapi import llm_args
judge = getattr(llm_args, "TorchLlmArgs", None) or llm_args.LlmArgs
errors = []
try:
    judge(**{"model": "model", **json.load(sys.stdin)})
except Exception as error:
    listed = getattr(error, "errors", None)
    found = listed() if callable(listed) else []
    errors = [".".join(map(str, each["loc"])) + ": " + each["msg"] for each in found] or [str(error)]
json.dump({"version": str(tensorrt_llm.__version__), "errors": errors}, answer)
answer.close()
"""


def judged_upstream(document: Mapping[str, Any]) -> UpstreamVerdict | None:
    """The verdict of the installed tensorrt_llm on a document; None when it is not there or cannot be imported."""
    if importlib.util.find_spec("tensorrt_llm") is None:
        return None
    path = os.pathsep.join(part for part in sys.path if part)
    try:
        done = subprocess.run(
            [sys.executable, "-c", _JUDGE],
            input=json.dumps(dict(document)),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            env={**os.environ, "PYTHONPATH": path},
            check=False,
        )
        return UpstreamVerdict.model_validate_json(done.stdout)
    except (subprocess.TimeoutExpired, OSError, ValueError):
        return None


def validate_with_upstream(document: Mapping[str, Any]) -> list[str] | None:
    """What the installed tensorrt_llm has against a document, empty when nothing; None when it is not importable."""
    verdict = judged_upstream(document)
    return None if verdict is None else list(verdict.errors)
