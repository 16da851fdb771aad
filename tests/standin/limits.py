"""How long an answer may be: prompts that are refused, and outputs that are cut in silence, per release."""

from __future__ import annotations

from tests.standin.settings import Note, Settings


class Room:
    """What `max_seq_len` (the effective one) leaves beside a prompt."""

    def __init__(self, settings: Settings, max_seq_len: int, n_prompt: int) -> None:
        self.settings, self.max_seq_len, self.n_prompt = settings, max_seq_len, n_prompt
        self.tokens = max_seq_len - n_prompt
        self.notes: list[Note] = []
        """What the server logs about it."""

    def output_length(self, max_tokens: int | None) -> int:
        """Tokens that the request may make: as asked, or as many as there is room for.

        Raises:
            ValueError: the prompt is too long; the text is upstream's.
        """
        s, release, room = self.settings, self.settings.release, self.tokens
        if self.n_prompt > s.max_num_tokens and not s.chunked_prefill and release.checks_prompt:
            raise ValueError(
                f"The sum of prompt length ({float(self.n_prompt)}), query length (0) should not exceed "
                f"max_num_tokens ({s.max_num_tokens})"
            )
        if room <= 0:
            raise ValueError(self._no_room())
        if max_tokens is None:
            return room
        if max_tokens <= 0:
            raise ValueError(f"`max_tokens` ({max_tokens}) must be greater than 0")
        if max_tokens > room:
            self.notes.append(("W", _CLAMPED.format(asked=max_tokens, room=room)))
        return min(max_tokens, room)

    def _no_room(self) -> str:
        """Why; releases before 1.2 went on with the number that made no sense, into an assertion in C++."""
        terms = (
            f"`default_max_tokens` ({self.tokens}) = max_seq_len ({self.max_seq_len}) - `splited_prompt_len` "
            f"({self.n_prompt}) - `query_token_len` (0)"
        )
        if self.settings.release.refuses_long_prompt:
            return f"`default_max_tokens` ({self.tokens}) must be greater than 0, {terms}"
        message = "[TensorRT-LLM][ERROR] Assertion failed: mMaxNewTokens > 0"
        self.notes.append(("W", f"`default_max_tokens` ({self.tokens}) should be greater than 0, {terms}"))
        self.notes.append(("E", f"submit request failed: {message}"))
        return message


_CLAMPED = (
    "User-specified `max_tokens` ({asked}) is greater than deduced `default_max_tokens` ({room}), using "
    "default_max_tokens instead."
)
