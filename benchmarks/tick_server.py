"""A completion server that costs little: every tick it sends one chunk to each open stream, and notes what it did.

``python -m benchmarks.tick_server RATE STREAMS`` prints its port, serves until its standard input ends, and then
prints one JSON document: what was really sent, by its own clock. One thread, plain sockets.
"""

from __future__ import annotations

import json
import selectors
import socket
import statistics
import sys
import time
from dataclasses import dataclass, field

CHUNK = (
    'data: {"id":"cmpl-0123456789abcdef","object":"text_completion","created":1700000000,"model":"tiny","choices":'
    '[{"index":0,"text":" word","token_ids":null,"logprobs":null,"context_logits":null,"finish_reason":FINISH,'
    '"stop_reason":null,"disaggregated_params":null}],"usage":null}\n\n'
)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def framed(text: str) -> bytes:
    """One HTTP chunk."""
    return b"%x\r\n%s\r\n" % (len(text), text.encode())


MIDDLE, LAST = framed(CHUNK.replace("FINISH", "null")), framed(CHUNK.replace("FINISH", '"length"'))


@dataclass
class Stream:
    """One connection, and the request that it carries."""

    link: socket.socket
    got: bytes = b""
    n_left: int = 0
    n_output: int = 0
    n_prompt: int = 0
    times_s: list[float] = field(default_factory=list)
    """Of the request in flight: received, first chunk, last chunk."""

    def read(self) -> bool:
        """Take what came; False when the client is gone."""
        piece = self.link.recv(1 << 20)
        self.got += piece
        head, complete, body = self.got.partition(b"\r\n\r\n")
        if complete and len(body) == int(head.lower().partition(b"content-length: ")[2].split()[0]):
            request = json.loads(body)
            self.got, self.n_prompt = b"", len(request["prompt"])
            self.n_left = self.n_output = request["max_tokens"]
            self.times_s = [time.monotonic()]
        return bool(piece)

    def tick(self) -> bool:
        """Send one chunk; True when it was the last."""
        first, self.n_left = self.n_left == self.n_output, self.n_left - 1
        data = (HEAD if first else b"") + (MIDDLE if self.n_left else LAST)
        if first or not self.n_left:
            self.times_s.append(time.monotonic())
        if not self.n_left:
            usage = {"prompt_tokens": self.n_prompt, "completion_tokens": self.n_output}
            tail = json.dumps({"object": "chat.completion.chunk", "choices": [], "usage": usage})
            data += framed(f"data: {tail}\n\n") + framed("data: [DONE]\n\n") + b"0\r\n\r\n"
        self.link.sendall(data)
        return not self.n_left


def serve(rate: float, n_streams: int) -> dict[str, float]:
    """Serve until standard input ends; totals and means over requests, ms."""
    tick_s = n_streams / rate
    ready = selectors.DefaultSelector()
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    ready.register(listener, selectors.EVENT_READ)
    ready.register(sys.stdin, selectors.EVENT_READ)
    print(listener.getsockname()[1], flush=True)
    streams: list[Stream] = []
    done: list[list[float]] = []
    n_chunks = n_missed = peak = 0
    due_s, ending = time.monotonic(), False
    while not ending:
        for key, _ in ready.select(max(0.0, due_s - time.monotonic())):
            if key.fileobj is listener:
                link = listener.accept()[0]
                link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                streams.append(Stream(link))
                ready.register(link, selectors.EVENT_READ, streams[-1])
            elif key.fileobj is sys.stdin:
                ending = True
            elif not key.data.read():
                ready.unregister(key.fileobj)
                key.data.link.close()
                streams.remove(key.data)
        now_s = time.monotonic()
        if now_s < due_s:
            continue
        busy = [stream for stream in streams if stream.n_left]
        for stream in busy:
            if stream.tick():
                done.append([*stream.times_s, stream.n_output])
        n_chunks, peak = n_chunks + len(busy), max(peak, len(busy))
        due_s += tick_s
        if busy and time.monotonic() > due_s:
            n_missed += 1
        due_s = max(due_s, time.monotonic())
    for stream in streams:
        stream.link.close()
    listener.close()
    return {
        "n_chunks": n_chunks,
        "n_missed_ticks": n_missed,
        "peak_open": peak,
        "busy_s": max(row[2] for row in done) - min(row[0] for row in done),
        "ttft_ms": statistics.mean(row[1] - row[0] for row in done) * 1e3,
        "tpot_ms": statistics.mean((row[2] - row[1]) / (row[3] - 1) for row in done) * 1e3,
    }


if __name__ == "__main__":
    print(json.dumps(serve(float(sys.argv[1]), int(sys.argv[2]))))
