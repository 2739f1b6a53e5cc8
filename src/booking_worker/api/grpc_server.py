"""The gRPC side: one port, served by pygrpc-native where it can be and by grpcio otherwise."""

from __future__ import annotations

import asyncio
import importlib
import os
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Final, Literal, TypeAlias

import grpc
import grpc.aio
from grpc_reflection.v1alpha import reflection

from booking_worker.api.health import Health
from booking_worker.api.health_service import HealthService
from booking_worker.api.listening import address, every_host, port_taken
from booking_worker.api.rpc import Service
from booking_worker.domain.errors import InvalidSettings
from booking_worker.telemetry.logs import get_logger
from booking_worker.telemetry.metrics import Metrics

_log = get_logger(__name__)

Transport: TypeAlias = Literal["auto", "native", "grpcio"]

_MOST_REQUEST_BYTES: Final = 8 * 1024 * 1024
"""A thousand requests in a call, each as large as its fields may be when typical ones are small."""

_OPTIONS: Final[Sequence[tuple[str, int]]] = (
    ("grpc.max_receive_message_length", _MOST_REQUEST_BYTES),
    # pygrpc-native's own default is 1,024, and a gateway has one connection for all its users.
    ("grpc.max_concurrent_streams", 100_000),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
)


_LAST_ANSWERS_SECONDS: Final = 0.1


@dataclass(frozen=True)
class Tls:
    """PEM files; with ``client_ca`` only clients with a certificate of it are let in."""

    cert: Path
    key: Path
    client_ca: Path | None = None


class GrpcServer:
    """Serves GRPC_PORT with the given services, grpc.health.v1 and server reflection.

    ``port`` 0 takes any that is free; ``shared`` is for one that several processes serve, see
    :func:`listening.reserve`. ``grace_seconds`` is what calls under way get on stop.
    grpc.health.v1 follows readiness, for "" and for each of the services.
    """

    def __init__(
        self,
        services: Sequence[Service],
        readiness: Health,
        metrics: Metrics,
        port: int,
        *,
        shared: bool = False,
        host: str | None = None,
        transport: Transport = "auto",
        tls: Tls | None = None,
        grace_seconds: float = 5.0,
    ) -> None:
        names = [service.descriptor.full_name for service in services]
        self._readiness = readiness
        self._health = HealthService(readiness, names, metrics)
        self._services = services
        self._wanted_port = port
        self._shared = shared
        self._host = every_host() if host is None else host
        self._wanted_transport = transport
        self._tls = tls
        self._grace_seconds = grace_seconds
        self._server: grpc.aio.Server | None = None
        self._port = 0
        self._transport = ""

    @property
    def port(self) -> int:
        """The port that it listens on, once started."""
        return self._port

    @property
    def transport(self) -> str:
        """``native`` or ``grpcio``, once started."""
        return self._transport

    async def start(self) -> None:
        """Listen and serve.

        Raises:
            InvalidSettings: the port is taken, a certificate cannot be read, or the transport
                that was asked for is not to be had.
        """
        native = _native(self._wanted_transport, tls=self._tls is not None)
        # Off by default, or a second service on the port would take half of the calls unnoticed.
        options = [("grpc.so_reuseport", int(self._shared)), *_OPTIONS]
        if native is None:
            server = grpc.aio.server(options=options)
        else:
            server = native.server(options=options)
        services = [*self._services, self._health.service()]
        for service in services:
            handlers = dict(service.handlers)
            name = service.descriptor.full_name
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
            server.add_registered_method_handlers(name, handlers)
        names = [service.descriptor.full_name for service in services]
        reflection.enable_server_reflection((*names, reflection.SERVICE_NAME), server)
        with _threads_that_push_nobody_off():
            self._port = self._listen(server)
            await server.start()
        self._transport = "grpcio" if native is None else "native"
        self._server = server

    async def stop(self) -> None:
        """Be ready no more, turn new calls away, finish those under way within their grace, end.

        May be called again.
        """
        self._readiness.shut_down()
        server, self._server = self._server, None
        if server is None:
            return
        services = self._services
        if sum(service.calls.close() for service in services) + self._health.shut_down():
            try:
                async with asyncio.timeout(self._grace_seconds):
                    await asyncio.gather(*(service.calls.over() for service in services))
            except TimeoutError:
                _log.warning("calls were cut off", grace_seconds=self._grace_seconds)
            # pygrpc-native closes without a look at what it has been given to send.
            await asyncio.sleep(_LAST_ANSWERS_SECONDS)
        await server.stop(_LAST_ANSWERS_SECONDS)

    def _listen(self, server: grpc.aio.Server) -> int:
        where = address(self._host, self._wanted_port)
        try:
            if self._tls is not None:
                port = server.add_secure_port(where, _credentials(self._tls))
            else:
                port = server.add_insecure_port(where)
        except RuntimeError as error:
            cause = error.__cause__
            why = os.strerror(cause.errno) if isinstance(cause, OSError) and cause.errno else ""
            raise port_taken("GRPC_PORT", self._wanted_port, why) from error
        return port


@contextmanager
def _threads_that_push_nobody_off() -> Iterator[None]:
    """Threads begun inside wait for a free core instead of interrupting whoever runs.

    Each answer wakes a thread of the server's. On a busy machine that one took the event loop's
    core for an answer or two, every time, while answers came one by one: on two cores 5 to 10 %
    of all joins. Threads inherit the policy of who begins them; only Linux has this one.
    """
    changed = _from_other_to_batch()
    try:
        yield
    finally:
        if changed:
            with suppress(OSError):
                os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def _from_other_to_batch() -> bool:
    if not hasattr(os, "SCHED_BATCH"):
        return False
    # musl has no such calls, and not every sandbox that containers run in allows them.
    try:
        if os.sched_getscheduler(0) != os.SCHED_OTHER:
            return False
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    except OSError:
        return False
    return True


def _native(wanted: Transport, *, tls: bool) -> ModuleType | None:
    """pygrpc-native's server module if it is to serve, None if grpcio is.

    Raises:
        InvalidSettings: it is wanted and cannot be had.
    """
    if wanted == "grpcio":
        return None
    if tls:
        if wanted == "native":
            raise InvalidSettings(
                ["GRPC_TRANSPORT: got native, which has no TLS; takes auto or grpcio with TLS"]
            )
        return None
    try:
        # Not `from pygrpc_native import aio`: in 0.5.0 that calls itself without end.
        return importlib.import_module("pygrpc_native.aio")
    except ImportError as error:
        if wanted == "native":
            raise InvalidSettings(
                ["GRPC_TRANSPORT: got native, which needs pygrpc-native; takes auto or grpcio"]
            ) from error
        return None


def _credentials(tls: Tls) -> grpc.ServerCredentials:
    cert, key = _pem("GRPC_TLS_CERT", tls.cert), _pem("GRPC_TLS_KEY", tls.key)
    client_ca = None if tls.client_ca is None else _pem("GRPC_TLS_CLIENT_CA", tls.client_ca)
    # grpcio would only say that the port cannot be had.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    asked_for_password = False

    def no_password() -> str:
        nonlocal asked_for_password
        asked_for_password = True
        return ""

    try:
        # Without this an encrypted key is asked about on the terminal, and all else waits.
        context.load_cert_chain(tls.cert, tls.key, no_password)
    except (ssl.SSLError, ValueError) as error:
        if asked_for_password:
            problem = f"GRPC_TLS_KEY: got {tls.key}, which is encrypted; takes one without password"
        else:
            what = f"does not go with GRPC_TLS_KEY {tls.key}"
            problem = _unfit("GRPC_TLS_CERT", tls.cert, what, error)
        raise InvalidSettings([problem]) from error
    if tls.client_ca is not None:
        try:
            context.load_verify_locations(tls.client_ca)
        except ssl.SSLError as error:
            raise InvalidSettings(
                [_unfit("GRPC_TLS_CLIENT_CA", tls.client_ca, "is no certificate", error)]
            ) from error
    return grpc.ssl_server_credentials(
        [(key, cert)], root_certificates=client_ca, require_client_auth=client_ca is not None
    )


def _unfit(setting: str, path: Path, what: str, error: ssl.SSLError | ValueError) -> str:
    why = getattr(error, "reason", None) or str(error)
    return f"{setting}: got {path}, which {what} ({why}); takes a PEM file"


def _pem(setting: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidSettings(
            [f"{setting}: got {path}, which cannot be read: {error.strerror}; takes a PEM file"]
        ) from error
