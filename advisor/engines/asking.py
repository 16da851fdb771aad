"""Small questions to a server on the OpenAI routes, each with a deadline of its own."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from typing import Any

TROUBLE = (OSError, http.client.HTTPException, ValueError)
"""What asking raises where nobody answers, or answers nonsense; `urllib.error.URLError` is an OSError."""

MAX_ANSWER_BYTES = 64 * 1024 * 1024
PROBE_PROMPT = (11, 12, 13, 14)  # token ids that every vocabulary has
_NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def get(url: str, timeout_s: float) -> bytes:
    """The body of an answer with status 200.

    Raises:
        One of `TROUBLE`: no answer, or another status.
    """
    with _NO_PROXY.open(url, timeout=timeout_s) as answer:
        return bytes(answer.read(MAX_ANSWER_BYTES))


def served_model(base_url: str, timeout_s: float = 5.0) -> str:
    """The name under which the server knows its model.

    Raises:
        One of `TROUBLE`.
    """
    listed = json.loads(get(f"{base_url}/v1/models", timeout_s))
    try:
        return str(listed["data"][0]["id"])
    except (KeyError, IndexError, TypeError):
        raise ValueError(f"/v1/models answers {str(listed)[:200]}") from None


def one_token(base_url: str, model: str, timeout_s: float) -> str | None:
    """Have one token generated: None when it came, else what happened instead.

    `/health` may say 200 for a server that is dead inside; only a real request proves that it lives.
    """
    asked = {"model": model, "prompt": list(PROBE_PROMPT), "max_tokens": 1, "ignore_eos": True, "temperature": 0}
    request = urllib.request.Request(
        f"{base_url}/v1/completions", json.dumps(asked).encode(), {"Content-Type": "application/json"}
    )
    try:
        with _NO_PROXY.open(request, timeout=timeout_s) as answer:
            return _nothing_generated(json.loads(answer.read(MAX_ANSWER_BYTES)))
    except urllib.error.HTTPError as error:
        with error:
            return f"HTTP {error.code}: {error.read(400).decode(errors='replace')}"
    except TROUBLE as error:
        return f"{type(error).__name__}: {error}"


def _nothing_generated(answer: Any) -> str | None:
    try:
        generated = int(answer["usage"]["completion_tokens"])
    except (KeyError, TypeError, ValueError):
        return f"an answer without usage: {str(answer)[:200]}"
    return None if generated > 0 else "no token"
