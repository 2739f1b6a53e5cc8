"""Moving a slot of a Cluster from node to node, step by step."""

from __future__ import annotations

from tests.support.servers import HOST, Cluster, Server


class SlotMove:
    """The slot of one key on its way: :meth:`begin`, :meth:`carry`, :meth:`end`."""

    def __init__(self, made: Cluster, slot: int, source: Server, target: Server) -> None:
        self.made = made
        self.slot = slot
        self.source = source
        self.target = target

    @classmethod
    async def of(cls, made: Cluster, key: str) -> SlotMove:
        """To some other node than has it now."""
        source = await made.owner(key)
        target = next(node for node in made.nodes if node is not source)
        return cls(made, await source.ask("CLUSTER", "KEYSLOT", key), source, target)

    async def begin(self) -> None:
        """From now on the source sends on what it does not have, and the target takes it."""
        source, target = await self._id(self.source), await self._id(self.target)
        await self.target.ask("CLUSTER", "SETSLOT", self.slot, "IMPORTING", source)
        await self.source.ask("CLUSTER", "SETSLOT", self.slot, "MIGRATING", target)

    async def carry(self) -> None:
        """Move all keys."""
        while names := await self.source.ask("CLUSTER", "GETKEYSINSLOT", self.slot, 10):
            await self.source.ask(
                "MIGRATE", HOST, self.target.port, "", 0, 5000, "KEYS", *names
            )  # fmt: skip

    async def end(self) -> None:
        """From now on the slot is the target's."""
        target = await self._id(self.target)
        others = [node for node in self.made.nodes if node not in (self.source, self.target)]
        for node in (self.target, self.source, *others):
            await node.ask("CLUSTER", "SETSLOT", self.slot, "NODE", target)

    async def whole(self) -> None:
        """All steps."""
        await self.begin()
        await self.carry()
        await self.end()

    @staticmethod
    async def _id(node: Server) -> str:
        name: bytes = await node.ask("CLUSTER", "MYID")
        return name.decode()
