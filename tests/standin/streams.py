"""How an answer leaves the server: whole, or token by token as server-sent events."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tests.standin.dial import Fault
from tests.standin.http import Exchange
from tests.standin.protocol import (
    DONE,
    WORD,
    ChatCompletionRequest,
    CompletionRequest,
    dump,
    error_body,
    event,
    greedy_text,
    usage,
)
from tests.standin.scheduler import Request

if TYPE_CHECKING:
    from tests.standin.api import Api


class Answer:
    """The answer to one HTTP request: one choice a prompt, and the faults that this answer has."""

    object_name = ""
    id_prefix = ""

    def __init__(self, api: Api, exchange: Exchange, asked: CompletionRequest | ChatCompletionRequest, n: int) -> None:
        self.api, self.exchange, self.asked = api, exchange, asked
        self.requests: list[Request] = []
        self.finish: list[str] = []
        self.sent: list[int] = []
        self.n_open = self.n_events = 0
        self.created = int(time.time())
        self.interval = api.settings.stream_interval
        self.keeps_id = api.settings.release.keeps_ids
        self.cut, self.error = _every(api.faults.get("cut_streams"), n), _every(api.faults.get("error_in_stream"), n)
        self.number = api.next_id()
        self._rests: dict[tuple[int, str, str | None], bytes] = {}

    def add(self, index: int, prompt: Sequence[int], n_output: int, finish: str) -> None:
        """One more choice."""

        def on_token(n_done: int, last: bool) -> None:
            self.on_token(index, n_done, last)

        self.requests.append(Request(prompt, n_output, on_token, self.on_error))
        self.finish.append(finish)
        self.sent.append(0)

    def start(self) -> None:
        """Queue all choices; the head of a stream goes out at once, before anything can fail."""
        self.n_open = len(self.requests)
        self.exchange.on_disconnect = lambda: self.api.abort(self.exchange, self)
        if self.asked.stream:
            self.exchange.start_stream()
            self.opening()
        for request in self.requests:
            self.api.submit(request)

    def opening(self) -> None:
        """What a stream sends before its first token."""

    def on_token(self, index: int, n_done: int, last: bool) -> None:
        """Send what is due."""
        self.n_open -= last
        if self.asked.stream:
            if n_done == 1 or last or n_done % self.interval == 0:
                self.stream(index, n_done, last)
        elif not self.n_open:
            self.exchange.on_disconnect = None
            self.exchange.respond(dump(self.whole()), "application/json")

    def stream(self, index: int, n_done: int, last: bool) -> None:
        """Send what a choice has made since its last event, and whatever comes after it."""
        events = [self.chunk(index, WORD * (n_done - self.sent[index]), self.finish[index] if last else None)]
        self.sent[index] = n_done
        self.n_events += 1
        if self._reached(self.cut):
            self.exchange.send(*events)
            self._forget()
            self.exchange.cut()
        elif self._reached(self.error):
            self.exchange.send(*events, event(error_body("an error inside a stream")), DONE)
            self._forget()
            self.exchange.end_stream()
        elif self.n_open:
            self.exchange.send(*events)
        else:
            options = self.asked.stream_options
            counted = [self.usage_chunk()] if options and options.include_usage else []
            self.exchange.on_disconnect = None
            self.exchange.send(*events, *counted, DONE)
            self.exchange.end_stream()

    def _reached(self, fault: Fault | None) -> bool:
        return fault is not None and self.n_events >= fault.get("after_events", 1)

    def on_error(self, message: str) -> None:
        """The engine gave up: a stream that has begun just ends; anything else is told why."""
        if self.exchange.on_disconnect is None:
            return
        self.exchange.on_disconnect = None
        if self.asked.stream:
            self.api.log.raw("ERROR:    Exception in ASGI application")
            self.exchange.cut()
        else:
            self.exchange.json(error_body(message), 400)

    def _forget(self) -> None:
        self.exchange.on_disconnect = None
        for request in self.requests:
            self.api.engine.scheduler.cancel(request)

    def id(self) -> str:
        """Of one event: releases before 1.3 make a new one each time."""
        number = self.number if self.keeps_id else self.api.next_id()
        return f"{self.id_prefix}-{number:032x}"

    def head(self) -> dict[str, Any]:
        model = self.asked.model
        return {"id": self.id(), "object": self.object_name, "created": self.created, "model": model}

    def counts(self) -> dict[str, Any]:
        """Usage over all choices so far, with the offset of a fault that miscounts."""
        wrong = self.api.faults.get("wrong_usage")
        n_output = sum(self.sent) if self.asked.stream else sum(request.n_output for request in self.requests)
        n_prompt = sum(len(request.prompt) for request in self.requests[:: self.asked.n])
        cached = sum(request.cached_tokens for request in self.requests[:: self.asked.n])
        return usage(n_prompt, n_output + (wrong["offset"] if wrong else 0), cached)

    def chunk(self, index: int, text: str, finish: str | None) -> bytes:
        raise NotImplementedError

    def usage_chunk(self) -> bytes:
        raise NotImplementedError

    def whole(self) -> dict[str, Any]:
        raise NotImplementedError

    def _running_usage(self, index: int) -> dict[str, Any] | None:
        """Usage of one choice in each of its chunks, where `continuous_usage_stats` asks for it."""
        options = self.asked.stream_options
        if not (options and options.include_usage and options.continuous_usage_stats):
            return None
        request = self.requests[index]
        return usage(len(request.prompt), request.n_done, request.cached_tokens)


def _every(fault: Fault | None, n: int) -> Fault | None:
    """A fault of each `every`-th answer."""
    return fault if fault and n % fault.get("every", 1) == 0 else None


class CompletionAnswer(Answer):
    """`/v1/completions`."""

    object_name = "text_completion"
    id_prefix = "cmpl"

    def _choice(self, index: int, text: str, finish: str | None) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": index, "text": text, "token_ids": None, "logprobs": None}
        if not self.asked.stream:
            choice["context_logits"] = None
        choice |= {"finish_reason": finish, "stop_reason": None}
        if not self.asked.stream:
            choice["disaggregated_params"] = None
        if self.api.settings.release.tells_decoding:
            choice["avg_decoded_tokens_per_iter"] = 1.0
        return choice

    def chunk(self, index: int, text: str, finish: str | None) -> bytes:
        """Events differ in their id alone, unless they count: the rest is written once."""
        rest = self._rests.get((index, text, finish))
        if rest is None:
            head = {key: value for key, value in self.head().items() if key != "id"}
            running = self._running_usage(index)
            rest = dump({**head, "choices": [self._choice(index, text, finish)], "usage": running})[1:]
            if running is None:
                self._rests[index, text, finish] = rest
        return b'data: {"id":"%b",%b\n\n' % (self.id().encode(), rest)

    def usage_chunk(self) -> bytes:
        """Upstream builds it from the chat model: id and object say so."""
        head = {**self.head(), "id": f"chatcmpl-{self.api.next_id():032x}", "object": "chat.completion.chunk"}
        return event({**head, "choices": [], "usage": self.counts()})

    def whole(self) -> dict[str, Any]:
        kv_dtype = self.api.settings.kv_dtype
        greedy = self.asked.temperature == 0
        choices = [
            self._choice(
                index,
                greedy_text(request.prompt, request.n_output, kv_dtype) if greedy else WORD * request.n_output,
                self.finish[index],
            )
            for index, request in enumerate(self.requests)
        ]
        return {**self.head(), "choices": choices, "usage": self.counts(), "prompt_token_ids": None}


class ChatAnswer(Answer):
    """`/v1/chat/completions`; what is null is left out of its events."""

    object_name = "chat.completion.chunk"
    id_prefix = "chatcmpl"

    def opening(self) -> None:
        """The first event carries only the role, and a blank before its line end."""
        for index in range(len(self.requests)):
            choices = [{"index": index, "delta": {"role": "assistant"}}]
            self.exchange.send(b"data: " + dump({**self.head(), "choices": choices}) + b" \n\n")

    def chunk(self, index: int, text: str, finish: str | None) -> bytes:
        choice: dict[str, Any] = {"index": index, "delta": {"content": text, "reasoning_content": ""}}
        if finish is not None:
            choice["finish_reason"] = finish
        running = self._running_usage(index)
        return event({**self.head(), "choices": [choice], **({"usage": running} if running else {})})

    def usage_chunk(self) -> bytes:
        return event({**self.head(), "choices": [], "usage": self.counts()})

    def whole(self) -> dict[str, Any]:
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": WORD * request.n_output, "tool_calls": []},
                "logprobs": None,
                "finish_reason": self.finish[index],
                "stop_reason": None,
            }
            for index, request in enumerate(self.requests)
        ]
        return {**self.head(), "object": "chat.completion", "choices": choices, "usage": self.counts()}
