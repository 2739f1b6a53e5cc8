"""Whether the books of an event may be opened: the step after which people are admitted by them."""

from __future__ import annotations

from booking_worker.queue.booking_queue import BookingQueue, CapacityQuestion
from booking_worker.queue.layout import LOST_EVENT
from booking_worker.telemetry.logs import get_logger

_log = get_logger(__name__)


class Opening:
    """Knows which events this replica has seen open, and so which ones have lost their books.

    Books that were not refreshed under the engine that keeps them admit nobody; the first refresh
    opens them. So all that an engine may have lost is looked for here, in one place: it holds
    for an engine that was wiped a moment ago, and for a node of a Cluster that was.
    """

    def __init__(self, queue: BookingQueue) -> None:
        self._queue = queue
        self._opened: set[str] = set()
        self._opened_in = ""
        """The id of the layout in which ``_opened`` were."""

    async def allows(self, event_id: str, question: CapacityQuestion) -> bool:
        """Whether the answer to this question may be written into the books.

        Not while nobody is to be admitted to any event. An event that was open and whose books
        are new has lost its data: it is paused until an operator says otherwise.

        Raises:
            EngineUnavailable.
            LayoutTooNew: the keys are of a later version of the service by now.
        """
        layout = self._queue.layout
        if question.epoch != question.engine or (layout and layout.paused):
            # As of after the question: set_capacity.lua sees to what happens after this.
            layout = await self._queue.read_layout()
        if layout is None:
            return True
        if layout.paused:
            return False
        if layout.id != self._opened_in:
            self._opened_in, self._opened = layout.id, set()
        if not question.epoch and event_id in self._opened:
            _log.error("the engine lost the data of an event", event_id=event_id)
            await self._queue.pause(event_id, LOST_EVENT, "system")
        self._opened.add(event_id)
        return True
