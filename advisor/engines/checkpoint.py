"""The checkpoint, made local before the first server starts: a download must not run inside a launch's deadline."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from advisor.domain.errors import BadInput, EngineFailed
from advisor.engines.live_log import LiveLog
from advisor.host.output import BoundedLog
from advisor.host.process import Launch, ServerProcess
from advisor.memory.case import Case
from advisor.memory.diagnosis import Diagnosis, diagnose

FETCHERS = ("hf", "huggingface-cli")  # the second is its name before huggingface_hub 0.34
POLL_S = 1.0
LEFT_OUT = "original/**/*"  # Meta's own copy of the weights, which nobody here reads; upstream leaves it out too


def fetch_command(model: str, env: Mapping[str, str]) -> tuple[str, ...] | None:
    """The command that makes a checkpoint local; None where nothing is to be fetched, or nothing here can.

    Raises:
        BadInput: a folder that is no checkpoint.
    """
    folder = Path(model)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise BadInput(f"{model} holds no config.json: name the folder of a Hugging Face checkpoint.")
        return None
    if env.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        return None
    fetcher = next((found for name in FETCHERS if (found := shutil.which(name, path=env.get("PATH")))), None)
    return None if fetcher is None else (fetcher, "download", model, "--exclude", LEFT_OUT)


def fetch(launch: Launch, log: BoundedLog) -> None:
    """Run the download to its end.

    Raises:
        EngineFailed: why it failed, and what to do.
    """
    live = LiveLog(log, lambda event: None)
    try:
        with ServerProcess(launch, live.take) as process:
            while (exit_code := process.wait(POLL_S)) is None:
                pass
    finally:
        live.close()
    if exit_code:
        raise EngineFailed(live.look(_why))


def _why(case: Case) -> str:
    found: Diagnosis = diagnose(case)
    if found.verdict in ("unknown", "benign", "crash"):
        return f"The checkpoint could not be fetched. {found.summary}"
    ways_out = "; ".join(f"{each.setting}: {each.why}" for each in found.remedies[:2])
    return f"The checkpoint could not be fetched. {found.summary} What helps: {ways_out}."
