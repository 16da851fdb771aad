"""Greedy answers of a server to a few fixed prompts: what must stay the same when only speed should change.

One prompt at a time, so that no other request shares a step with it and little but the configuration can move a token.
"""

from __future__ import annotations

import http.client
import json
from typing import Any

from advisor.domain.answers import GreedyAnswers
from advisor.domain.errors import EngineFailed
from advisor.load.target import Target

N_TOKENS = 16
SEED = 0
PROMPTS = (
    "The capital of France is",
    "Water boils at sea level at a temperature of",
    "Translate into German: The library opens at nine in the morning.",
    "List the first ten prime numbers:",
    "def fibonacci(n):\n    ",
    "SELECT name, COUNT(*) FROM orders",
    "In one sentence, explain why the sky looks blue.",
    "17 * 23 =",
    "Once upon a time, in a village by the sea, there lived",
    "The three states of matter that everybody knows are",
    "A recipe for plain bread needs flour,",
    "Dear Ms. Kowalski,\n\nthank you for your letter of last week.",
    "import numpy as np\n\n# the mean of each row of a matrix\n",
    "The opposite of 'reluctant' is",
    "Q: How many legs do three spiders and two cats have together?\nA:",
    "The second law of thermodynamics says that",
    "Les quatre saisons de l'année sont",
    "<html>\n<head>\n<title>",
    "To change a flat tyre, first",
    "Summarise: The meeting was moved from Monday to Thursday because the room was taken. Summary:",
    "The chemical symbol of gold is",
    "A haiku about rain:\n",
    '{"name": "Ada", "born": 1815, "known_for":',
    "The longest river of South America is",
)


def greedy_answers(target: Target, repeats: bool = False) -> GreedyAnswers:
    """Ask every prompt at temperature 0.

    Args:
        target: The server.
        repeats: Ask them all once more, which shows how far the server is from itself.

    Raises:
        EngineFailed: it hangs up, refuses, or answers without text.
    """
    texts = tuple(_answer(target, prompt) for prompt in PROMPTS)
    again = tuple(_answer(target, prompt) for prompt in PROMPTS) if repeats else ()
    return GreedyAnswers(n_tokens=N_TOKENS, texts=texts, again=again)


def _answer(target: Target, prompt: str) -> str:
    asked = {"model": target.model, "prompt": prompt, "max_tokens": N_TOKENS, "temperature": 0, "seed": SEED}
    connection = http.client.HTTPConnection(target.host, target.port, timeout=target.silence_timeout_s)
    try:
        connection.request("POST", "/v1/completions", json.dumps(asked), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise EngineFailed(f"A greedy prompt was not answered: {type(error).__name__}: {error}") from None
    finally:
        connection.close()
    if answer.status != http.client.OK:
        raise EngineFailed(
            f"A greedy prompt was refused with HTTP {answer.status}: {body[:200].decode(errors='replace')}"
        )
    return _text(body)


def _text(body: bytes) -> str:
    """The text of a completion.

    Raises:
        EngineFailed: there is none.
    """
    try:
        told: Any = json.loads(body)["choices"][0]["text"]
    except (ValueError, LookupError, TypeError):
        told = None
    if not isinstance(told, str):
        raise EngineFailed(f"A greedy prompt was answered without text: {body[:200].decode(errors='replace')}")
    return told
