"""A small completion server with dials, on loopback and in a thread of its own; it notes what it did and when.

Its clock is `time.monotonic`, the client's too, so what the client saw can be held against what was really sent.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from advisor.load.target import Target

VOCAB_SIZE = 2048


@dataclass(frozen=True)
class Dials:
    """How one request is answered.

    Attributes:
        ttft_s: From the whole request to the first chunk.
        itl_s: Between chunks.
        stream_interval: Tokens of a chunk after the first one.
        end: Line end of the event stream.
        data: What stands before the JSON of an event.
        piece_bytes: The body is sent in pieces of so many bytes; 0 = an event at a time.
        opening: Events before the first token.
        text: Text of every chunk.
        clamp: Most output tokens.
        usage: Replaces parts of the usage object; None values remove a key.
        finish_reason: Of the last chunk.
        cut_after: Breaks off after so many chunks, as `cut` says.
        cut: `fin` and `rst` close the connection in mid-body, `quiet` ends the body in good order without [DONE],
            `silent` keeps everything open and says nothing more, `error` sends an error event and ends in good order.
        refuse: HTTP status and body of an answer that is no stream.
        before: `fin` or `rst` hangs up before any answer, `silent` never answers.
        close: `header` announces the end of the connection, `unsaid` closes it after the answer.
    """

    ttft_s: float = 0.0
    itl_s: float = 0.0
    stream_interval: int = 1
    end: str = "\n"
    data: str = "data: "
    piece_bytes: int = 0
    opening: tuple[str, ...] = ()
    text: str = " word"
    clamp: int | None = None
    usage: dict[str, Any] = field(default_factory=dict)
    finish_reason: str = "length"
    cut_after: int | None = None
    cut: Literal["fin", "rst", "quiet", "silent", "error"] = "fin"
    refuse: tuple[int, str] | None = None
    before: Literal["fin", "rst", "silent"] | None = None
    close: Literal["header", "unsaid"] | None = None


@dataclass
class Seen:
    """One request as the server saw it; times by `time.monotonic`."""

    place: int
    connection: int
    body: dict[str, Any]
    received_s: float
    chunk_s: list[float] = field(default_factory=list)

    @property
    def prompt(self) -> list[int]:
        prompt: list[int] = self.body["prompt"]
        return prompt


Script = Callable[[int], Dials]
"""From the place of a request, counted over all connections, to how it is answered."""


class CompletionServer:
    """Counts connections and requests; `seen` holds the requests in their order."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.seen: list[Seen] = []
        self.n_connections = 0
        self.n_open = self.peak_open = 0
        self.all_ended = threading.Event()
        self.url = ""
        self._tasks: set[asyncio.Task[None]] = set()

    def target(self, **other: Any) -> Target:
        values = {"base_url": self.url, "model": "tiny", "vocab_size": VOCAB_SIZE, "n_gpus": 1, "block_reuse": True}
        return Target(**{**values, **other})

    async def serve(self, started: threading.Event, ending: asyncio.Event) -> None:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0, backlog=1024)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        started.set()
        await ending.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # connections that were closed just now are gone one turn later

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.n_connections += 1
        number = self.n_connections
        try:
            while await self._one_request(number, reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            writer.close()
        except asyncio.CancelledError:
            writer.transport.abort()
        else:
            writer.close()
        finally:
            self._tasks.discard(task)

    async def _one_request(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; False when the connection is to be closed."""
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"POST /v1/completions HTTP/1.1\r\n"), head
        headers = dict(line.split(": ", 1) for line in head.decode().lower().split("\r\n")[1:-2])
        body = json.loads(await reader.readexactly(int(headers["content-length"])))
        seen = Seen(len(self.seen), number, body, time.monotonic())
        self.seen.append(seen)
        self.n_open += 1
        self.all_ended.clear()
        self.peak_open = max(self.peak_open, self.n_open)
        try:
            return await self._answer(seen, self.script(seen.place), writer)
        finally:
            self.n_open -= 1
            if not self.n_open:
                self.all_ended.set()

    async def _answer(self, seen: Seen, dials: Dials, writer: asyncio.StreamWriter) -> bool:
        if dials.before is not None:
            return await _hang_up(dials.before, writer)
        announced = b"Connection: close\r\n" if dials.close == "header" else b""
        if dials.refuse is not None:
            status, text = dials.refuse
            writer.write(f"HTTP/1.1 {status} No\r\nContent-Length: {len(text)}\r\n".encode() + announced + b"\r\n")
            writer.write(text.encode())
            await writer.drain()
            return dials.close is None
        await asyncio.sleep(dials.ttft_s)
        kind = b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
        writer.write(b"HTTP/1.1 200 OK\r\n" + kind + announced + b"\r\n")
        n_output = min(seen.body["max_tokens"], dials.clamp or seen.body["max_tokens"])
        for text in dials.opening:
            await _send(writer, dials, text)
        for place, end in enumerate(_chunk_ends(n_output, dials.stream_interval)):
            if place == dials.cut_after:
                return await _cut(dials, writer)
            if place:
                await asyncio.sleep(dials.itl_s)
            seen.chunk_s.append(time.monotonic())
            last = dials.finish_reason if end == n_output else None
            choice = {"index": 0, "text": dials.text, "logprobs": None, "finish_reason": last, "stop_reason": None}
            chunk = {"id": "cmpl-1", "object": "text_completion", "model": "tiny", "choices": [choice], "usage": None}
            await _send(writer, dials, dials.data + json.dumps(chunk))
        usage = {
            "prompt_tokens": len(seen.prompt),
            "completion_tokens": n_output,
            "total_tokens": len(seen.prompt) + n_output,
            "prompt_tokens_details": {"cached_tokens": 0},
            **dials.usage,
        }
        counted = {key: value for key, value in usage.items() if value is not None}
        tail = {"id": "cmpl-1", "object": "chat.completion.chunk", "choices": [], "usage": counted}
        await _send(writer, dials, dials.data + json.dumps(tail))
        await _send(writer, dials, dials.data + "[DONE]")
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return dials.close is None


def _chunk_ends(n_output: int, stream_interval: int) -> list[int]:
    """Tokens sent after each chunk: the first token, then every `stream_interval`-th, then the last."""
    return sorted({1, *range(1 + stream_interval, n_output, stream_interval), n_output})


async def _send(writer: asyncio.StreamWriter, dials: Dials, text: str) -> None:
    """One event, in one HTTP chunk or in pieces that respect neither lines nor events."""
    event = (text + dials.end + dials.end).encode()
    step = dials.piece_bytes or len(event)
    for start in range(0, len(event), step):
        piece = event[start : start + step]
        writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        if dials.piece_bytes:
            await asyncio.sleep(0)
    await writer.drain()


async def _cut(dials: Dials, writer: asyncio.StreamWriter) -> bool:
    if dials.cut == "error":
        message = {"error": {"message": "CUDA out of memory", "code": 500}}
        await _send(writer, dials, dials.data + json.dumps(message))
        await _send(writer, dials, dials.data + "[DONE]")
    if dials.cut in ("error", "quiet"):
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True
    return await _hang_up(dials.cut, writer)


async def _hang_up(how: str, writer: asyncio.StreamWriter) -> bool:
    if how == "silent":
        await asyncio.Event().wait()
    if how == "rst":
        await writer.drain()
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
    return False


@contextmanager
def completion_server(script: Script | Dials = Dials()) -> Iterator[CompletionServer]:
    """A server for the length of a `with` block."""
    server = CompletionServer((lambda place: script) if isinstance(script, Dials) else script)
    started = threading.Event()
    loops: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def main() -> None:
        loops.append((asyncio.get_running_loop(), ending := asyncio.Event()))
        await server.serve(started, ending)

    thread = threading.Thread(target=lambda: asyncio.run(main()), name="completion-server")
    thread.start()
    try:
        assert started.wait(30)
        yield server
    finally:
        loop, ending = loops[0]
        loop.call_soon_threadsafe(ending.set)
        thread.join()
