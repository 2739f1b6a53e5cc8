"""Where the servers of the service listen, and what is said when they can't."""

from __future__ import annotations

import socket

from booking_worker.domain.errors import InvalidSettings


def port_taken(setting: str, port: int, why: str = "") -> InvalidSettings:
    """The error for a port that cannot be had; ``setting`` is the variable that chooses it."""
    problem = why or "Address already in use"
    return InvalidSettings(
        [f"{setting}: got {port}, which cannot be had: {problem}; takes a free port, or 0 for any"]
    )


def every_host() -> str:
    """The address of all interfaces: of IPv6, which includes IPv4, where the machine has it."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::", 0))
    except OSError:
        return "0.0.0.0"  # noqa: S104 - a gateway calls from elsewhere
    return "::"


def address(host: str, port: int) -> str:
    """``host:port``, with brackets where the host is an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens there; on ``::`` for IPv4 as well, which asyncio's own would not.

    Raises:
        OSError.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server(
        (host, port), family=family, backlog=1024, dualstack_ipv6=host == "::"
    )
