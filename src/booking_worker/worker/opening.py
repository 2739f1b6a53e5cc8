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
        self._born: dict[str, str] = {}
        """The events seen open, and the first item of each."""
        self._born_in = ""
        """The id of the layout in which they were."""

    async def allows(self, event_id: str, question: CapacityQuestion) -> bool:
        """Whether the answer to this question may be written into the books.

        Not while nobody is to be admitted to any event. An event that was open and began anew
        has lost its data: it is paused until an operator says otherwise.

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
        if layout.id != self._born_in:
            self._born_in, self._born = layout.id, {}
        if self._born.get(event_id, question.born) != question.born:
            _log.error("the engine lost the data of an event", event_id=event_id)
            await self._queue.pause(event_id, LOST_EVENT, "system")
        if question.born:
            self._born[event_id] = question.born
        return True
