"""One call to a peer: its deadline, its breaker, and what its failure means."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

import grpc
import grpc.aio

from booking_worker.domain.errors import PeerBreakerOpen, PeerError, PeerRefused, PeerUnavailable
from booking_worker.peers.breaker import Breaker

Request = TypeVar("Request")
Answer = TypeVar("Answer")

FINAL_REFUSALS: Final = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.ALREADY_EXISTS,
    }
)
"""The codes that say of a request for a booking that it will never be granted."""

REFUSALS: Final = FINAL_REFUSALS | {grpc.StatusCode.NOT_FOUND, grpc.StatusCode.OUT_OF_RANGE}
"""The codes that are a definite no to this one request, of a peer that is well.

All others may pass. Among them are UNIMPLEMENTED, UNAUTHENTICATED and PERMISSION_DENIED: they
say that we, or a proxy on the way, were set up wrongly, and a whole line must not be refused
for that.
"""


class CodedRefusal(PeerRefused):
    """A refusal with the status code that it came under."""

    def __init__(self, peer: str, message: str, code: grpc.StatusCode) -> None:
        super().__init__(peer, message)
        self.code = code


class Caller:
    """Calls one peer, for its client."""

    __slots__ = ("_breaker", "_peer", "_timeout_seconds")

    def __init__(self, peer: str, breaker: Breaker, timeout_seconds: float) -> None:
        self._peer = peer
        self._breaker = breaker
        self._timeout_seconds = timeout_seconds

    async def __call__(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Request, Answer],
        request: Request,
        is_complete: Callable[[Answer], bool] | None = None,
    ) -> Answer:
        """The peer's answer.

        ``is_complete`` tells whether an answer carries what it has to.

        Raises:
            PeerBreakerOpen: the breaker is open; the peer was not asked.
            PeerUnavailable: no answer in time, a transient error, or an incomplete answer.
            CodedRefusal: a definite no.
        """
        breaker = self._breaker
        if not breaker.admit():
            seconds = breaker.seconds_until_trial
            message = f"not asked, as it failed too often; next trial in {seconds:.1f} s"
            raise PeerBreakerOpen(self._peer, message)
        try:
            answer = await method(request, timeout=self._timeout_seconds)
        except grpc.aio.AioRpcError as error:
            raise self._failed(error) from None
        except BaseException as error:
            breaker.abandon()
            if _channel_was_closed(error):
                raise PeerUnavailable(self._peer, "the channel was closed") from error
            raise
        if is_complete is not None and not is_complete(answer):
            breaker.record_failure()
            raise self.malformed()
        breaker.record_success()
        return answer

    async def unguarded(
        self, method: grpc.aio.UnaryUnaryMultiCallable[Request, Answer], request: Request
    ) -> Answer:
        """The peer's answer, past the breaker and unseen by it.

        Health answers while every other call fails; it must neither close the breaker nor be
        kept from being asked.

        Raises:
            PeerUnavailable: no answer in time, or any error.
        """
        try:
            return await method(request, timeout=self._timeout_seconds)
        except grpc.aio.AioRpcError as error:
            raise PeerUnavailable(self._peer, _describe(error)) from None

    def malformed(self) -> PeerUnavailable:
        """The error for an answer without what it has to carry."""
        return PeerUnavailable(self._peer, "the answer is incomplete")

    def refused(self, message: str) -> PeerRefused:
        """The error for a refusal that came as an answer."""
        return PeerRefused(self._peer, message or "refused without a reason")

    def _failed(self, error: grpc.aio.AioRpcError) -> PeerError:
        code = error.code()
        if code in REFUSALS:
            self._breaker.record_success()
            return CodedRefusal(self._peer, error.details() or code.name, code)
        self._breaker.record_failure()
        return PeerUnavailable(self._peer, _describe(error))


def _describe(error: grpc.aio.AioRpcError) -> str:
    details = error.details()
    return f"{error.code().name}: {details}" if details else error.code().name


def _channel_was_closed(error: BaseException) -> bool:
    if isinstance(error, grpc.aio.UsageError):
        return True
    # grpc.aio cancels the calls under way when their channel is closed; only a caller that was
    # cancelled itself may be told so.
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and not task.cancelling()
