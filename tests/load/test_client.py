"""The load client against a real server with known dials: what it saw, held against what the server did and when."""

from __future__ import annotations

import itertools
import re
import resource
import socket
import struct
import threading
from collections import Counter

import numpy as np
import pytest

from advisor.app.trial_runner import never
from advisor.domain.errors import EngineFailed
from advisor.domain.ports import PartialResult
from advisor.domain.workload import Workload
from advisor.load.client import LOOKS, MOST_WRONG, allow_open_files, run_load
from advisor.load.prompts import make_prompts
from advisor.load.record import StreamRecord
from advisor.load.requests import make_load
from advisor.load.run import LoadRun
from advisor.load.sse import MAX_EVENT_BYTES
from tests.load.server import VOCAB_SIZE, CompletionServer, Dials, completion_server

ISL, OSL = 40, 6


def workload(concurrency: int | None = 4, n_requests: int = 8, rate: float | None = None) -> Workload:
    return Workload(isl=ISL, osl=OSL, concurrency=concurrency, request_rate_per_s=rate, n_requests=n_requests)


def run(server: CompletionServer, asked: Workload | None = None, **target: float) -> LoadRun:
    asked = asked or workload()
    load = make_load(server.target(**target), asked, n_requests=asked.requests(), seed=1, run=1)
    return run_load(server.target(**target), load, never)


def one(dials: Dials, **target: float) -> StreamRecord:
    """The record of a single request."""
    with completion_server(dials) as server:
        (record,) = run(server, workload(1, 1), **target).records
    return record


def whole(record: StreamRecord) -> bool:
    counted = (record.n_prompt, record.n_output, record.finish_reason)
    return record.saw_done and record.error is None and counted == (ISL, OSL, "length")


def test_what_is_asked_for() -> None:
    with completion_server() as server:
        asked = workload(2, 3)
        run(server, asked)
    (body, _, last) = (seen.body for seen in server.seen)
    prompt = body.pop("prompt")
    assert body == {
        "model": "tiny",
        "max_tokens": OSL,
        "ignore_eos": True,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert len(prompt) == ISL
    assert prompt != last["prompt"]


def test_times_are_those_of_the_server_s_own_clock() -> None:
    asked = workload(6, 18)
    with completion_server(Dials(ttft_s=0.06, itl_s=0.03)) as server:
        got = run(server, asked)
    truths = {seen.prompt[0]: seen for seen in server.seen}
    late: list[bool] = []
    for prompt, record in zip(make_prompts(np.full(18, ISL), run=1, vocab_size=VOCAB_SIZE), got.records, strict=True):
        truth, sent_s = truths[int(prompt[0])], got.start_s + record.sent_ms / 1e3
        arrivals_s = [got.start_s + ms / 1e3 for ms in record.chunk_ms]
        assert truth.prompt == prompt.tolist()
        assert sent_s <= truth.received_s, "nothing is received before it is sent"
        assert all(there <= here for there, here in zip(truth.chunk_s, arrivals_s, strict=True))
        assert record.first_token_ms - record.sent_ms >= 60
        # Each chunk is read before the next is sent: had the client stamped later events, none would be.
        late += [here > following for here, following in zip(arrivals_s, truth.chunk_s[1:], strict=False)]
    assert np.mean(late) < 0.5


@pytest.mark.parametrize(
    "dials",
    [
        Dials(end="\r\n"),
        Dials(end="\r"),
        Dials(data="data:"),
        Dials(piece_bytes=1),
        Dials(piece_bytes=7, end="\r\n"),
        Dials(opening=(": ping", "event: ping\ndata: {}", 'data: {"choices": [{"delta": {"role": "assistant"}}]}')),
        Dials(text=""),
        Dials(usage={"prompt_tokens_details": None}),
        Dials(close="header"),
        Dials(close="unsaid"),
    ],
)  # fmt: skip
def test_streams_that_differ_in_form_alone_are_read_alike(dials: Dials) -> None:
    with completion_server(dials) as server:
        got = run(server)
    assert all(whole(record) for record in got.records)
    assert [len(record.chunk_ms) for record in got.records] == [OSL] * 8, "an opening is no chunk, an empty text is one"
    assert got.shortfalls == {}


def test_chunks_are_no_tokens() -> None:
    with completion_server(Dials(stream_interval=4)) as server:
        got = run(server)
    assert [len(record.chunk_ms) for record in got.records] == [3] * 8  # after tokens 1, 5 and 6
    assert got.samples()["n_output"].tolist() == [OSL] * 8
    assert [gaps.size for gaps in got.gaps_ms()] == [2] * 8


def test_a_closed_loop_keeps_its_lanes_and_their_connections() -> None:
    with completion_server(Dials(ttft_s=0.01)) as server:
        got = run(server, workload(4, 20))
    assert server.n_connections == 4
    assert server.peak_open == got.peak_open == 4
    assert got.mean_open is not None and got.mean_open > 2
    assert Counter(seen.connection for seen in server.seen).keys() == {1, 2, 3, 4}


def test_an_open_loop_sends_on_time_whatever_is_open() -> None:
    asked = workload(None, 30, rate=300.0)
    with completion_server(Dials(ttft_s=0.1)) as server:
        load = make_load(server.target(), asked, n_requests=30, seed=3, run=3)
        got = run_load(server.target(), load, never)
    assert load.send_ms is not None
    sent_ms = got.samples()["sent_ms"]
    assert (sent_ms >= load.send_ms).all(), "never early"
    assert got.peak_open > 4, "and it does not wait for answers, which take 100 ms each"
    assert all(whole(record) for record in got.records)


def test_a_connection_that_was_closed_while_idle_is_opened_again() -> None:
    # The server closes after each answer without saying so: the next request may already be on its way.
    with completion_server(Dials(close="unsaid")) as server:
        got = run(server, workload(3, 12))
    assert server.n_connections == 12
    assert all(whole(record) for record in got.records)
    assert got.shortfalls == {}


@pytest.mark.parametrize(
    ("dials", "says", "alarm"),
    [
        (Dials(cut_after=2, cut="fin"), "lost its connection after 2 events", True),
        (Dials(cut_after=2, cut="quiet"), "ended without \\[DONE\\]", True),
        (Dials(cut_after=2, cut="error"), "error in its stream: CUDA out of memory", True),
        (Dials(opening=('event: error\ndata: {"message": "died"}',)), 'error in its stream: {"message": "died"}', True),
        (Dials(opening=('data: {"object": "error", "message": "no", "code": 400}',)), "error in its stream: no", True),
        (Dials(opening=("data: {broken",)), "not a JSON object: {broken", True),
        (Dials(opening=("x" * 2 * MAX_EVENT_BYTES,)), "no HTTP event stream", True),
        (Dials(refuse=(400, '{"object":"error","message":"too long","type":"BadRequestError","code":400}')),
         "HTTP 400: too long", False),
        (Dials(refuse=(400, '{"error":"1 validation error for CompletionRequest"}')),
         "HTTP 400: 1 validation error for CompletionRequest", False),
        (Dials(refuse=(404, '{"detail":"Not Found"}')), "HTTP 404: Not Found", False),
        (Dials(refuse=(503, "LLM is unavailable.")), "HTTP 503: LLM is unavailable.", True),
        (Dials(refuse=(500, "")), "HTTP 500$", True),
        (Dials(refuse=(200, '{"object":"error","message":"busy"}')), "HTTP 200 without any event: busy", True),
    ],
)  # fmt: skip
def test_an_answer_that_is_none_says_why(dials: Dials, says: str, alarm: bool) -> None:
    record = one(dials)
    assert record.error is not None
    assert re.search(says, record.error), record.error
    assert record.alarm == alarm


@pytest.mark.parametrize(
    ("dials", "says"),
    [
        (Dials(clamp=4), f"returned 4 of {OSL} tokens: the server clamps to its max_seq_len"),
        (Dials(clamp=4, finish_reason="stop"), f"returned 4 of {OSL} tokens \\(finish_reason stop\\)"),
        (Dials(finish_reason="stop"), "ended with finish_reason stop"),
        (Dials(usage={"completion_tokens": OSL + 1}), f"returned {OSL + 1} of {OSL} tokens"),
        (Dials(usage={"prompt_tokens": ISL + 1}), f"counted {ISL + 1} prompt tokens where {ISL} were sent"),
        (Dials(usage={"completion_tokens": None}), "got no usage"),
        (Dials(usage={"completion_tokens": "6"}), "got no usage"),
    ],
)
def test_a_whole_answer_may_still_fall_short(dials: Dials, says: str) -> None:
    with completion_server(lambda place: dials if place == 5 else Dials()) as server:
        got = run(server)
    (what,) = got.shortfalls.values()
    assert re.match(says, what), what
    assert got.ended_by is None, "the others are still measured"
    assert sum(whole(record) for record in got.records) >= 7


def test_answers_that_are_all_wrong_end_the_run() -> None:
    with completion_server(Dials(clamp=3)) as server:
        got = run(server, workload(8, 10 * MOST_WRONG))
    assert got.ended_by == "wrong"
    assert MOST_WRONG <= len(got.shortfalls) < 2 * MOST_WRONG


@pytest.mark.parametrize(
    ("dials", "says"),
    [
        (Dials(before="fin"), "took a request and closed it without an answer"),
        (Dials(before="rst"), "took a request and reset it"),
        (Dials(cut_after=2, cut="rst"), "took a request and reset it"),
        (Dials(before="silent"), "has said nothing for 0.2 s with 4 requests open"),
        (Dials(cut_after=2, cut="silent"), "has said nothing for 0.2 s"),
    ],
)
def test_a_server_that_hangs_up_or_falls_silent_ends_the_run_at_once(dials: Dials, says: str) -> None:
    # The other lanes would wait for a minute each: a dying server must not cost that.
    with completion_server(dials) as server, pytest.raises(EngineFailed, match=says):
        run(server, silence_timeout_s=0.2 if "silent" in (dials.before, dials.cut) else 60.0)


def test_one_reset_does_not_wait_for_the_lanes_that_hang() -> None:
    script = itertools.chain([Dials(before="silent")] * 3, itertools.repeat(Dials(before="rst")))
    with completion_server(lambda place: next(script)) as server, pytest.raises(EngineFailed, match="reset"):
        run(server, silence_timeout_s=600.0)


def test_a_request_that_trickles_for_ever_is_given_up() -> None:
    with completion_server(Dials(itl_s=0.1)) as server, pytest.raises(EngineFailed, match="open for more than"):
        run(server, request_timeout_s=0.2)


def test_a_server_that_is_not_there() -> None:
    with socket.socket() as bound:  # bound, but it does not listen
        bound.bind(("127.0.0.1", 0))
        target = CompletionServer(lambda place: Dials()).target(base_url=f"http://127.0.0.1:{bound.getsockname()[1]}")
        load = make_load(target, workload(), n_requests=8, seed=1, run=1)
        with pytest.raises(EngineFailed, match="Connection refused"):
            run_load(target, load, never)


@pytest.mark.parametrize("attempt", range(5))
def test_a_server_that_resets_every_connection_at_once(attempt: int) -> None:
    """A connection may be lost before the client knows that it has it; then nobody must wait for it to go."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        resetting = threading.Thread(target=reset_all, args=(listening,))
        resetting.start()
        base_url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        target = CompletionServer(lambda place: Dials()).target(base_url=base_url)
        load = make_load(target, workload(32, 64), n_requests=64, seed=1, run=1)
        with pytest.raises(EngineFailed, match=r"closed a connection|took a request and|reset by peer"):
            run_load(target, load, never)
        listening.shutdown(socket.SHUT_RDWR)
        resetting.join()


def reset_all(listening: socket.socket) -> None:
    """Accept and reset until the listener is shut down."""
    while True:
        try:
            connection, _ = listening.accept()
        except OSError:
            return
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()


def test_stop_sees_the_run_a_few_dozen_times_and_ends_it_cleanly() -> None:
    seen: list[PartialResult] = []

    def stop(partial: PartialResult) -> bool:
        seen.append(partial)
        return partial.n_done >= 150

    with completion_server(Dials(itl_s=0.001)) as server:
        asked = workload(4, 300)
        got = run_load(server.target(), make_load(server.target(), asked, n_requests=300, seed=1, run=1), stop)
        assert server.all_ended.wait(30), "open streams are closed"
        again = run(server, workload(2, 4))
    assert got.ended_by == "stop"
    assert 150 <= got.n_finished < 300
    assert LOOKS / 4 <= len(seen) <= LOOKS
    assert [partial.elapsed_s for partial in seen] == sorted(partial.elapsed_s for partial in seen)
    last = seen[-1]
    assert last.n_done * OSL <= last.n_output.sum() <= (last.n_done + 4) * OSL, "four of them are in flight"
    assert (last.osl == OSL).all()
    assert np.isnan(got.samples()["sent_ms"]).sum() > 0, "what was never sent is blank"
    assert all(whole(record) for record in again.records)


def test_an_error_of_the_caller_s_own_rule_comes_out_and_leaves_nothing_open() -> None:
    def broken(partial: PartialResult) -> bool:
        raise ZeroDivisionError

    threads = set(threading.enumerate())
    with completion_server(Dials(itl_s=0.001)) as server:
        load = make_load(server.target(), workload(4, 100), n_requests=100, seed=1, run=1)
        with pytest.raises(ZeroDivisionError):
            run_load(server.target(), load, broken)
        assert server.all_ended.wait(30)
    assert set(threading.enumerate()) == threads


def test_more_lanes_than_open_files_are_allowed() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, before[1]))
        allow_open_files(must=500, may=500)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 500
        allow_open_files(must=1, may=2)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 500, "it is never lowered"
        with pytest.raises(EngineFailed, match="ulimit -Hn"):
            allow_open_files(must=2**40, may=2**40)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
