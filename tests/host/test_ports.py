"""Ports that stay free until a slow server binds them."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from advisor.domain.errors import EngineFailed
from advisor.host import ports
from advisor.host.ports import free_port

ALL = range(1, 65_536)


def test_it_can_be_bound_and_no_client_is_given_it() -> None:
    low, high = (int(word) for word in Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    port = free_port()
    assert not low <= port <= high
    with socket.create_server(("127.0.0.1", port)) as server:
        assert server.getsockname()[1] == port


def test_ports_that_are_promised_are_avoided() -> None:
    wanted = free_port()
    assert free_port(avoid=set(ALL) - {wanted}) == wanted
    with pytest.raises(EngineFailed, match=r"Every port of 127\.0\.0\.1 is taken"):
        free_port(avoid=ALL)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
@pytest.mark.parametrize("listens", [True, False])
def test_one_that_a_server_bound_is_taken_even_before_it_listens(host: str, listens: bool) -> None:
    wanted = free_port()
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((host, wanted))
        if listens:
            server.listen()
        with pytest.raises(EngineFailed):
            free_port(avoid=set(ALL) - {wanted})


def test_where_clients_get_every_port_one_of_theirs_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = tmp_path / "range"
    everything.write_text("1024\t65535\n")
    monkeypatch.setattr(ports, "_RANGE", everything)
    assert 1024 <= free_port() <= 65_535


def test_without_the_kernels_word_its_default_is_assumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_RANGE", tmp_path / "absent")
    assert 20_000 < free_port() < 32_768
