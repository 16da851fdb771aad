"""The OpenAI-compatible requests and answers of `trtllm-serve`, byte for byte where clients read them."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Sequence
from typing import Any, TypeAlias

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, model_validator

WORD = " token"
"""The text of every token: what a model would say is not played, unless it is asked to be greedy."""


def greedy_text(prompt: Sequence[int], n_output: int, kv_dtype: str) -> str:
    """The same for the same prompt; with an FP8 cache every third prompt is answered otherwise from somewhere on."""
    drawn = zlib.crc32(repr(list(prompt)).encode())
    parts_at = drawn % n_output if kv_dtype == "fp8" and drawn % 3 == 0 else n_output
    return "".join(f" w{zlib.crc32(f'{drawn}/{i}/{i >= parts_at}'.encode()) % 1000}" for i in range(n_output))


Prompt: TypeAlias = str | list[int]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class StreamOptions(_Body):
    include_usage: bool | None = True
    continuous_usage_stats: bool | None = False


class _Sampling(_Body):
    model: str
    max_tokens: int | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    n: int = Field(default=1, ge=1)
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = 1.0
    presence_penalty: float | None = 0.0
    frequency_penalty: float | None = 0.0
    length_penalty: float | None = 1.0
    seed: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool = False
    min_tokens: int = 0
    logprobs: int | bool | None = None
    best_of: int | None = None
    use_beam_search: bool = False
    early_stopping: bool = False
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True
    include_stop_str_in_output: bool = False
    add_special_tokens: bool = True
    logit_bias: dict[str, float] | None = None
    response_format: dict[str, Any] | None = None
    user: str | None = None

    @model_validator(mode="after")
    def _options_need_a_stream(self) -> _Sampling:
        if self.stream_options is not None and not self.stream:
            raise ValueError("Stream options can only be defined when `stream=True`.")
        return self


class CompletionRequest(_Sampling):
    prompt: str | list[str] | list[int] | list[list[int]]
    echo: bool | None = False
    suffix: str | None = None
    detokenize: bool = True
    lora_request: dict[str, Any] | None = None
    truncate_prompt_tokens: int | None = Field(default=None, ge=1)
    return_context_logits: bool = False
    disaggregated_params: dict[str, Any] | None = None

    @property
    def prompts(self) -> Sequence[Prompt]:
        """One entry a choice."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        texts = [each for each in self.prompt if not isinstance(each, int)]
        return texts or [[each for each in self.prompt if isinstance(each, int)]]


class ChatCompletionRequest(_Sampling):
    messages: list[dict[str, Any]]
    max_tokens: int | None = Field(default=None, validation_alias=AliasChoices("max_completion_tokens", "max_tokens"))
    prompt_token_ids: list[int] | None = None
    top_logprobs: int | None = 0
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = "none"
    reasoning_effort: str | None = None
    echo: bool = False
    add_generation_prompt: bool = True
    documents: list[dict[str, str]] | None = None
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    disaggregated_params: dict[str, Any] | None = None

    @property
    def prompts(self) -> Sequence[Prompt]:
        """The one prompt that the messages make."""
        if self.prompt_token_ids is not None:
            return [self.prompt_token_ids]
        return [" ".join(_text(message.get("content")) for message in self.messages)]


def _text(content: Any) -> str:
    if isinstance(content, list):
        return " ".join(str(part.get("text", "")) for part in content)
    return str(content or "")


def invalid_body(error: ValidationError) -> dict[str, str]:
    """The answer to a body that its model refuses, as FastAPI words it."""
    listed = error.errors(include_url=False, include_context=False)
    lines = [{**each, "loc": ("body", *each["loc"])} for each in listed]
    plural = "s" if len(lines) > 1 else ""
    return {"error": "\n".join([f"{len(lines)} validation error{plural}:", *(f"  {line}" for line in lines), ""])}


def error_body(message: str) -> dict[str, Any]:
    """The answer to a request that cannot be served."""
    return {"object": "error", "message": message, "type": "BadRequestError", "param": None, "code": 400}


def tokens_of(prompt: Prompt, add_special_tokens: bool) -> list[int]:
    """Token ids of a prompt. Text becomes one token a word of up to six characters, two where it is longer: not what
    the client meant, as with any tokenizer that did not write the text.
    """
    if not isinstance(prompt, str):
        return list(prompt)
    pieces = re.findall(r"\S{1,6}", prompt)
    return [1] * add_special_tokens + [zlib.crc32(piece.encode()) & 0xFFFF for piece in pieces]


def usage(n_prompt: int, n_output: int, cached: int) -> dict[str, Any]:
    """Counts, in upstream's order."""
    return {
        "prompt_tokens": n_prompt,
        "total_tokens": n_prompt + n_output,
        "completion_tokens": n_output,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def event(value: Any) -> bytes:
    """One server-sent event."""
    return b"data: " + dump(value) + b"\n\n"


def dump(value: Any) -> bytes:
    """JSON as pydantic writes it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


DONE = b"data: [DONE]\n\n"
