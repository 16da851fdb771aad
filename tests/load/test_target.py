"""What a client is told of a server is checked at the door."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from advisor.load.target import Target

KNOWN: dict[str, Any] = {"model": "tiny", "vocab_size": 32000, "n_gpus": 1, "block_reuse": True}


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("http://127.0.0.1:8000", "127.0.0.1", 8000),
        ("http://node7:80/", "node7", 80),
        ("http://[::1]:8000", "::1", 8000),
    ],
)
def test_host_and_port(url: str, host: str, port: int) -> None:
    target = Target(base_url=url, **KNOWN)
    assert (target.host, target.port) == (host, port)


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "https://x:1", "http://x", "http://x:8000/v1", "http://:8000", ""])
def test_anything_else_is_no_server(url: str) -> None:
    with pytest.raises(ValidationError, match=r"is not http://host:port"):
        Target(base_url=url, **KNOWN)
