"""Lines of TensorRT-LLM: what wraps them comes off, and a rule sees what the program said."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.engines.log_text import unwrapped
from advisor.engines.rule_book import RULES
from advisor.memory.events import LogEvent

MESSAGE = "[01/15/2026-10:00:01] [TRT-LLM] [RANK 2] [E] Hang detected on rank 2 in PyExecutor."
WRAPPINGS = [
    "trtllm-1  | {}",
    "2026-01-15T10:00:01.123456789Z {}",
    "2026-01-15T10:00:01.123456789Z stderr F {}",
    "[pod/trtllm-serve-0/server] {}",
    " 3: {}",
    "12: {}",
    "[1,3]<stderr>:{}",
    "[1,3]<stderr>: {}",
    "> {}",
    "Jan 15 10:00:01 host serve[412]: {}",
    "\x1b[31m{}\x1b[0m",
    "{}\r\n",
    "trtllm-1  | 2026-01-15T10:00:01Z  3: {}",
]


def events(*lines: str) -> list[LogEvent]:
    return list(RULES.events(enumerate(lines, start=1)))


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_wrapping_comes_off(wrapping: str) -> None:
    line = unwrapped(wrapping.format(MESSAGE))
    assert (line.body, line.level) == (MESSAGE, "E")
    assert [event.meaning.name for event in events(wrapping.format(MESSAGE))] == ["hang_detected"]


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("[TRT-LLM] [I] x", "I"),
        ("[01/15/2026-10:00:01] [TRT-LLM] [RANK 0] [W] x", "W"),
        ("[05/19/2026-14:25:08] [TRT-LLM] [E] [serve   ] x", "E"),
        ("[TensorRT-LLM][WARNING] x", "W"),
        ("[TRT] [E] 2: x", "E"),
        ("E1103 02:00:00.000000 100 backend_model.cc:553] x", "E"),
        ("(EngineCore pid=1) ERROR 11-23 14:28:08 [core.py:1233] x", "E"),
        ("INFO:     x", "I"),
        ("host0:100:100 [0] NCCL INFO x", "I"),
        ("RuntimeError: x", "P"),
    ],
)
def test_level(text: str, level: str) -> None:
    assert unwrapped(text).level == level


@given(st.text(alphabet=st.characters(blacklist_characters="\n"), max_size=200))
def test_any_line_can_be_read(text: str) -> None:
    """Whatever stands in a line, nothing raises, and every event keeps its line and its text within bounds."""
    for event in events(text, f"[TRT-LLM] [E] {text}"):
        assert event.line in (1, 2)
        assert len(event.text) <= 410


def test_model_names_are_not_failures() -> None:
    lines = [
        "[TRT-LLM] [I] Using LLM with PyTorch backend for /models/bloom-oom-killer-out-of-memory",
        "INFO 11-23 14:28:08 [logger.py:1] Received request 1: prompt: 'CUDA out of memory. Tried to allocate 2 GiB.'",
        "[TensorRT-LLM][INFO] engine_dir /models/bloom/OutOfMemoryError/4-gpu",
    ]
    assert [event for event in events(*lines) if event.meaning.role == "cause"] == []


def test_amounts_keep_their_units() -> None:
    event, *_ = events(
        "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.50 GiB. GPU 0 has a total capacty of "
        "79.33 GiB of which 367.81 MiB is free."
    )
    assert event.size_gib("tried") == 1.5
    assert event.size_gib("free") == pytest.approx(0.3592, abs=1e-4)
    assert event.size_gib("absent") is None


def test_progress_bar_does_not_hide_what_follows() -> None:
    found = events(
        "Loading weights:  10%|#  | 1/9\rLoading weights: 100%|###| 9/9\r[TRT-LLM] [RANK 0] [E] No free slots\n"
    )
    assert [event.meaning.name for event in found][-1] == "no_slots"
    assert {event.line for event in found} == {1}


def test_line_before_belongs_to_a_validation_error() -> None:
    found = events(
        "docker-1  | max_batch_sise",
        "docker-1  |   Extra inputs are not permitted [type=extra_forbidden, input_value=1]",
    )
    assert [event.values["previous"] for event in found] == ["max_batch_sise"]
