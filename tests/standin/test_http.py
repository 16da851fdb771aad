"""What clients of the stand-in see: answers whole and streamed, refusals, statistics, the cache. One server for all."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.standin.equipment import StandIn
from tests.standin.running import Running, events


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """1.1.0, four tokens a chunk, statistics on, room for 2,048 tokens a request and 1,500 a prompt."""
    folder = tmp_path_factory.mktemp("http")
    config = folder / "extra.yml"
    config.write_text("stream_interval: 4\nenable_iter_perf_stats: true\nprint_iter_log: true\n", encoding="utf-8")
    standin = StandIn(folder, "1.1.0", speed=50.0)
    options = ("--max_seq_len", "2048", "--max_num_tokens", "1500", "--extra_llm_api_options", str(config))
    with Running(standin, *options) as running:
        yield running.ready()
        running.stop()
    assert standin.leftovers() == []


def chat(server: Running, **more: Any) -> tuple[int, bytes]:
    body = {"model": "m", "messages": [{"role": "user", "content": "hello there"}], "max_completion_tokens": 5, **more}
    return server.ask("POST", "/v1/chat/completions", {"ignore_eos": True, **body})


def test_whole_answers_count_their_tokens(server: Running) -> None:
    status, body = server.complete(100, 7)
    answer = json.loads(body)
    assert (status, answer["object"]) == (200, "text_completion")
    assert answer["choices"][0]["text"] == " token" * 7
    assert answer["choices"][0]["finish_reason"] == "length"
    assert {key: answer["usage"][key] for key in ("prompt_tokens", "completion_tokens", "total_tokens")} == {
        "prompt_tokens": 100, "completion_tokens": 7, "total_tokens": 107
    }  # fmt: skip


def test_a_stream_sends_the_first_token_then_every_fourth_then_the_last(server: Running) -> None:
    _, body = server.complete(100, 10, stream=True, stream_options={"include_usage": True})
    *chunks, usage = events(body)
    assert [chunk["choices"][0]["text"].count(" token") for chunk in chunks] == [1, 3, 4, 2]
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 10
    assert body.endswith(b"data: [DONE]\n\n")
    assert len({chunk["id"] for chunk in chunks}) == len(chunks), "a new id each, as before 1.3"
    _, quiet = server.complete(100, 10, stream=True)
    assert all("usage" in chunk and chunk["usage"] is None for chunk in events(quiet))
    _, counted = server.complete(
        100, 10, stream=True, stream_options={"include_usage": True, "continuous_usage_stats": True}
    )
    assert [chunk["usage"]["completion_tokens"] for chunk in events(counted)] == [1, 4, 8, 10, 10]


def test_chat_whole_and_streamed(server: Running) -> None:
    answer = json.loads(chat(server)[1])
    assert answer["choices"][0]["message"]["content"] == " token" * 5
    assert answer["usage"]["prompt_tokens"] == 3
    _, body = chat(server, stream=True, stream_options={"include_usage": True})
    first, *rest, usage = events(body)
    assert first["choices"][0]["delta"] == {"role": "assistant"}
    assert body.split(b"\n\n")[0].endswith(b"} "), "upstream's blank after the first event"
    assert "".join(chunk["choices"][0]["delta"]["content"] for chunk in rest) == " token" * 5
    assert usage["usage"]["completion_tokens"] == 5


def test_several_prompts_are_choices_of_one_answer(server: Running) -> None:
    status, body = server.ask(
        "POST", "/v1/completions", {"model": "m", "prompt": [[1, 2], [3, 4, 5]], "max_tokens": 2, "ignore_eos": True}
    )
    answer = json.loads(body)
    assert status == 200
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    assert (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]) == (5, 4)


def test_text_is_not_the_number_of_tokens_that_its_writer_meant(server: Running) -> None:
    body = {"model": "m", "prompt": "t1 t123456 t7", "max_tokens": 1, "ignore_eos": True}
    answer = json.loads(server.ask("POST", "/v1/completions", body)[1])
    assert answer["usage"]["prompt_tokens"] == 1 + 4, "a start token, and a long word makes two"


def test_a_model_that_may_stop_does(server: Running) -> None:
    answers = [json.loads(server.complete(n, 400, ignore_eos=False)[1]) for n in (50, 51, 52)]
    assert any(answer["choices"][0]["finish_reason"] == "stop" for answer in answers)
    assert any(answer["usage"]["completion_tokens"] < 400 for answer in answers)


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"top_x": 1}, "1 validation error:\n  {'type': 'extra_forbidden', 'loc': ('body', 'top_x')"),
        ({"stream_options": {"include_usage": True}}, "Stream options can only be defined when `stream=True`."),
        ({"max_tokens": "many"}, "'loc': ('body', 'max_tokens')"),
    ],
)
def test_a_body_that_is_wrong_is_told_so_in_one_shape(server: Running, more: dict[str, Any], text: str) -> None:
    status, body = server.complete(10, 1, **more)
    assert status == 400
    assert list(answer := json.loads(body)) == ["error"]
    assert text in answer["error"]


@pytest.mark.parametrize(
    ("n_prompt", "text"),
    [
        (1501, "The sum of prompt length (1501.0), query length (0) should not exceed max_num_tokens (1500)"),
    ],
)
def test_a_request_that_cannot_be_served_is_told_so_in_another(server: Running, n_prompt: int, text: str) -> None:
    status, body = server.complete(n_prompt, 1, stream=True)
    assert status == 400
    assert json.loads(body) == {
        "object": "error", "message": text, "type": "BadRequestError", "param": None, "code": 400
    }  # fmt: skip


def test_an_output_that_does_not_fit_is_clamped_in_silence(server: Running) -> None:
    answer = json.loads(server.complete(1000, 1100)[1])
    assert answer["usage"]["completion_tokens"] == 1048
    assert (
        "[W] User-specified `max_tokens` (1100) is greater than deduced `default_max_tokens` (1048), using "
        "default_max_tokens instead." in server.wait_for("User-specified").text
    )


def test_a_prompt_seen_before_comes_from_the_cache(server: Running) -> None:
    prompt = [*range(5000, 6000)]
    first, again = (
        json.loads(server.ask("POST", "/v1/completions", {"model": "m", "prompt": prompt, "max_tokens": 1})[1])
        for _ in range(2)
    )
    cached = [answer["usage"]["prompt_tokens_details"]["cached_tokens"] for answer in (first, again)]
    assert cached == [0, 992]


def test_statistics_are_there_once(server: Running) -> None:
    server.ask("GET", "/metrics")
    server.complete(64, 6)
    stats = json.loads(server.ask("GET", "/metrics")[1])
    assert json.loads(server.ask("GET", "/metrics")[1]) == [], "reading drains them"
    assert len(stats) == 6
    assert [entry["inflightBatchingStats"]["numGenRequests"] for entry in stats] == [0, 1, 1, 1, 1, 1]
    assert stats[0]["inflightBatchingStats"]["numCtxTokens"] <= 64
    assert [entry["numCompletedRequests"] for entry in stats] == [0, 0, 0, 0, 0, 1]
    blocks = stats[-1]["kvCacheStats"]
    assert blocks["usedNumBlocks"] + blocks["freeNumBlocks"] == blocks["maxNumBlocks"]
    assert f"({blocks['maxNumBlocks'] * blocks['tokensPerBlock']})." in server.text, "as the log says"
    assert 0.0 <= blocks["cacheHitRate"] <= 1.0
    assert "iter = 1, global_rank = 0, rank = 0, currank_total_requests = " in server.text


def test_models_health_and_what_is_not_there(server: Running) -> None:
    models = json.loads(server.ask("GET", "/v1/models")[1])
    assert models["data"][0]["id"] == "meta-llama/Llama-3.1-8B-Instruct"
    assert models["data"][0]["owned_by"] == "tensorrt_llm"
    assert server.ask("GET", "/health_generate") == (200, b"Generation health check OK")
    assert server.ask("GET", "/nowhere")[0] == 404
    assert server.ask("GET", "/v1/completions")[0] == 405


def test_a_connection_stays_for_more_than_one_request(server: Running) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    body = json.dumps({"model": "m", "prompt": [1], "max_tokens": 2, "stream": True, "ignore_eos": True})
    for _ in range(3):
        connection.request("POST", "/v1/completions", body)
        assert connection.getresponse().read().endswith(b"[DONE]\n\n")
        assert connection.sock is not None, "kept alive"
    connection.close()


def test_a_client_that_goes_away_is_forgotten(server: Running) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    body = {"model": "m", "prompt": [9], "max_tokens": 2000, "stream": True, "ignore_eos": True}
    connection.request("POST", "/v1/completions", json.dumps(body))
    response = connection.getresponse()
    response.read(10)
    response.close()
    connection.close()
    server.wait_for(" is disconnected, abort ")
