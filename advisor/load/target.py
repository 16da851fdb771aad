"""What a load client must know of a server."""

from __future__ import annotations

from urllib.parse import urlsplit

from pydantic import Field, field_validator

from advisor.domain.deployment import KV_BLOCK_TOKENS
from advisor.domain.objective import Slo
from advisor.domain.strict import StrictModel

MIN_VOCAB_SIZE = 64


class Target(StrictModel):
    """A server that answers `/v1/completions`, and what its answers are checked against."""

    base_url: str = Field(description="`http://host:port`")
    model: str = Field(description="The name it serves the model under")
    vocab_size: int = Field(ge=MIN_VOCAB_SIZE, description="Token ids the model knows")
    n_gpus: int = Field(ge=1)
    block_reuse: bool = Field(description="True when KV blocks of equal prefixes are reused")
    kv_block_tokens: int = Field(default=KV_BLOCK_TOKENS, ge=1)
    slo: Slo = Field(default=Slo(), description="What goodput goes by")
    request_timeout_s: float = Field(default=3600, gt=0, description="One request, from its sending to its last byte")
    silence_timeout_s: float = Field(default=300, gt=0, description="No byte on any connection while requests are open")

    @field_validator("base_url")
    @classmethod
    def _plain_http(cls, base_url: str) -> str:
        url = urlsplit(base_url)
        if url.scheme != "http" or not url.hostname or url.port is None or url.path.strip("/") or url.query:
            raise ValueError(f"{base_url!r} is not http://host:port.")
        return base_url

    @property
    def host(self) -> str:
        """Name or address, brackets of an IPv6 address removed."""
        host = urlsplit(self.base_url).hostname
        assert host is not None
        return host

    @property
    def port(self) -> int:
        """TCP port."""
        port = urlsplit(self.base_url).port
        assert port is not None
        return port
