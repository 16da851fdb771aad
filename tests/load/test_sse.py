"""SSE framing against a reference parser that sees the whole stream at once, under any cut into reads."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from advisor.load.sse import MAX_EVENT_BYTES, SseEvent, SseFraming

LINES = st.one_of(
    st.sampled_from(
        [b"data: {}", b"data:{}", b"data:  x", b"data", b"data:", b": comment", b":", b"event: error", b"event:error"]
    ),
    st.sampled_from([b"id: 7", b"retry: 1", b"dat: x", b"data : x", b"", b"", b""]),
    st.binary(max_size=12).map(lambda line: re.sub(rb"[\r\n]", b"", line)),
    st.binary(max_size=12).map(lambda value: b"data: " + re.sub(rb"[\r\n]", b"", value)),
)
STREAMS = st.lists(st.tuples(LINES, st.sampled_from([b"\n", b"\r\n", b"\r"])), max_size=30).map(
    lambda lines: b"".join(line + end for line, end in lines)
)


def reference(stream: bytes) -> list[SseEvent]:
    """The specification read literally: split the whole into lines, collect fields, dispatch at a blank line."""
    events, name, data = [], b"", list[bytes]()
    for line in re.split(rb"\r\n|\n|\r", stream)[:-1]:
        if line == b"":
            if data:
                events.append(SseEvent(name, b"\n".join(data)))
            name, data = b"", []
        elif match := re.fullmatch(rb"(data|event)(?:: ?(.*))?", line, re.DOTALL):
            value = match[2] or b""
            if match[1] == b"data":
                data.append(value)
            else:
                name = value
    return events


@given(STREAMS, st.lists(st.integers(0, 400), max_size=12))
@example(b"data: a\r\n\r\ndata: b\r\n\r\n", [8, 9, 10, 11])
@example(b"data: a\r\rdata: b\r\n\n", [9, 10])
@example(b"data: 1\n\ndata: 2\n\ndata: [DONE]\n\n", [])
def test_any_cut_into_reads_gives_the_events_of_the_whole(stream: bytes, cuts: list[int]) -> None:
    framing = SseFraming()
    at = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    events = [event for start, end in itertools.pairwise(at) for event in framing.feed(stream[start:end])]
    assert events == reference(stream)


@given(STREAMS)
def test_byte_by_byte_is_the_finest_cut(stream: bytes) -> None:
    framing = SseFraming()
    assert [event for byte in stream for event in framing.feed(bytes([byte]))] == reference(stream)


def test_an_event_counts_once_its_blank_line_is_there() -> None:
    framing = SseFraming()
    assert framing.feed(b"data: [DONE]\n") == []
    assert framing.feed(b"\n") == [SseEvent(b"", b"[DONE]")]
    assert framing.feed(b"") == []


def test_a_line_without_end_does_not_fill_the_memory() -> None:
    framing = SseFraming()
    assert framing.feed(b"x" * MAX_EVENT_BYTES) == []
    with pytest.raises(ValueError, match="line of more than"):
        framing.feed(b"x")
