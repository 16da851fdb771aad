"""What must never be written: tokens and passwords, wherever they stand in a log, a command line or a report.

Secrets that are known are the values of variables and flags whose name says so; others are recognised by their form. A
value of several lines (a private key) counts line by line, so no secret spans lines: text that comes in pieces is
redacted in whole lines (`output.BoundedLog` sees to it, and to lines too long to wait for).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import quote

REDACTED = "[redacted]"
MIN_CHARS = 8
"""Shorter values of variables are no secrets: `AUTH=none`, `TOKEN=1`."""

_SECRET_VARIABLE = re.compile(r"TOKEN(?!IZ)|KEY|SECRET|PASSWORD|PASSWD|CREDENTIAL|AUTH", re.IGNORECASE)
_SECRET_FLAG = re.compile(
    r"--?(?:[A-Za-z0-9]+[-_.])*(?:token|key|apikey|secret|password|passwd|credentials?|auth)", re.IGNORECASE
)
_VARIABLE = re.compile(r"(^|[=,;\s])([A-Z][A-Z0-9_]*)=([^,;]+)")  # also among others: --export=ALL,HF_TOKEN=...
_MARK = REDACTED.encode()


class _Form(NamedTuple):
    """How a kind of secret looks."""

    words: tuple[bytes, ...]
    """One of them is, in lower case, in every text that has such a secret; they are found much faster than it."""
    pattern: re.Pattern[bytes]
    """Group 1 stays; the rest is replaced."""


_FORMS = (
    _Form(
        (b"hf_", b"nvapi-", b"sk-"),
        re.compile(
            rb"(?<![A-Za-z0-9])()(?:hf_(?:[A-Za-z0-9]{20,}|(?=[a-z]{0,40}[A-Z0-9])[A-Za-z0-9]{8,})|"
            rb"nvapi-[\w-]{8,}|sk-(?=[A-Za-z_-]{0,40}\d)[\w-]{16,})"
        ),
    ),
    _Form((b"bearer ",), re.compile(rb"\b(bearer +)[\w.~+/=-]{8,}", re.IGNORECASE)),
    _Form(
        (b"authorization",),
        re.compile(
            rb"(authorization['\"]?[ \t]*[:=][ \t]*['\"]?(?:[a-z]+ +)?)"
            rb"(?:[\w.~+/=-]{8,}|\[redacted\])",
            re.IGNORECASE,
        ),
    ),
    _Form((b"://",), re.compile(rb"(://)(?:[^\s/@:'\"]{0,256}:[^\s/'\"]{1,256}|[^\s/@:'\"]{8,256})(?=@)")),
    _Form(
        (b"--",),
        re.compile(
            rb"(--(?:[a-z]{1,24}[-_]){0,4}(?:token|key|secret|password|passwd)(?:=|[ \t]+|['\"],[ \t]*['\"]))"
            rb"(?!-)[^\s'\",]+"
        ),
    ),
    _Form(
        (b"api_key", b"api-key", b"password", b"secret", b"hf_token", b"auth_token"),
        re.compile(
            rb"((?:api[-_]key|hf_token|auth_token|secret|secret_key|secret_access_key|password)['\"]?"
            rb"[ \t]*[:=][ \t]*['\"]?)[^\s'\",}]{8,}",
            re.IGNORECASE,
        ),
    ),
)


def is_secret_variable(name: str) -> bool:
    """Whether an environment variable of that name holds a secret."""
    return bool(_SECRET_VARIABLE.search(name))


class Redactor:
    """Takes secrets out of text.

    Args:
        env: Environment of the launch.
        argv: Its command line.
    """

    def __init__(self, env: Mapping[str, str], argv: Sequence[str] = ()) -> None:
        values = [value for name, value in env.items() if is_secret_variable(name)]
        values += [secret for _, secrets in _read(argv) for secret in secrets]
        known = {form for value in values for line in value.splitlines() for form in _spellings(line.strip())}
        # The longest first: one that begins like another is taken whole.
        self._known = sorted((form for form in known if form not in _MARK), key=lambda form: (-len(form), form))
        self._pattern = re.compile(b"|".join(re.escape(form) for form in self._known))

    def bytes(self, data: bytes) -> bytes:
        """Whole lines, with every secret replaced."""
        if any(form in data for form in self._known):
            data = self._pattern.sub(_MARK, data)
        lower = data.lower()
        for words, pattern in _FORMS:
            if any(word in lower for word in words):
                data = pattern.sub(rb"\1" + _MARK, data)
        return data

    def text(self, text: str) -> str:
        """A text, with every secret replaced."""
        return self.bytes(text.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")

    def argv(self, argv: Iterable[str]) -> list[str]:
        """A command line, with the values of secret flags and variables and every other secret replaced."""
        return [self.text(shown) for shown, _ in _read(argv)]


def _read(argv: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """Each argument as it may be shown, and what a flag or a variable's name made a secret in it."""
    is_value = False
    for arg in argv:
        yield _shown(arg, is_value and not arg.startswith("--"))
        is_value = bool(_SECRET_FLAG.fullmatch(arg))


def _shown(arg: str, is_value: bool) -> tuple[str, list[str]]:
    secrets: list[str] = []

    def hidden(secret: str) -> str:
        if not secret or (secret.isdigit() and len(secret) < MIN_CHARS):  # MAX_NUM_TOKENS=8192
            return secret
        secrets.append(secret)
        return REDACTED

    def variable(found: re.Match[str]) -> str:
        before, name, value = found.groups()
        return f"{before}{name}={hidden(value) if is_secret_variable(name) else value}"

    flag, equals, value = arg.partition("=")
    if is_value:
        return hidden(arg), secrets
    if equals and _SECRET_FLAG.fullmatch(flag):
        return f"{flag}={hidden(value)}", secrets
    return _VARIABLE.sub(variable, arg), secrets


def _spellings(secret: str) -> Iterator[bytes]:
    """A secret as it may stand in a log: itself, in a URL, in JSON, as Python shows it."""
    if len(secret) >= MIN_CHARS:
        yield os.fsencode(secret)
        yield json.dumps(secret)[1:-1].encode()
        yield repr(secret)[1:-1].encode("utf-8", "surrogatepass")
        yield quote(os.fsencode(secret), safe="").encode()
