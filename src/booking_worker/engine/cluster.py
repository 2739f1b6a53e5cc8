"""A client of a Cluster that leaves alone what others have under way.

redis-py's own closes the connections to all nodes, whatever they carry, when one node is down or
a slot has moved often, and sends ASKING over another connection than the command that it is for.
See docs/decisions/engine_client.md.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from redis._parsers.commands import AsyncCommandsParser
from redis.asyncio.cluster import ClusterNode, ClusterPipeline, PipelineCommand, RedisCluster
from redis.cluster import PRIMARY
from redis.exceptions import (
    AskError,
    ClusterError,
    MaxConnectionsError,
    MovedError,
    RedisClusterException,
    SlotNotCoveredError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as EngineConnectionError
from redis.exceptions import TimeoutError as EngineTimeoutError
from typing_extensions import override

COMMAND_SECONDS: Final = 1.9
"""How long a command may take with all that it waits for: the layout, redirections."""
LOOK_AGAIN_SECONDS: Final = 0.2
"""Not more often is the layout asked for anew while a node does not answer."""
TRY_AGAIN_SECONDS: Final = 0.02
_LOST: Final = (EngineConnectionError, EngineTimeoutError)


class _Keys(AsyncCommandsParser):
    """Where the keys of the commands are that this service uses.

    redis-py's own asks the engine for all its commands whenever it looks at the layout, and for
    the keys of each XREAD before it is sent.
    """

    @override
    async def initialize(self, node: ClusterNode | None = None) -> None:
        return

    @override
    async def get_keys(self, *args: Any) -> tuple[Any, ...]:
        if args[0] in {"XREAD", "XREADGROUP"}:
            words = [word.upper() if isinstance(word, bytes) else word for word in args]
            streams = args[words.index(b"STREAMS") + 1 :]
            return streams[: len(streams) // 2]
        return args[1:2]


class ClusterClient(RedisCluster):
    """As redis-py's; a command is repeated only when the node that had it refused to run it."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands_parser = _Keys()
        self._looked_at = 0.0
        self._failed: str | None = None

    def connect_by(self, connection_class: type) -> None:
        """Use these connections, to nodes found later too. To be called before the first use."""
        self.connection_kwargs["connection_class"] = connection_class
        for node in self.nodes_manager.startup_nodes.values():
            node.connection_class = connection_class

    @override
    async def initialize(self, *args: Any, **settings: Any) -> ClusterClient:
        # Who did not answer last is asked last.
        settings["last_failed_node_name"] = settings.get("last_failed_node_name") or self._failed
        try:
            await super().initialize(*args, **settings)
        except RedisClusterException as error:
            # No RedisError, to those who wait for one.
            raise EngineConnectionError(str(error)) from error
        return self

    @override
    async def aclose(self) -> None:
        # redis-py's closes nothing when the layout is to be asked for again.
        self._initialize = False
        await super().aclose()

    def look_again(self, node: ClusterNode | None = None) -> None:
        """Ask for the layout before the next command; ``node`` did not answer."""
        if node is not None:
            self._failed = node.name
            self.nodes_manager.move_node_to_end_of_cached_nodes(node.name)
        now = time.monotonic()
        if now - self._looked_at > LOOK_AGAIN_SECONDS:
            self._looked_at = now
            self._initialize = True

    @override
    async def execute_command(self, *args: Any, **settings: Any) -> Any:
        try:
            async with asyncio.timeout(COMMAND_SECONDS):
                return await super().execute_command(*args, **settings)
        except SlotNotCoveredError as error:
            raise EngineConnectionError(str(error)) from error
        except TimeoutError:
            raise EngineTimeoutError(f"no answer within {COMMAND_SECONDS:g} s") from None

    @override
    async def _execute_command(self, target_node: ClusterNode, *args: Any, **settings: Any) -> Any:
        node, asking = target_node, False
        for _ in range(self.RedisClusterRequestTTL):
            try:
                if asking:
                    return await self._ask(node, *args, **settings)
                return await node.execute_command(*args, **settings)
            except MaxConnectionsError:
                raise
            except _LOST:
                self.look_again(node)
                raise
            except MovedError as error:
                error.host = error.host or node.host
                await self.nodes_manager.move_slot(error)
                node, asking = self._node(error), False
            except AskError as error:
                error.host = error.host or node.host
                node, asking = self._node(error), True
            except TryAgainError:
                # Some keys of the slot are here, some are there: nothing has run.
                await asyncio.sleep(TRY_AGAIN_SECONDS)
        raise ClusterError("sent from node to node without end")

    def _node(self, error: AskError) -> ClusterNode:
        """The node that the error names, which may have joined since the layout was asked for."""
        manager = self.nodes_manager
        node = manager.get_node(error.host, error.port)
        if node is None:
            node = ClusterNode(error.host, error.port, PRIMARY, **manager.connection_kwargs)
            manager.nodes_cache[node.name] = node
        return node

    async def _ask(self, node: ClusterNode, *args: Any, **settings: Any) -> Any:
        asking, command = PipelineCommand(0, "ASKING"), PipelineCommand(1, *args, **settings)
        await node.execute_pipeline([asking, command])
        for one in (asking, command):
            if isinstance(one.result, Exception):
                raise one.result
        return command.result

    @override
    def pipeline(self, transaction: Any = None, shard_hint: Any = None) -> ClusterPipeline:
        return _Pipeline(self, transaction)  # type: ignore[abstract]  # so is redis-py's own


class _Pipeline(ClusterPipeline):
    """Looks for the layout when a node does not answer, which redis-py's own never does."""

    @override
    async def execute(
        self, raise_on_error: bool = True, allow_redirections: bool = True
    ) -> list[Any]:
        try:
            answers: list[Any] = await super().execute(raise_on_error, allow_redirections)
        except _LOST:
            self._look_again()
            raise
        except SlotNotCoveredError as error:
            raise EngineConnectionError(str(error)) from error
        if any(isinstance(answer, _LOST) for answer in answers):
            self._look_again()
        return answers

    def _look_again(self) -> None:
        client = self.cluster_client
        if isinstance(client, ClusterClient):
            client.look_again()
