"""The services that we call, together: a channel, a breaker and a client for each."""

from __future__ import annotations

import grpc.aio

from booking_worker.peers.booking import BookingClient
from booking_worker.peers.breaker import Breaker
from booking_worker.peers.channel import open_channel
from booking_worker.peers.realtime import RealtimeClient
from booking_worker.peers.ticket import TicketClient


class Services:
    """A client for each service with an endpoint; None for one that is left empty.

    Endpoints are ``host:port`` or ``unix:path``; each call may take ``timeout_seconds``. Nothing
    connects before its first call.
    """

    def __init__(
        self,
        booking_endpoint: str,
        ticket_endpoint: str,
        realtime_endpoint: str,
        timeout_seconds: float,
    ) -> None:
        self.breakers = {name: Breaker(name) for name in ("booking", "ticket", "realtime")}
        self._channels: list[grpc.aio.Channel] = []
        self.booking = BookingClient(
            self._open(booking_endpoint), self.breakers["booking"], timeout_seconds
        )
        self.ticket = (
            TicketClient(self._open(ticket_endpoint), self.breakers["ticket"], timeout_seconds)
            if ticket_endpoint
            else None
        )
        self.realtime = (
            RealtimeClient(
                self._open(realtime_endpoint), self.breakers["realtime"], timeout_seconds
            )
            if realtime_endpoint
            else None
        )

    def _open(self, endpoint: str) -> grpc.aio.Channel:
        channel = open_channel(endpoint)
        self._channels.append(channel)
        return channel

    async def start(self) -> None:
        """Nothing to wait for: a channel connects at its first call."""

    async def stop(self) -> None:
        """Close the channels. May be called again."""
        for channel in self._channels:
            await channel.close()
