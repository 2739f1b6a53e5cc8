from __future__ import annotations

import socket
from types import SimpleNamespace

import pytest

from booking_worker.api import listening
from booking_worker.api.listening import address, every_host, port_taken


def test_a_taken_port_is_said_with_the_setting_the_port_and_the_reason():
    error = port_taken("GRPC_PORT", 50059, "Permission denied")
    assert error.problems == (
        "GRPC_PORT: got 50059, which cannot be had: Permission denied; takes a free port, or 0 for any",
    )
    assert "Address already in use" in str(port_taken("HTTP_PORT", 1))


@pytest.mark.parametrize(
    "host, wanted", [("127.0.0.1", "127.0.0.1:7"), ("::", "[::]:7"), ("name", "name:7")]
)
def test_an_address_has_brackets_where_it_needs_them(host, wanted):
    assert address(host, 7) == wanted


def test_without_ipv6_every_host_is_that_of_ipv4(monkeypatch):
    def refused(*_args):
        raise OSError

    monkeypatch.setattr(
        listening, "socket", SimpleNamespace(socket=refused, AF_INET6=socket.AF_INET6)
    )
    assert every_host() == "0.0.0.0"
