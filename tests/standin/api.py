"""The routes of `trtllm-serve`: what is asked, what is refused, what is streamed."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
import zlib
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from tests.standin.context import Context
from tests.standin.engine import Engine
from tests.standin.http import Exchange
from tests.standin.limits import Room
from tests.standin.protocol import (
    ChatCompletionRequest,
    CompletionRequest,
    error_body,
    invalid_body,
    tokens_of,
)
from tests.standin.scheduler import Request
from tests.standin.startup import Started
from tests.standin.streams import Answer, ChatAnswer, CompletionAnswer


class Api:
    """Answers requests for one server."""

    def __init__(self, context: Context, started: Started, engine: Engine) -> None:
        self.settings, self.started, self.engine = context.settings, started, engine
        self.dial, self.log, self.faults = context.dial, context.log, context.faults
        self._created = int(time.time())
        self._ids = itertools.count(1)
        self._n_generations = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._routes: dict[tuple[str, str], Callable[[Exchange], None]] = {
            ("GET", "/health"): lambda exchange: exchange.respond(),
            ("GET", "/health_generate"): self._health_generate,
            ("GET", "/version"): lambda exchange: exchange.json({"version": self.settings.release.version}),
            ("GET", "/v1/models"): self._models,
            ("GET", "/metrics"): lambda exchange: self._later(self._metrics(exchange)),
            ("GET", "/perf_metrics"): lambda exchange: exchange.json([]),
            ("POST", "/v1/completions"): lambda exchange: self._generate(exchange, CompletionRequest),
            ("POST", "/v1/chat/completions"): lambda exchange: self._generate(exchange, ChatCompletionRequest),
        }

    def route(self, exchange: Exchange) -> None:
        """Answer one request."""
        path = exchange.path.partition("?")[0]
        handler = self._routes.get((exchange.method, path))
        if handler is not None:
            handler(exchange)
        elif any(known == path for _, known in self._routes):
            exchange.json({"detail": "Method Not Allowed"}, 405)
        else:
            exchange.json({"detail": "Not Found"}, 404)

    def _models(self, exchange: Exchange) -> None:
        card = {"id": self._model_id(), "object": "model", "created": self._created, "owned_by": "tensorrt_llm"}
        exchange.json({"object": "list", "data": [card]})

    def _model_id(self) -> str:
        model = self.settings.model
        return model.rstrip("/").rpartition("/")[2] if model.startswith(("/", ".")) else model

    def _health_generate(self, exchange: Exchange) -> None:
        """One token from the engine itself: what `/health` does not prove."""

        def on_token(n_done: int, last: bool) -> None:
            exchange.respond(b"Generation health check OK")

        def on_error(message: str) -> None:
            exchange.respond(f"Generation health check failed: {message}".encode(), status=500)

        self.engine.submit(Request(prompt=[1, 2], n_output=1, on_token=on_token, on_error=on_error))

    async def _metrics(self, exchange: Exchange) -> None:
        """The iterations since the last call; waits a moment for a first one."""
        empty = self.faults.get("no_metrics")
        stats, new = self.engine.stats, self.engine.new_stats
        if not stats and not empty:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(new.wait(), self.dial.stats_wait_s)
        new.clear()
        found = [] if empty else list(stats)
        stats.clear()
        exchange.json(found)

    def _later(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- generation ----------------------------------------------------------------------------------------------

    def _generate(self, exchange: Exchange, model: type[CompletionRequest] | type[ChatCompletionRequest]) -> None:
        try:
            asked = model.model_validate(json.loads(exchange.body or b"null"))
        except ValidationError as error:
            exchange.json(invalid_body(error), 400)
            return
        except ValueError as error:
            exchange.json({"error": f"1 validation error:\n  {{'type': 'json_invalid', 'msg': '{error}'}}\n"}, 400)
            return
        prompts = [tokens_of(prompt, asked.add_special_tokens) for prompt in asked.prompts for _ in range(asked.n)]
        try:
            lengths = [self._output_length(len(prompt), asked.max_tokens) for prompt in prompts]
        except ValueError as error:
            exchange.json(error_body(str(error)), 400)
            return
        self._n_generations += 1
        kind = CompletionAnswer if isinstance(asked, CompletionRequest) else ChatAnswer
        answer = kind(self, exchange, asked, self._n_generations)
        for index, (prompt, limit) in enumerate(zip(prompts, lengths, strict=True)):
            n_output, finish = (limit, "length") if asked.ignore_eos else _end(prompt, limit, asked.min_tokens)
            answer.add(index, prompt, n_output, finish)
        answer.start()

    def _output_length(self, n_prompt: int, max_tokens: int | None) -> int:
        room = Room(self.settings, self.started.max_seq_len, n_prompt)
        try:
            length = room.output_length(max_tokens)
        finally:
            for letter, text in room.notes:
                self.log.say(letter, text)
        clamp = self.faults.get("clamp")
        return min(length, clamp["tokens"]) if clamp else length

    def submit(self, request: Request) -> None:
        """Hand a request to the engine."""
        self.engine.submit(request)

    def abort(self, exchange: Exchange, answer: Answer) -> None:
        """The client went away: its requests end."""
        for request in answer.requests:
            if request.n_done < request.n_output:
                self.log.info(f"{exchange.client} is disconnected, abort {next(self._ids)}")
                self.engine.scheduler.cancel(request)

    def next_id(self) -> int:
        return next(self._ids)


def _end(prompt: list[int], limit: int, min_tokens: int) -> tuple[int, str]:
    """Where a model that may stop does: somewhere, the same for the same prompt."""
    n_output = max(min_tokens, 1 + zlib.crc32(repr(prompt).encode()) % limit)
    return (n_output, "stop") if n_output < limit else (limit, "length")
