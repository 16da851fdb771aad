"""What one streamed completion showed: when its chunks came, what `usage` counted, how it ended.

Chunks are counted and timed, tokens are not: how many a chunk carries is the server's affair (`stream_interval`), so
tokens come from `usage` alone. A chunk is an event with a choice in it, even where its text is still empty (an
unfinished character); the opening chunk of some servers, a role without content, is none.
"""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from advisor.load.sse import SseEvent

DONE = b"[DONE]"
SHOWN_CHARACTERS = 300


@dataclass(slots=True)
class StreamRecord:
    """One request; filled while it runs. Times are ms on the clock of its run, NaN or absent before they happen.

    Attributes:
        sent_ms: The first byte of the request went to the socket.
        chunk_ms: Arrival of every chunk.
        status: HTTP status, 0 before the answer begins.
        n_prompt: Prompt tokens, from `usage`.
        n_output: Output tokens, from `usage`.
        n_cached: Prompt tokens that the server found in its KV cache, where `usage` says so.
        finish_reason: Of the last choice that had one.
        saw_done: `[DONE]` came.
        error: What went wrong, as the end of the sentence "this request ...".
        alarm: True when what went wrong may be a server dying: an error inside a stream, HTTP 5xx, a stream cut short.
    """

    sent_ms: float = math.nan
    chunk_ms: array[float] = field(default_factory=lambda: array("d"))
    status: int = 0
    n_prompt: int | None = None
    n_output: int | None = None
    n_cached: int | None = None
    finish_reason: str | None = None
    saw_done: bool = False
    error: str | None = None
    alarm: bool = False

    @property
    def first_token_ms(self) -> float:
        """Arrival of the first chunk."""
        return self.chunk_ms[0] if self.chunk_ms else math.nan

    @property
    def done_ms(self) -> float:
        """Arrival of the last chunk so far."""
        return self.chunk_ms[-1] if self.chunk_ms else math.nan

    def fail(self, error: str, alarm: bool = False) -> None:
        """Note what went wrong; the first cause stays."""
        if self.error is None:
            self.error, self.alarm = error, alarm

    def take(self, event: SseEvent, now_ms: float) -> None:
        """Read one event that arrived now."""
        if event.data == DONE:
            self.saw_done = True
            return
        payload = parsed(event.data)
        if payload is None:
            self.fail(f"got an event that is not a JSON object: {shown(event.data)}", alarm=True)
            return
        message = error_text(payload)
        if message is not None or event.name == b"error":
            self.fail(f"got an error in its stream: {message or shown(event.data)}", alarm=True)
            return
        choice = _first_choice(payload)
        if choice is not None:
            if _carries_output(choice):
                self.chunk_ms.append(now_ms)
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
        usage = payload.get("usage")
        if isinstance(usage, dict):
            self.n_prompt, self.n_output = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
            details = usage.get("prompt_tokens_details")
            self.n_cached = _count(details, "cached_tokens") if isinstance(details, dict) else None


def parsed(data: bytes) -> dict[str, Any] | None:
    """A JSON object, or None for anything else."""
    try:
        payload = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return payload if isinstance(payload, dict) else None


def error_text(payload: Mapping[str, Any]) -> str | None:
    """The message of an error object in any of its shapes, None when it is none.

    TensorRT-LLM answers `{"object": "error", "message": ...}` from its handlers and `{"error": "<text>"}` from request
    validation; OpenAI and vLLM nest the message under `error`; FastAPI says `detail`.
    """
    if payload.get("choices"):
        return None
    inner = payload.get("error") or payload.get("detail")
    if payload.get("object") == "error":
        inner = payload.get("message") or inner or "no message"
    if isinstance(inner, dict):
        inner = inner.get("message") or inner
    return None if not inner else shown(inner if isinstance(inner, str) else json.dumps(inner))


def shown(text: str | bytes) -> str:
    """Foreign text on one line, its beginning only."""
    whole = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    line = " ".join(whole.split())
    return line if len(line) <= SHOWN_CHARACTERS else line[:SHOWN_CHARACTERS] + " ..."


def _first_choice(payload: Mapping[str, Any]) -> dict[str, Any] | None:
    choices = payload.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    return choice if isinstance(choice, dict) else None


def _carries_output(choice: Mapping[str, Any]) -> bool:
    """False for a chat-like opening: a role, and nothing said."""
    delta = choice.get("delta")
    return not isinstance(delta, dict) or "role" not in delta or any(delta[key] for key in delta if key != "role")


def _count(counts: Mapping[str, Any], name: str) -> int | None:
    value = counts.get(name)
    return value if type(value) is int else None
