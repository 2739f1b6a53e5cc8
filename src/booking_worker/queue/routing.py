"""Runs scripts in a Cluster: each goes to the node that has its slot, and after it when it moves.

redis-py's own pipeline of a Cluster repeats commands that may have run, so only its topology and
its connections are used here. A call is sent again only after an answer that says that it has
not run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.connection import AbstractConnection
from redis.cluster import PRIMARY
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    RedisClusterException,
    RedisError,
    SlotNotCoveredError,
    TryAgainError,
)
from typing_extensions import override

from booking_worker.queue.acknowledge import Acknowledge
from booking_worker.queue.lane import (
    NO_WAIT,
    PATIENCE_SECONDS,
    Call,
    Lane,
    unavailable,
)
from booking_worker.queue.runner import Runner, ScriptRunner

_PAUSE_SECONDS: Final = 0.01
_LONGEST_PAUSE_SECONDS: Final = 0.05
_BETWEEN_LOOKS_SECONDS: Final = 0.2
_ANY_KEY: Final = ""


def runner_for(client: Redis | RedisCluster, acknowledge: Acknowledge = NO_WAIT) -> Runner:
    """What runs scripts where this client leads to."""
    if isinstance(client, RedisCluster):
        return ClusterRunner(client, acknowledge)
    return ScriptRunner(client, acknowledge)


class ClusterRunner(Runner):
    """As ScriptRunner, in a Cluster: calls that arrive together make one trip per node.

    Follows MOVED and ASK, and waits out TRYAGAIN while the time of a call lasts. What broke on
    its way is not sent again, as it may have run; the next calls go where the slots are then.
    """

    def __init__(self, client: RedisCluster, acknowledge: Acknowledge = NO_WAIT) -> None:
        self._client = client
        self._acknowledge = acknowledge
        self._lanes: dict[tuple[str, bool], _NodeLane] = {}
        self._homeless: list[Call] = []
        self._looking: asyncio.Task[None] | None = None
        self._looked_at = 0.0
        self._moves: set[asyncio.Task[None]] = set()

    @override
    def add(self, call: Call) -> None:
        """Have a call leave soon for the node that has its slot."""
        try:
            node = self._client.get_node_from_key(call.keys[0] if call.keys else _ANY_KEY)
        except SlotNotCoveredError:
            node = None
        if node is not None:
            self._lane(node, asking=False).add(call, first=call.hops > 0)
            return
        # Nothing is known yet, or of this slot.
        self._homeless.append(call)
        # Just before it would hear no more than that its time is over.
        asyncio.get_running_loop().call_at(call.until - _PAUSE_SECONDS, _too_late, call)
        self.look()

    def _lane(self, node: ClusterNode, *, asking: bool) -> _NodeLane:
        name = (node.name, asking)
        lane = self._lanes.get(name)
        if lane is None or lane.node is not node:
            lane = self._lanes[name] = _NodeLane(self, node, self._acknowledge, asking=asking)
        return lane

    def knows(self, node: ClusterNode) -> bool:
        """Whether the node is one of those that the layout has now."""
        return self._client.nodes_manager.nodes_cache.get(node.name) is node

    def look(self) -> None:
        """Find out which node has which slots, soon, in the background."""
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())
            self._looking.add_done_callback(self._looked)

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._looked_at + _BETWEEN_LOOKS_SECONDS - loop.time())
        nodes = self._client.nodes_manager
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                # Not the client's again: it may have been closed meanwhile, and would be open.
                await (nodes if nodes.slots_cache else self._client).initialize()
        except (RedisError, RedisClusterException, OSError, TimeoutError) as error:
            homeless, self._homeless = self._homeless, []
            for call in [one for one in homeless if not one.answer.done()]:
                call.answer.set_exception(unavailable(error))
        finally:
            self._looked_at = loop.time()
            # Of those that only looks use none stays open: the client may be closed by now.
            known = {id(node) for node in nodes.nodes_cache.values()}
            others = [one for one in nodes.startup_nodes.values() if id(one) not in known]
            await asyncio.gather(*(node.disconnect_free_connections() for node in others))

    def _looked(self, looking: asyncio.Task[None]) -> None:
        self._looking = None
        if looking.cancelled():
            return  # the event loop is being closed
        nodes = self._client.nodes_manager.nodes_cache
        self._lanes = {name: lane for name, lane in self._lanes.items() if name[0] in nodes}
        homeless, self._homeless = self._homeless, []
        for call in [one for one in homeless if not one.answer.done()]:
            self.add(call)

    def moved(self, call: Call, error: MovedError) -> None:
        """The slot has another owner: remember that, and send the call there."""

        async def follow() -> None:
            try:
                await self._client.nodes_manager.move_slot(error)
            except KeyError:
                # The layout was read anew meanwhile, and nobody has the slot in it: wait with those
                # of whom no node is known, or go to whoever has it by then.
                self.look()
            if not call.answer.done():
                self._again(call, error)

        move = asyncio.create_task(follow())
        self._moves.add(move)
        move.add_done_callback(self._moves.discard)

    def asked(self, call: Call, error: AskError) -> None:
        """The slot is on its way to another node, and has left as far as this call goes."""
        nodes = self._client.nodes_manager
        node = nodes.get_node(error.host, error.port)
        if node is None:
            # It has no slots yet, so it is in no layout.
            node = ClusterNode(error.host, error.port, PRIMARY, **nodes.connection_kwargs)
            nodes.nodes_cache[node.name] = node
        self._again(call, error, node)

    def later(self, call: Call, error: TryAgainError) -> None:
        """The slot is on its way, and some of the call's keys are here and some there."""
        self._again(call, error)

    def _again(self, call: Call, error: Exception, asking: ClusterNode | None = None) -> None:
        loop = asyncio.get_running_loop()
        at_once = call.hops == 0 and not isinstance(error, TryAgainError)
        pause = 0 if at_once else min(_PAUSE_SECONDS * (call.hops + 1), _LONGEST_PAUSE_SECONDS)
        call = call._replace(hops=call.hops + 1)
        if asking is None:
            loop.call_later(pause, self.add, call)
        else:
            lane = self._lane(asking, asking=True)
            loop.call_later(pause, lambda: lane.add(call, first=True))


class _NodeLane(Lane):
    """The way to one node; with ``asking`` for calls that the owner of a slot sent there."""

    def __init__(
        self, cluster: ClusterRunner, node: ClusterNode, acknowledge: Acknowledge, *, asking: bool
    ) -> None:
        super().__init__(acknowledge, before=[("ASKING",)] if asking else [])
        self.node = node
        self._cluster = cluster

    @override
    def _broke(self, calls: Sequence[Call], error: Exception) -> None:
        super()._broke(calls, error)
        self._cluster.look()

    @override
    def _failed(self, call: Call, error: Exception) -> None:
        if isinstance(error, AskError):
            # A node that knows no name of the other means its own.
            error.host = error.host or self.node.host
        if isinstance(error, MovedError):
            self._cluster.moved(call, error)
        elif isinstance(error, AskError):
            self._cluster.asked(call, error)
        elif isinstance(error, TryAgainError):
            self._cluster.later(call, error)
        else:
            super()._failed(call, error)
            if isinstance(error, ClusterDownError):
                self._cluster.look()

    @override
    async def _borrow(self) -> AbstractConnection:
        connection = self.node.acquire_connection()
        try:
            # The other end may have closed it while it was free, as a client of one server checks.
            stale = connection.is_connected and (
                connection.should_reconnect() or await connection.can_read()
            )
            if stale:
                await connection.disconnect()
            await connection.connect()
        except BaseException:
            await self._give_back(connection)
            raise
        return connection

    @override
    async def _give_back(self, connection: AbstractConnection) -> None:
        if not self._cluster.knows(self.node):
            # Dropped from the layout meanwhile: closing the client would not close it.
            await connection.disconnect(nowait=True)
        self.node.release(connection)  # type: ignore[arg-type]  # it is what the node gave


def _too_late(call: Call) -> None:
    if not call.answer.done():
        call.answer.set_exception(unavailable("nobody says which node has the slot"))
