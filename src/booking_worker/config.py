"""Every setting, read once at the start: defaults, then ``.env``, then the environment.

Only app and cli import this; inside, everything gets values. ``env.example`` lists the same.
Durations and seconds are floats in seconds here, whatever they are written as.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    SettingsConfigDict,
)

from booking_worker.domain.errors import InvalidSettings

_UNITS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(h|ms|m|s)")
_ENDPOINT = re.compile(r"(?:dns:(?:///)?)?(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.%a-z]+\]):([0-9]{1,5})")
_MAX_PORT = 65_535
_HIDDEN = "********"

Source = Literal["default", ".env", "environment", "command line"]


def parse_duration(text: str) -> float:
    """Seconds of a Go-style duration such as ``30s``, ``1h30m`` or ``100ms``.

    Raises:
        ValueError: it is none.
    """
    total, at = 0.0, 0
    for part in _DURATION_PART.finditer(text):
        if part.start() != at:
            break
        total += float(part[1]) * _UNITS[part[2]]
        at = part.end()
    if at == 0 or at != len(text):
        raise ValueError(text)
    return total


def format_duration(seconds: float) -> str:
    """A duration as :func:`parse_duration` reads it: ``1h30m``, ``5s``, ``100ms``."""
    milliseconds = round(seconds * 1000)
    parts = []
    for unit, size in (("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)):
        count, milliseconds = divmod(milliseconds, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


@dataclass(frozen=True, slots=True)
class _Takes:
    """What a variable takes, for the message about a wrong one."""

    text: str


class _GoStyle:
    """Marks a field that is written as a Go-style duration."""


def _duration(value: object) -> object:
    return parse_duration(value.strip()) if isinstance(value, str) else value


def _lower(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


def _endpoint(value: str) -> str:
    if value.startswith("unix:") and len(value) > len("unix:"):
        return value
    found = _ENDPOINT.fullmatch(value)
    if not found or not 0 < int(found[1]) <= _MAX_PORT:
        raise ValueError(value)
    return value


def _endpoint_or_none(value: str) -> str:
    return _endpoint(value) if value else value


def _empty_is_none(value: object) -> object:
    return None if value == "" else value


def _readable_file(path: Path | None) -> Path | None:
    if path is not None and not (path.is_file() and os.access(path, os.R_OK)):
        raise ValueError(path)
    return path


_Port = Annotated[
    int, Field(ge=0, le=_MAX_PORT), _Takes("a port from 1 to 65535, or 0 for any free one")
]
_Count = Annotated[int, Field(ge=1, le=10**9), _Takes("a whole number of at least 1")]
_CountOrNone = Annotated[int, Field(ge=0, le=10**9), _Takes("a whole number of at least 0")]
_Seconds = Annotated[
    float,
    Field(gt=0, le=10**9, allow_inf_nan=False),
    _Takes("seconds greater than 0, such as 900 or 0.5"),
]
_SecondsOrNone = Annotated[
    float, Field(ge=0, le=10**9, allow_inf_nan=False), _Takes("seconds of at least 0, such as 60")
]
_Duration = Annotated[
    float,
    BeforeValidator(_duration),
    Field(gt=0, le=10**9, allow_inf_nan=False),
    _Takes("a duration greater than 0, such as 30s, 5m, 1h30m or 100ms"),
    _GoStyle(),
]
_Endpoint = Annotated[
    str,
    AfterValidator(_endpoint),
    _Takes("the host:port of a gRPC service, such as localhost:50058, or unix:/path"),
]
_EndpointOrNone = Annotated[
    str,
    AfterValidator(_endpoint_or_none),
    _Takes("the host:port of a gRPC service, unix:/path, or nothing when there is none"),
]
_FileOrNone = Annotated[
    Path | None,
    BeforeValidator(_empty_is_none),
    AfterValidator(_readable_file),
    _Takes("a PEM file that can be read, or nothing"),
]


class Settings(BaseSettings):
    """All settings. The variable is the field's name in capitals; its docstring explains it."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_file_encoding="utf-8",
        extra="ignore",
        frozen=True,
        use_attribute_docstrings=True,
    )

    engine: Annotated[
        Literal["embedded"],
        BeforeValidator(_lower),
        _Takes("embedded (redis and kafka are not built yet)"),
    ] = "embedded"
    """Where the engine comes from: embedded starts a Valkey server of its own."""
    data_dir: Annotated[Path, _Takes("a directory")] = Path("data")
    """The directory of the embedded engine's append-only file; one service at a time."""
    engine_fsync: Annotated[
        Literal["always", "everysec"], BeforeValidator(_lower), _Takes("always or everysec")
    ] = "always"
    """When it syncs to disk: always before it answers; everysec may lose two seconds of joins."""

    grpc_port: _Port = 50059
    """The port of the gRPC service; 0 is any free one."""
    grpc_transport: Annotated[
        Literal["auto", "native", "grpcio"],
        BeforeValidator(_lower),
        _Takes("auto, native or grpcio"),
    ] = "auto"
    """The gRPC server: native (pygrpc-native, fast), grpcio, or auto (native without TLS)."""
    grpc_tls_cert: _FileOrNone = None
    """The PEM file with the server's certificate chain; nothing means no TLS."""
    grpc_tls_key: _FileOrNone = None
    """The PEM file with the private key of GRPC_TLS_CERT."""
    grpc_tls_client_ca: _FileOrNone = None
    """The PEM file with the CA that clients' certificates must come from; nothing: any client."""
    grpc_booking_service_endpoint: _Endpoint = "localhost:50058"
    """The Booking Service: creates, confirms and cancels bookings."""
    grpc_ticket_service_endpoint: _EndpointOrNone = "localhost:50054"
    """The Ticket Service: how many are left; nothing: the Booking Service alone judges."""
    grpc_realtime_service_endpoint: _EndpointOrNone = "localhost:50060"
    """The Realtime Service: tells the client; nothing: nobody is told this way."""
    http_port: _Port = 8080
    """The port of the health checks over HTTP; 0 is any free one."""

    queue_max_size: _Count = 100_000
    """How many may wait in the line of one event."""
    queue_timeout_seconds: _Seconds = 900
    """How long an item may wait before it is expired, in seconds."""
    queue_cleanup_interval: _Duration = 30
    """How often the timeout handler sweeps everything; a passed deadline is acted on sooner."""
    queue_places_per_user: _Count = 1
    """How many live places one user may have in the line of one event."""
    queue_max_seats: _Count = 10
    """How many seats one item may ask for."""

    payment_timeout_seconds: _Seconds = 600
    """How long a hold waits for its payment, in seconds, unless its booking ends earlier."""
    payment_grace_seconds: _SecondsOrNone = 60
    """How much longer, once, when the payment is in progress at the end of a hold, in seconds."""
    result_ttl_seconds: _Seconds = 86_400
    """How long a final item stays readable, in seconds."""

    worker_pool_size: _Count = 10
    """How many tasks are worked on at the same time."""
    worker_max_retries: _CountOrNone = 3
    """How often a task is tried again after a transient failure before it is a dead letter."""
    worker_retry_interval: _Duration = 5
    """The base of the exponential backoff between tries."""
    worker_lease_seconds: _Seconds = 30
    """How long a worker may be silent before its task goes to another, in seconds."""
    peer_timeout_seconds: _Seconds = 5
    """The deadline of each call to another service, in seconds."""
    capacity_refresh_seconds: _Seconds = 5
    """How often the Ticket Service is asked what is left, in seconds."""
    shutdown_grace_seconds: _SecondsOrNone = 20
    """How long a stop waits for the work in hand before it is handed back, in seconds."""

    metrics_enabled: Annotated[bool, _Takes("true or false")] = True
    """Whether Prometheus metrics are served."""
    metrics_port: _Port = 9091
    """The port of /metrics; 0 is any free one."""
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        BeforeValidator(_lower),
        _Takes("debug, info, warning or error"),
    ] = "info"
    """What is logged, on standard error; one line per item at debug."""
    log_format: Annotated[
        Literal["json", "console"], BeforeValidator(_lower), _Takes("json or console")
    ] = "json"
    """How it is logged: json for machines, console for people."""
    audit_log: Annotated[str, Field(min_length=1), _Takes("stdout, off, or the path of a file")] = (
        "stdout"
    )
    """Where every change of status is written as a JSON line: stdout, a path, or off."""

    _sources: dict[str, Source] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        problems = [*self._tls_problems(), *self._port_problems()]
        if problems:
            raise InvalidSettings(problems)
        return self

    def _tls_problems(self) -> list[str]:
        problems = []
        if self.grpc_tls_cert and not self.grpc_tls_key:
            problems.append("GRPC_TLS_KEY: got nothing, takes the private key of GRPC_TLS_CERT")
        if self.grpc_tls_key and not self.grpc_tls_cert:
            problems.append("GRPC_TLS_CERT: got nothing, takes the certificate of GRPC_TLS_KEY")
        if self.grpc_tls_client_ca and not (self.grpc_tls_cert or self.grpc_tls_key):
            problems.append(
                "GRPC_TLS_CERT: got nothing, takes a certificate (with GRPC_TLS_KEY),"
                " as GRPC_TLS_CLIENT_CA needs TLS"
            )
        if self.grpc_tls_cert and self.grpc_transport == "native":
            problems.append(
                "GRPC_TRANSPORT: got 'native', takes auto or grpcio together with GRPC_TLS_CERT,"
                " as the native transport has no TLS"
            )
        return problems

    def _port_problems(self) -> list[str]:
        ports = {"GRPC_PORT": self.grpc_port, "HTTP_PORT": self.http_port}
        if self.metrics_enabled:
            ports["METRICS_PORT"] = self.metrics_port
        taken: dict[int, str] = {}
        problems = []
        for name, port in ports.items():
            if port in taken:
                problems.append(f"{name}: got {port}, takes another port than {taken[port]}")
            elif port:
                taken[port] = name
        return problems


def load(env_file: Path = Path(".env"), overrides: Mapping[str, object] | None = None) -> Settings:
    """The settings from defaults, ``env_file``, the environment and overrides, the last wins.

    ``overrides`` go by the names of the fields: what a command line said.

    Raises:
        InvalidSettings: a value is wrong; every wrong one is named.
    """
    given = dict(overrides or {})
    try:
        written = DotEnvSettingsSource(Settings, env_file=env_file)()
        environment = EnvSettingsSource(Settings)()
        settings = Settings(_env_file=env_file, **given)  # type: ignore[arg-type]
    except ValidationError as error:
        raise InvalidSettings(_problem(one) for one in error.errors()) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSettings([f"{env_file}: cannot be read: {error}"]) from None
    layers: tuple[tuple[Source, Mapping[str, Any]], ...] = (
        (".env", written),
        ("environment", environment),
        ("command line", given),
    )
    for source, values in layers:
        settings._sources.update(dict.fromkeys(values, source))  # noqa: SLF001 - set here only
    return settings


def _problem(error: Mapping[str, Any]) -> str:
    field = str(error["loc"][0])
    takes = next(
        note.text for note in Settings.model_fields[field].metadata if isinstance(note, _Takes)
    )
    got = error["input"]
    shown = got if isinstance(got, int | float) else repr(str(got))
    return f"{field.upper()}: got {shown}, takes {takes}"


@dataclass(frozen=True, slots=True)
class Explained:
    """One setting, for people."""

    name: str
    """The variable."""
    value: str
    """As it would be written in ``.env``; stars for a secret."""
    source: Source
    explanation: str


def explain(settings: Settings) -> list[Explained]:
    """Every setting with its value, where that came from, and what it is for; secrets hidden."""
    return [
        Explained(
            name=name.upper(),
            value=_written(getattr(settings, name), field.metadata),
            source=settings._sources.get(name, "default"),  # noqa: SLF001 - set by load()
            explanation=" ".join((field.description or "").split()),
        )
        for name, field in type(settings).model_fields.items()
    ]


def _written(value: object, notes: list[Any]) -> str:
    if value is None:
        return ""
    if isinstance(value, SecretStr):
        return _HIDDEN if value.get_secret_value() else ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        if any(isinstance(note, _GoStyle) for note in notes):
            return format_duration(value)
        return str(int(value)) if math.floor(value) == value else str(value)
    return str(value)
