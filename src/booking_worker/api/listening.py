"""Where the servers of the service listen, and what is said when they can't."""

from __future__ import annotations

import os
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


def bind(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A socket that listens there; on ``::`` for IPv4 as well, which asyncio's own would not.

    With ``shared``, others that say so may listen on the same port; see :func:`reserve`.

    Raises:
        OSError.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server(
        (host, port),
        family=family,
        backlog=1024,
        reuse_port=shared,
        dualstack_ipv6=host == "::",
    )


def reserve(setting: str, port: int) -> socket.socket:
    """A port (0: any that is free) for several processes of this user to share.

    Until the socket that it answers is closed nobody else gets the port, whether any of them
    listens at that moment or not. ``setting`` is the variable that chooses the port.

    Raises:
        InvalidSettings: the port cannot be had.
    """
    host = every_host()
    held = socket.socket(socket.AF_INET6 if host == "::" else socket.AF_INET)
    try:
        if host == "::":
            held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        # What is left of the connections of a service that has just ended does not count.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((host, port))
        # Only now: a port that was bound to be shared would be shared with another service, too.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # And another service that reserves does not find it free while nobody listens.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    except OSError as error:
        held.close()
        why = os.strerror(error.errno) if error.errno else ""
        raise port_taken(setting, port, why) from error
    return held
