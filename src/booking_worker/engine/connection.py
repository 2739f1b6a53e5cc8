"""Connections whose commands are encoded in C.

redis-py reads answers with hiredis but writes commands in Python, in asyncio: 69 us for a script
call with 26 arguments, where hiredis takes 4 us.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import hiredis
from redis.asyncio import Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.sentinel import SentinelManagedConnection, SentinelManagedSSLConnection
from redis.exceptions import AuthenticationError
from redis.exceptions import TimeoutError as EngineTimeoutError
from redis.typing import EncodableT
from typing_extensions import override


class _PackedInC(AbstractConnection):
    @override
    def pack_command(self, *args: EncodableT) -> list[bytes]:
        # redis-py gives a command of two words as one: "SCRIPT LOAD".
        command = args[0]
        if isinstance(command, str) and " " in command:
            args = (*command.split(), *args[1:])
        return [hiredis.pack_command(args)]  # type: ignore[arg-type]  # its stub: one argument

    @override
    async def send_packed_command(
        self, command: bytes | str | Iterable[bytes], check_health: bool = True
    ) -> None:
        # redis-py limits it by asyncio.wait_for, which makes a task of it in Python 3.11: then
        # the command leaves a turn of the event loop later, behind all that waits for one.
        seconds, self.socket_timeout = self.socket_timeout, None
        try:
            async with asyncio.timeout(seconds):
                await super().send_packed_command(command, check_health)
        except TimeoutError:
            raise EngineTimeoutError("Timeout writing to socket") from None
        finally:
            self.socket_timeout = seconds


class HiredisConnection(_PackedInC, UnixDomainSocketConnection):
    """As redis-py's own, on a Unix socket; arguments are str, bytes, int or float."""


class TcpConnection(_PackedInC, Connection):
    """The same over TCP."""


class TlsConnection(_PackedInC, SSLConnection):
    """The same over TLS."""


class MasterConnection(_PackedInC, SentinelManagedConnection):
    """The same to whom the sentinels call the master when it connects."""


class MasterTlsConnection(_PackedInC, SentinelManagedSSLConnection):
    """The same over TLS."""


class _MayWantNoPassword(AbstractConnection):
    """A sentinel has users of its own, and often none: then it refuses any password."""

    @override
    async def connect_check_health(
        self, check_health: bool = True, retry_socket_connect: bool = True
    ) -> None:
        try:
            await super().connect_check_health(check_health, retry_socket_connect)
        except AuthenticationError:
            # Known to the servers alone, perhaps. A sentinel that wants somebody else says so
            # to the first question.
            self.username = self.password = None
            await super().connect_check_health(check_health, retry_socket_connect)


class ToSentinel(_MayWantNoPassword, TcpConnection):
    """To a sentinel, which may or may not know the user of the servers."""


class ToSentinelTls(_MayWantNoPassword, TlsConnection):
    """The same over TLS."""
