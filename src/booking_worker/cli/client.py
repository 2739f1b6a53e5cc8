"""A running service, asked over gRPC; what fails is told in words, with the setting to change."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final, Protocol, TypeVar

import grpc
from google.protobuf.message import Message

from booking_worker.cli.output import CommandFailed
from booking_worker.config import Settings, load
from booking_worker.proto import admin_pb2_grpc, booking_worker_pb2_grpc

CONNECT_SECONDS: Final = 3.0
ANSWER_SECONDS: Final = 5.0

Request_contra = TypeVar("Request_contra", contravariant=True)
Answer_co = TypeVar("Answer_co", covariant=True)


class Method(Protocol[Request_contra, Answer_co]):
    """A unary call of a stub."""

    def __call__(self, request: Request_contra, /, *, timeout: float) -> Answer_co:
        """The answer, or grpc.RpcError."""


class ServiceClient:
    """The stubs of one service, and a way to call them that fails in words."""

    def __init__(self, channel: grpc.Channel, address: str) -> None:
        self.address = address
        self.admin = admin_pb2_grpc.BookingWorkerAdminStub(channel)
        self.worker = booking_worker_pb2_grpc.BookingWorkerServiceStub(channel)

    def call(self, method: Method[Request_contra, Answer_co], request: Request_contra) -> Answer_co:
        """The answer within 5 seconds.

        Raises:
            CommandFailed: an error, told as its service tells it.
        """
        try:
            return method(request, timeout=ANSWER_SECONDS)
        except grpc.RpcError as error:
            raise _failure(error, self.address) from None


@contextmanager
def service(address: str = "", tls_ca: Path | None = None) -> Iterator[ServiceClient]:
    """The service at ``address``, else on this machine's GRPC_PORT; closed at the end.

    Raises:
        CommandFailed: nothing answers there.
        InvalidSettings: a setting is wrong.
    """
    settings = load()
    target = address or own_address(settings)
    with open_channel(settings, target, tls_ca) as channel:
        yield ServiceClient(channel, target)


def own_address(settings: Settings) -> str:
    """Where the service with these settings is found from this machine.

    Raises:
        CommandFailed: it can't be told, as the port is any free one.
    """
    if not settings.grpc_port:
        raise CommandFailed(
            "GRPC_PORT is 0, any free port, so the service cannot be found by it",
            "Say where it is: --address HOST:PORT (it says so when it starts).",
        )
    return f"localhost:{settings.grpc_port}"


@contextmanager
def open_channel(settings: Settings, target: str, tls_ca: Path | None) -> Iterator[grpc.Channel]:
    """A channel that is connected; with TLS where GRPC_TLS_CERT or ``tls_ca`` says so.

    Raises:
        CommandFailed: nothing answers at ``target`` within 3 seconds.
    """
    credentials = _credentials(settings, tls_ca)
    channel = (
        grpc.insecure_channel(target)
        if credentials is None
        else grpc.secure_channel(target, credentials)
    )
    with channel:
        if not _connects(channel):
            raise CommandFailed(
                f"no booking worker answers at {target}" + (" by TLS" if credentials else ""),
                "Start one with `booking-worker serve --sandbox`, or say where it is:"
                " --address HOST:PORT, or GRPC_PORT\n"
                "(`booking-worker config` shows what is set).",
            )
        yield channel


def _connects(channel: grpc.Channel) -> bool:
    """Whether it does within 3 seconds; a refusal is known at once."""
    states: SimpleQueue[grpc.ChannelConnectivity] = SimpleQueue()
    channel.subscribe(states.put, try_to_connect=True)
    deadline = time.monotonic() + CONNECT_SECONDS
    try:
        while True:
            state = states.get(timeout=max(0.0, deadline - time.monotonic()))
            if state is grpc.ChannelConnectivity.READY:
                return True
            if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                return False
    except Empty:
        return False
    finally:
        channel.unsubscribe(states.put)


def _credentials(settings: Settings, tls_ca: Path | None) -> grpc.ChannelCredentials | None:
    trusted = tls_ca or settings.grpc_tls_cert
    if trusted is None:
        return None
    try:
        roots = trusted.read_bytes()
        if settings.grpc_tls_cert is None or settings.grpc_tls_key is None:
            return grpc.ssl_channel_credentials(roots)
        # The service's own certificate is the one at hand where it wants its clients to have one.
        key, cert = settings.grpc_tls_key.read_bytes(), settings.grpc_tls_cert.read_bytes()
    except OSError as error:
        raise CommandFailed(
            f"{error.filename} cannot be read: {error.strerror}",
            "Check --tls-ca, GRPC_TLS_CERT and GRPC_TLS_KEY.",
        ) from None
    return grpc.ssl_channel_credentials(roots, key, cert)


_SAID_BY_THE_SERVICE: Final = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.PERMISSION_DENIED,
    }
)
_ADVICE: Final = {
    grpc.StatusCode.UNAVAILABLE: "Try again, or see what `booking-worker check` says.",
    grpc.StatusCode.DEADLINE_EXCEEDED: "It may be busy: try again, or see `booking-worker check`.",
    grpc.StatusCode.UNIMPLEMENTED: "Something else, or an older version, answers there:"
    " check --address and GRPC_PORT.",
    grpc.StatusCode.UNAUTHENTICATED: "Check GRPC_TLS_CERT and GRPC_TLS_KEY.",
}


def _failure(error: grpc.RpcError, address: str) -> CommandFailed:
    code, details = error.code(), error.details() or ""
    if code in _SAID_BY_THE_SERVICE and details:
        return CommandFailed(details)
    said = details or code.name.lower().replace("_", " ")
    return CommandFailed(f"{address} answers {code.name}: {said}", _ADVICE.get(code, ""))


def as_dict(message: Message) -> dict[str, Any]:
    """A message as plain values by field name; None for an optional one that is absent."""
    return {field.name: _plain(message, field) for field in message.DESCRIPTOR.fields}


def _plain(message: Message, field: Any) -> Any:
    if field.has_presence and not message.HasField(field.name):
        return None
    value = getattr(message, field.name)
    if isinstance(value, Message):
        return as_dict(value)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return dict(value)
    if field.is_repeated:
        convert: Callable[[Any], Any] = as_dict if field.message_type is not None else _itself
        return [convert(one) for one in value]
    return value


def _itself(value: Any) -> Any:
    return value
