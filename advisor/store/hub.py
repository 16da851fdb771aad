"""Hugging Face's cache and access as the environment sets them; tokens are looked for and never read out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field

from advisor.domain.strict import StrictModel

# Owners and families whose licence has to be accepted before a download. Which others ask for that, only the hub knows.
GATED = ("meta-llama/", "google/gemma-")
_YES = ("1", "TRUE", "YES", "ON")
_NAME = re.compile(r"[\w.-]+(?:/[\w.-]+)?")
_TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
MAX_REVISION_BYTES = 256


class HubAccess(StrictModel):
    """How a download would go."""

    cache: str = Field(description="Folder of the cache")
    offline: bool = Field(description="HF_HUB_OFFLINE: nothing is fetched")
    token_from: str | None = Field(description="Where a token is: a variable or a file, never the token")


def hub_access(env: Mapping[str, str]) -> HubAccess:
    """Cache, offline mode and whether there is a token."""
    return HubAccess(
        cache=str(hub_cache(env)),
        offline=env.get("HF_HUB_OFFLINE", "").upper() in _YES,
        token_from=_token_from(env),
    )


def is_hub_name(model: str) -> bool:
    """True for `owner/name`, the name of a model on the hub."""
    return _NAME.fullmatch(model) is not None and ".." not in model


def is_gated(model: str) -> bool:
    """True where it is known, without asking, that the licence has to be accepted first."""
    return model.startswith(GATED)


def hub_cache(env: Mapping[str, str]) -> Path:
    """The folder of the cache, as huggingface_hub chooses it."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if env.get(name):
            return _expanded(env[name], env)
    return _home(env) / "hub"


def cached_snapshot(cache: Path, model: str) -> Path | None:
    """The folder of a model in the cache: its `main` revision, else the newest; None when it has none."""
    folder = cache / f"models--{model.replace('/', '--')}"
    snapshots = folder / "snapshots"
    try:
        revision = (folder / "refs" / "main").read_bytes()[:MAX_REVISION_BYTES].decode(errors="replace").strip()
        if re.fullmatch(r"[0-9a-f]{6,64}", revision) and (snapshots / revision).is_dir():
            return snapshots / revision
    except OSError:
        pass
    try:
        kept = [path for path in snapshots.iterdir() if path.is_dir()]
        return max(kept, key=lambda path: (path.stat().st_mtime, path.name), default=None)
    except OSError:
        return None


def _token_from(env: Mapping[str, str]) -> str | None:
    named = next((name for name in _TOKEN_VARIABLES if env.get(name, "").strip()), None)
    if named is not None:
        return f"${named}"
    path = _expanded(env["HF_TOKEN_PATH"], env) if env.get("HF_TOKEN_PATH") else _home(env) / "token"
    try:
        return str(path) if path.stat().st_size else None
    except (OSError, ValueError):
        return None


def _home(env: Mapping[str, str]) -> Path:
    if env.get("HF_HOME"):
        return _expanded(env["HF_HOME"], env)
    return _expanded(env.get("XDG_CACHE_HOME") or "~/.cache", env) / "huggingface"


def _expanded(path: str, env: Mapping[str, str]) -> Path:
    """`~` as this environment's HOME, or the system's where that is not set."""
    if path == "~" or path.startswith("~/"):
        home = env.get("HOME")
        if home:
            return Path(home + path[1:])
        try:
            return Path(path).expanduser()
        except RuntimeError:
            return Path("/") / path[2:]
    return Path(path)
