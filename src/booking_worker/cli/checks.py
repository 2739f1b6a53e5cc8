"""What ``booking-worker check`` looks at, one function for each thing."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import socket
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final, Literal, NamedTuple, TypeAlias

import grpc

from booking_worker.cli.client import own_address, service
from booking_worker.cli.output import CommandFailed
from booking_worker.config import Settings, explain, load
from booking_worker.config.engines import access_of, engine_of, needs_of
from booking_worker.domain.errors import (
    BookingWorkerError,
    EngineInUse,
    EngineUnavailable,
    InvalidSettings,
    PeerError,
)
from booking_worker.engine.data_dir import DataDir
from booking_worker.engine.durability import read_durability
from booking_worker.engine.embedded import EmbeddedEngine
from booking_worker.engine.redis import server_client
from booking_worker.peers.channel import open_channel
from booking_worker.peers.services import Services
from booking_worker.proto import booking_worker_pb2
from booking_worker.queue import keys, scripts
from booking_worker.queue.routing import runner_for

Grade: TypeAlias = Literal["fine", "mind", "wrong"]

_PEER_SECONDS: Final = 3.0
_FEW_BYTES: Final = 1 << 30
_LOCK_MS: Final = 1000
_PEERS: Final = {
    "booking": "GRPC_BOOKING_SERVICE_ENDPOINT",
    "ticket": "GRPC_TICKET_SERVICE_ENDPOINT",
    "realtime": "GRPC_REALTIME_SERVICE_ENDPOINT",
}


class Finding(NamedTuple):
    """One thing that was looked at; ``mind`` is worth a thought and keeps nothing from working."""

    about: str
    grade: Grade
    says: str
    advice: str = ""


def look_at_everything(address: str = "", tls_ca: Path | None = None) -> list[Finding]:
    """The findings, in the order in which they should be mended.

    A service that runs says itself how its engine and its peers are; where none does, what it
    would need is looked at from here.
    """
    try:
        settings = load()
    except InvalidSettings as error:
        advice = "Change it in the environment or in .env."
        return [Finding("settings", "wrong", problem, advice) for problem in error.problems]
    findings = [_valid(settings), *doubts(settings)]
    try:
        return findings + ask_service(address or own_address(settings), tls_ca)
    except CommandFailed as error:
        if address:
            return [*findings, Finding("service", "wrong", str(error), error.advice)]
    return [
        *findings,
        *try_engine(settings),
        *asyncio.run(ask_lock_nodes(settings)),
        *asyncio.run(ask_peers(settings)),
        Finding("service", "mind", "does not run here", "`booking-worker serve` starts it."),
        *ports(settings),
    ]


def _valid(settings: Settings) -> Finding:
    changed = sum(one.source != "default" for one in explain(settings))
    differ = f"{changed} set, the others" if changed else "all"
    return Finding("settings", "fine", f"valid; {differ} by default")


def doubts(settings: Settings) -> Iterator[Finding]:
    """Values that are allowed one by one and make no good sense together."""
    if settings.shutdown_grace_seconds < settings.peer_timeout_seconds:
        yield Finding(
            "SHUTDOWN_GRACE_SECONDS",
            "mind",
            f"{settings.shutdown_grace_seconds:g} s, while a call to a service may take"
            f" {settings.peer_timeout_seconds:g} s",
            "Make it longer than PEER_TIMEOUT_SECONDS, or a stop hands back unfinished work.",
        )
    if settings.queue_timeout_seconds < settings.payment_timeout_seconds:
        yield Finding(
            "QUEUE_TIMEOUT_SECONDS",
            "mind",
            f"{settings.queue_timeout_seconds:g} s, while a hold waits"
            f" {settings.payment_timeout_seconds:g} s for its payment",
            "Make it longer than PAYMENT_TIMEOUT_SECONDS, or who waits for an unpaid ticket"
            " is gone before it comes back.",
        )
    if settings.engine == "embedded" and settings.engine_fsync != "always":
        yield Finding(
            "ENGINE_FSYNC",
            "mind",
            "everysec: up to 2 seconds of joins are lost if the engine or its machine dies",
            "Set it to always, unless that is what you want.",
        )


def ask_service(address: str, tls_ca: Path | None) -> list[Finding]:
    """How a running service says that it is, one finding per dependency.

    Raises:
        CommandFailed: none answers.
    """
    with service(address, tls_ca) as client:
        said = client.call(client.worker.Health, booking_worker_pb2.HealthRequest())
    findings = [Finding("service", _grade(said.status), f"at {address}: {said.message}")]
    for name, finding in sorted(said.details.items()):
        grade = _grade(finding.partition(":")[0])
        advice = "" if grade == "fine" else _advice(name)
        findings.append(Finding(name, grade, finding, advice))
    return findings


def _grade(word: str) -> Grade:
    return "fine" if word == "healthy" else "wrong"


def _advice(name: str) -> str:
    if name in _PEERS:
        return f"Start it, or change {_PEERS[name]}."
    return {
        "engine": "See the engine's log; that of the embedded one is engine.log in DATA_DIR.",
        "durability": "Mend what it names in the engine, or see whether its disk is full.",
        "lock_nodes": "Start it or mend what it says, or change REDIS_LOCK_NODES. Sales go on;"
        " audit log and Realtime wait while most do not answer.",
        "worker": "See the log of the service, and `booking-worker queue status`.",
    }.get(name, "See the log of the service.")


def try_engine(settings: Settings) -> list[Finding]:
    """Whether the engine can be had, and keeps what it is given."""
    if settings.engine == "embedded":
        return _try_embedded(settings)
    return asyncio.run(_ask_engine(settings))


async def _ask_engine(settings: Settings) -> list[Finding]:
    engine = engine_of(settings)
    try:
        await engine.start()
        async with engine.client() as client:
            durability = await read_durability(client, needs_of(settings))
    except BookingWorkerError as error:
        return [Finding("engine", "wrong", str(error), "Mend what it names.")]
    says = f"{engine.description} answers; loss at a crash: {durability.loss_window}"
    findings = [Finding("engine", "fine", says)]
    for warning in durability.warnings:
        refused = settings.redis_strict and warning in durability.refusals
        advice = "Do so in the server's configuration"
        advice += ", or set REDIS_STRICT=false." if refused else "; the service runs all the same."
        findings.append(Finding("durability", "wrong" if refused else "mind", warning, advice))
    findings += [
        Finding("durability", "mind", note, "Mind it; the service runs all the same.")
        for note in durability.notes
    ]
    return findings


async def ask_lock_nodes(settings: Settings) -> list[Finding]:
    """Whether each of REDIS_LOCK_NODES gives out a lock."""
    nodes = settings.redis_lock_nodes
    problems = await asyncio.gather(*(_lock_problem(settings, *node) for node in nodes))
    findings = [
        Finding("lock_nodes", "wrong", f"{host}:{port}: {problem}", _advice("lock_nodes"))
        for (host, port), problem in zip(nodes, problems, strict=True)
        if problem
    ]
    if nodes and not findings:
        findings.append(Finding("lock_nodes", "fine", f"all {len(nodes)} give out locks"))
    return findings


async def _lock_problem(settings: Settings, host: str, port: int) -> str:
    """Why no lock is to be had there; empty when one is."""
    # By taking one that nobody wants. Who may not run scripts, a replica and a node of a Cluster
    # would answer a PING.
    mine = secrets.token_hex(8)
    lock = keys.of_event(f"check-{mine}")["lock"]
    client = server_client((host, port), access_of(settings))
    try:
        runner = runner_for(client)
        for name in ("locks/hold", "locks/release"):
            script = scripts.load(name)
            await runner.run(script, [lock], script.argv({"owner": mine, "ttl_ms": _LOCK_MS}))
    except EngineUnavailable as error:
        # Without the words that it is the engine.
        return str(error).partition(": ")[2]
    except Exception as error:  # noqa: BLE001 - of redis-py, whose errors are the queue's to know
        return f"{type(error).__name__}: {error}"
    finally:
        await client.aclose()
    return ""


def _try_embedded(settings: Settings) -> list[Finding]:
    # Told by having one for a moment in a directory of its own.
    directory = DataDir(settings.data_dir)
    existed = directory.path.exists()
    try:
        directory.acquire()
    except EngineInUse as error:
        return [Finding("engine", "mind", str(error), "Ask that service: --address HOST:PORT.")]
    except BookingWorkerError as error:
        return [Finding("engine", "wrong", str(error), "Change DATA_DIR, or who may write there.")]
    directory.release()
    if not existed:
        shutil.rmtree(directory.path)
    try:
        version = asyncio.run(_start_for_a_moment(settings))
    except BookingWorkerError as error:
        return [Finding("engine", "wrong", str(error), "Mend what it names.")]
    place = f"DATA_DIR {directory.path} {'can be written' if existed else 'can be made'}"
    return [Finding("engine", "fine", f"{version} starts; {place}"), *_space(directory.path)]


async def _start_for_a_moment(settings: Settings) -> str:
    with tempfile.TemporaryDirectory(prefix="booking-worker-check-") as scratch:
        engine = EmbeddedEngine(Path(scratch), settings.engine_fsync)
        await engine.start()
        try:
            async with engine.client() as client:
                return (await read_durability(client)).version
        finally:
            await engine.stop()


def _space(path: Path) -> list[Finding]:
    there = next(one for one in (path, *path.parents) if one.exists())
    free = shutil.disk_usage(there).free
    if free >= _FEW_BYTES:
        return []
    says = f"{free / 2**20:.0f} MiB are free where DATA_DIR is"
    return [Finding("disk", "mind", says, "Make room: every place in line is kept there.")]


async def ask_peers(settings: Settings) -> list[Finding]:
    """Whether each service that is called answers."""
    services = Services(
        settings.grpc_booking_service_endpoint,
        settings.grpc_ticket_service_endpoint,
        settings.grpc_realtime_service_endpoint,
        min(_PEER_SECONDS, settings.peer_timeout_seconds),
    )
    realtime = settings.grpc_realtime_service_endpoint
    asks: dict[str, Callable[[], Awaitable[str]] | None] = {
        "booking": services.booking.health,
        "ticket": services.ticket.health if services.ticket else None,
        "realtime": (lambda: _connects(realtime)) if realtime else None,
    }
    try:
        return list(
            await asyncio.gather(
                *(
                    _peer(name, str(getattr(settings, _PEERS[name].lower())), ask)
                    for name, ask in asks.items()
                )
            )
        )
    finally:
        await services.stop()


async def _peer(name: str, endpoint: str, ask: Callable[[], Awaitable[str]] | None) -> Finding:
    if ask is None:
        return Finding(name, "mind", f"not configured: {_PEERS[name]} is empty")
    try:
        status = await ask()
    except PeerError as error:
        # Of a chain of reasons the last says what happened: "Connection refused".
        why = error.message.rpartition(": ")[2]
        return Finding(name, "wrong", f"{endpoint} does not answer: {why}", _advice(name))
    if status not in {"", "healthy"}:
        return Finding(name, "wrong", f"{endpoint} says that it is {status}", "See its own log.")
    return Finding(name, "fine", f"{endpoint} answers")


async def _connects(endpoint: str) -> str:
    """The Realtime Service has no call to ask how it is: a connection has to do."""
    async with open_channel(endpoint) as channel:
        try:
            async with asyncio.timeout(_PEER_SECONDS):
                state = channel.get_state(try_to_connect=True)
                while state is not grpc.ChannelConnectivity.READY:
                    if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                        raise PeerError("realtime", "no connection")
                    await channel.wait_for_state_change(state)
                    state = channel.get_state(try_to_connect=True)
        except TimeoutError:
            raise PeerError("realtime", f"no connection within {_PEER_SECONDS:g} s") from None
    return ""


def ports(settings: Settings) -> Iterator[Finding]:
    """The ports of the service that something else has."""
    wanted = {"GRPC_PORT": settings.grpc_port, "HTTP_PORT": settings.http_port}
    if settings.metrics_enabled:
        wanted["METRICS_PORT"] = settings.metrics_port
    for name, port in wanted.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", port))
            except OSError as error:
                says = f"{port} cannot be had: {error.strerror}"
                yield Finding(name, "wrong", says, "Choose another, or end what has it.")
