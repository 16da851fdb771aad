"""TEST EQUIPMENT: the download program `hf` as the tests have it: `hf download REPO`, with no network behind it.

A download makes a snapshot folder that holds the model's `config.json` and prints its path. The faults are
`hf_gated`, `hf_not_found`, `hf_offline`, `hf_disk_full` and `hf_hang`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from advisor.domain.errors import BadInput
from advisor.store import catalog
from tests.standin.dial import DOWNLOADS, HOME_VARIABLE, begin, read_dial

_REVISION = "0" * 39 + "1"
_HUB = "https://huggingface.co"
_TEXTS = {
    "hf_gated": (
        "huggingface_hub.errors.GatedRepoError: 401 Client Error. (Request ID: Root=1-00000000)\n\n"
        "Cannot access gated repo for url {hub}/{repo}/resolve/main/config.json.\n"
        "Access to model {repo} is restricted. You must have access to it and be authenticated to access it. "
        "Please log in."
    ),
    "hf_not_found": (
        "huggingface_hub.errors.RepositoryNotFoundError: 404 Client Error. (Request ID: Root=1-00000000)\n\n"
        "Repository Not Found for url: {hub}/api/models/{repo}/revision/main."
    ),
    "hf_offline": (
        "huggingface_hub.errors.LocalEntryNotFoundError: An error happened while trying to locate the files on the Hub "
        "and we cannot find the appropriate snapshot folder for the specified revision on the local disk. Please check "
        "your internet connection and try again."
    ),
    "hf_disk_full": "OSError: [Errno 28] No space left on device",
}


def main(argv: list[str]) -> int:
    """One call. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="hf", description=__doc__)
    download = parser.add_subparsers(dest="command", required=True).add_parser("download")
    download.add_argument("repo")
    download.add_argument("files", nargs="*")
    for option in ("--revision", "--local-dir", "--cache-dir", "--token", "--include", "--exclude", "--repo-type"):
        download.add_argument(option)
    download.add_argument("--quiet", action="store_true")
    asked = parser.parse_args(argv)
    home = Path(os.environ[HOME_VARIABLE])
    call, faults = begin(home / DOWNLOADS, read_dial(home), argv, {"repo": asked.repo})
    if faults.get("hf_hang"):
        signal.pause()
    failed = next((kind for kind in _TEXTS if faults.get(kind)), None)
    config = _config(asked.repo)
    if failed is None and config is None:
        failed = "hf_not_found"
    call.note("end", outcome=failed or "downloaded")
    if failed is not None or config is None:
        text = _TEXTS[failed or "hf_not_found"].format(hub=_HUB, repo=asked.repo)
        sys.stderr.write(f"Traceback (most recent call last):\n{text}\n")
        return 1
    folder = _folder(asked)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    sys.stdout.write(f"{folder}\n")
    return 0


def _folder(asked: argparse.Namespace) -> Path:
    if asked.local_dir is not None:
        return Path(asked.local_dir)
    cache = asked.cache_dir or os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME", "hf-home")) / "hub"
    return Path(cache) / f"models--{asked.repo.replace('/', '--')}" / "snapshots" / _REVISION


def _config(repo: str) -> dict[str, Any] | None:
    """What a checkpoint's `config.json` would say of a model that the catalog knows."""
    try:
        facts = catalog.model_facts(repo)
    except BadInput:
        return None
    named = {
        "num_hidden_layers": facts.layers,
        "hidden_size": facts.hidden_size,
        "num_attention_heads": facts.num_heads,
        "num_key_value_heads": facts.num_kv_heads,
        "head_dim": facts.head_dim,
        "intermediate_size": facts.intermediate_size,
        "vocab_size": facts.vocab_size,
        "max_position_embeddings": facts.max_position,
        "num_local_experts": facts.num_experts,
        "num_experts_per_tok": facts.experts_per_token,
        "moe_intermediate_size": facts.moe_intermediate_size,
        "n_shared_experts": facts.shared_experts,
        "kv_lora_rank": facts.kv_lora_rank,
        "qk_rope_head_dim": facts.qk_rope_head_dim,
        "q_lora_rank": facts.q_lora_rank,
    }
    return {"architectures": [facts.architecture], **{key: value for key, value in named.items() if value is not None}}
