from __future__ import annotations

import socket
from types import SimpleNamespace

import pytest

from booking_worker.api import listening
from booking_worker.api.listening import address, bind, every_host, port_taken, reserve
from booking_worker.domain.errors import InvalidSettings


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


def port_of(one: socket.socket) -> int:
    port: int = one.getsockname()[1]
    return port


def refused(port: int) -> bool:
    """Whether a service of one process, and one of several, are told that the port is taken."""
    with pytest.raises(OSError):
        bind(every_host(), port)
    with pytest.raises(InvalidSettings, match=rf"GRPC_PORT: got {port}, .*Address already in use"):
        reserve("GRPC_PORT", port)
    return True


def test_a_reserved_port_is_for_those_alone_who_share_it_whether_they_listen_or_not():
    with reserve("GRPC_PORT", 0) as reserved:
        port = port_of(reserved)
        assert refused(port)
        with bind(every_host(), port, shared=True), bind(every_host(), port, shared=True):
            assert refused(port)
        assert refused(port)
    bind(every_host(), port).close()


def test_a_port_bound_to_be_shared_from_the_start_would_be_shared_with_anybody():
    """The control: why a port is not simply bound with SO_REUSEPORT."""
    with (
        bind(every_host(), 0, shared=True) as theirs,
        bind(every_host(), port_of(theirs), shared=True),
    ):
        assert refused(port_of(theirs))


def test_only_who_listens_on_a_reserved_port_gets_connections():
    with reserve("GRPC_PORT", 0) as reserved:
        port = port_of(reserved)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=5)
        with bind(every_host(), port, shared=True):
            for _ in range(20):
                socket.create_connection(("127.0.0.1", port), timeout=5).close()


def test_a_port_that_this_user_may_not_have_is_said_too(monkeypatch):
    monkeypatch.setattr(listening, "every_host", lambda: "192.0.2.1")
    with pytest.raises(InvalidSettings, match="HTTP_PORT: got 7, which cannot be had"):
        reserve("HTTP_PORT", 7)
