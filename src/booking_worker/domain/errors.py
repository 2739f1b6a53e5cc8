"""What can go wrong, as one tree. Errors carry facts; api/status_codes.py knows the codes.

BookingWorkerError
|- InvalidSettings          the service does not start with these settings
|- InvalidRequest           a field is missing, malformed or too large
|  '- IdempotencyConflict   the same idempotency key with another request
|- ItemNotFound             no such item (or no longer)
|- NotYourItem              the item is another user's
|- WrongStatus              the item's status does not allow it
|- QueueFull                QUEUE_MAX_SIZE reached
|- UserHasPlace             a dead letter's user has another place by now
|- Fenced                   the answer came under an old lease
|- EngineUnavailable        the engine did not answer in time
|- EngineInUse              another service owns this DATA_DIR
|- EngineFailed             the engine cannot be had, or cannot keep the promises
|- LayoutTooNew             the engine's keys are of a later version of the service
'- PeerError                a service that we call
   |- PeerUnavailable       no answer, or a transient one: ask again
   |- PeerRefused           a definite no
   '- PeerBreakerOpen       not asked at all
"""

from __future__ import annotations

from collections.abc import Iterable


class BookingWorkerError(Exception):
    """Base of all errors that this package raises on purpose."""


class InvalidSettings(BookingWorkerError):
    """The service does not start; each problem names a variable, what it got and what it takes."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class InvalidRequest(BookingWorkerError):
    """A field is missing, malformed or too large."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class IdempotencyConflict(InvalidRequest):
    """The same idempotency key came with another request."""

    def __init__(self) -> None:
        super().__init__("idempotency-key", "was used for another request already")


class ItemNotFound(BookingWorkerError):
    """There is no such item, or its result is older than RESULT_TTL_SECONDS."""

    def __init__(self, item_id: str) -> None:
        super().__init__(f"no queue item {item_id!r}")
        self.item_id = item_id


class NotYourItem(BookingWorkerError):
    """The item belongs to another user."""

    def __init__(self, item_id: str) -> None:
        super().__init__(f"queue item {item_id!r} belongs to another user")
        self.item_id = item_id


class WrongStatus(BookingWorkerError):
    """The item's status does not allow what was asked."""

    def __init__(self, item_id: str, status: str, wanted: str) -> None:
        super().__init__(f"cannot {wanted} while the item is {status}")
        self.item_id = item_id
        self.status = status
        self.wanted = wanted


class QueueFull(BookingWorkerError):
    """The line of the event is as long as QUEUE_MAX_SIZE allows."""

    def __init__(self, event_id: str, max_size: int) -> None:
        super().__init__(f"the queue of {event_id!r} is full ({max_size} waiting)")
        self.event_id = event_id
        self.max_size = max_size
        self.retry_after_seconds = 5.0


class UserHasPlace(BookingWorkerError):
    """A dead letter cannot go back: its user has another live place by now."""

    def __init__(self, item_id: str) -> None:
        super().__init__(f"the user of {item_id!r} has another place in the line by now")
        self.item_id = item_id


class Fenced(BookingWorkerError):
    """An answer came under a lease that has ended; nothing was changed."""

    def __init__(self, item_id: str, token: int) -> None:
        super().__init__(f"the lease {token} of {item_id!r} has ended; its answer changes nothing")
        self.item_id = item_id
        self.token = token


class EngineUnavailable(BookingWorkerError):
    """The engine did not answer in time. Whether a write happened is unknown: ask again."""


class EngineInUse(BookingWorkerError):
    """Another running service owns the data directory."""


class EngineFailed(BookingWorkerError):
    """The engine could not be had, or is set up so that it loses places; it says what to do."""


class LayoutTooNew(BookingWorkerError):
    """The engine's keys are of a later version of the service, and can't be read by this one."""

    def __init__(self, found: int, known: int) -> None:
        super().__init__(
            f"the engine's keys have the layout {found}, and this version of booking-worker knows"
            f" layouts up to {known}: run the later version again, or restore a backup that was"
            " taken before the upgrade (docs/upgrade.md)"
        )
        self.found = found
        self.known = known


class PeerError(BookingWorkerError):
    """A call to another service did not succeed."""

    def __init__(self, peer: str, message: str) -> None:
        super().__init__(f"{peer}: {message}")
        self.peer = peer
        self.message = message


class PeerUnavailable(PeerError):
    """No answer, or a transient one: whether the call took effect is unknown; ask again."""


class PeerRefused(PeerError):
    """A definite no, for good reasons of the peer's; ``message`` is for the user."""


class PeerBreakerOpen(PeerError):
    """The peer failed too often and was not asked at all."""
