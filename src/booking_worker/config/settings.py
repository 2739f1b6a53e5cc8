"""All settings, and how they are read.

Durations and seconds are floats in seconds here, whatever they are written as.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
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

from booking_worker.config.values import (
    Addresses,
    Count,
    CountOrNone,
    Duration,
    Endpoint,
    EndpointOrNone,
    FileOrNone,
    Port,
    Seconds,
    SecondsOrNone,
    ServerPort,
    Slots,
    Takes,
    Text,
    Truth,
    lower,
)
from booking_worker.domain.errors import InvalidSettings

Source = Literal["default", ".env", "environment", "command line"]

LEASE_MARGIN_SECONDS: Final = 0.5
"""What a lease must have left when a call to a service has met its deadline: time to say so."""


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
        Literal["embedded", "redis"],
        BeforeValidator(lower),
        Takes("embedded or redis (kafka is not built yet)"),
    ] = "embedded"
    """Where the engine comes from: embedded starts a Valkey server of its own; redis: yours."""
    data_dir: Annotated[Path, Takes("a directory")] = Path("data")
    """The directory of the embedded engine's append-only file; one service at a time."""
    engine_fsync: Annotated[
        Literal["always", "everysec"], BeforeValidator(lower), Takes("always or everysec")
    ] = "always"
    """When it syncs to disk: always before it answers; everysec may lose two seconds of joins."""

    redis_host: Annotated[str, Field(min_length=1), Takes("a host, such as localhost")] = (
        "localhost"
    )
    """The host of the Redis or Valkey server; with REDIS_CLUSTER, of any node of the Cluster."""
    redis_port: ServerPort = 6379
    """The port of REDIS_HOST."""
    redis_username: Text = ""
    """The ACL user; nothing: the default user."""
    redis_password: Annotated[SecretStr, Takes("a text, or nothing")] = SecretStr("")
    """The password of that user; nothing: none is asked for."""
    redis_database: CountOrNone = 0
    """The number of the database; a Cluster has only 0."""
    redis_tls: Truth = False
    """Whether the servers, and the sentinels, are spoken to by TLS; their names are checked."""
    redis_tls_ca: FileOrNone = None
    """The PEM file with the CA of the servers; nothing: the CAs that the system trusts."""
    redis_tls_cert: FileOrNone = None
    """The PEM file with the certificate that is shown to servers which ask for one."""
    redis_tls_key: FileOrNone = None
    """The PEM file with the private key of REDIS_TLS_CERT."""
    redis_cluster: Truth = False
    """Whether REDIS_HOST is a node of a Redis Cluster."""
    redis_sentinels: Addresses = ()
    """The sentinels, as host:port,host:port; they are asked where the master is."""
    redis_sentinel_master: Text = ""
    """The name by which the sentinels know the master."""
    redis_strict: Truth = True
    """Whether the start is refused on a server whose set-up breaks a promise; false: it warns."""
    redis_wait_replicas: CountOrNone = 0
    """How many replicas must have a join before it is acknowledged."""
    redis_wait_aof: Truth = False
    """Whether a join must also be on disk first: by WAITAOF, with appendfsync always."""
    redis_lock_nodes: Addresses = ()
    """The servers that elect the housekeeper, as host:port,host:port; nothing: the engine."""

    grpc_port: Port = 50059
    """The port of the gRPC service; 0 is any free one."""
    grpc_transport: Annotated[
        Literal["auto", "native", "grpcio"],
        BeforeValidator(lower),
        Takes("auto, native or grpcio"),
    ] = "auto"
    """The gRPC server: native (pygrpc-native, fast), grpcio, or auto (native without TLS)."""
    grpc_tls_cert: FileOrNone = None
    """The PEM file with the server's certificate chain; nothing means no TLS."""
    grpc_tls_key: FileOrNone = None
    """The PEM file with the private key of GRPC_TLS_CERT."""
    grpc_tls_client_ca: FileOrNone = None
    """The PEM file with the CA that clients' certificates must come from; nothing: any client."""
    grpc_booking_service_endpoint: Endpoint = "localhost:50058"
    """The Booking Service: creates, confirms and cancels bookings."""
    grpc_ticket_service_endpoint: EndpointOrNone = "localhost:50054"
    """The Ticket Service: how many are left; nothing: the Booking Service alone judges."""
    grpc_realtime_service_endpoint: EndpointOrNone = "localhost:50060"
    """The Realtime Service: tells the client; nothing: nobody is told this way."""
    http_port: Port = 8080
    """The port of the health checks over HTTP; 0 is any free one."""

    queue_max_size: Count = 100_000
    """How many may wait in the line of one event."""
    queue_timeout_seconds: Seconds = 900
    """How long an item may wait before it is expired, in seconds."""
    queue_cleanup_interval: Duration = 30
    """How often the timeout handler sweeps everything; a passed deadline is acted on sooner."""
    queue_places_per_user: Count = 1
    """How many live places one user may have in the line of one event."""
    queue_max_seats: Count = 10
    """How many seats one item may ask for."""

    payment_timeout_seconds: Seconds = 600
    """How long a hold waits for its payment, in seconds, unless its booking ends earlier."""
    payment_grace_seconds: SecondsOrNone = 60
    """How much longer, once, when the payment is in progress at the end of a hold, in seconds."""
    result_ttl_seconds: Seconds = 86_400
    """How long a final item stays readable, in seconds."""

    worker_pool_size: Slots = 10
    """How many tasks are worked on at the same time, by all processes together."""
    worker_max_retries: CountOrNone = 3
    """How often a task is tried again after a transient failure before it is a dead letter."""
    worker_retry_interval: Duration = 5
    """The base of the exponential backoff between tries."""
    worker_lease_seconds: Seconds = 30
    """How long a worker may be silent before its task goes to another, in seconds."""
    peer_timeout_seconds: Seconds = 5
    """The deadline of each call to another service, in seconds."""
    capacity_refresh_seconds: Seconds = 5
    """How often the Ticket Service is asked what is left, in seconds."""
    shutdown_grace_seconds: SecondsOrNone = 20
    """How long a stop waits for the work in hand before it is handed back, in seconds."""

    metrics_enabled: Truth = True
    """Whether Prometheus metrics are served."""
    metrics_port: Port = 9091
    """The port of /metrics; 0 is any free one."""
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        BeforeValidator(lower),
        Takes("debug, info, warning or error"),
    ] = "info"
    """What is logged, on standard error; one line per item at debug."""
    log_format: Annotated[
        Literal["json", "console"], BeforeValidator(lower), Takes("json or console")
    ] = "json"
    """How it is logged: json for machines, console for people."""
    audit_log: Annotated[str, Field(min_length=1), Takes("stdout, off, or the path of a file")] = (
        "stdout"
    )
    """Where every change of status is written as a JSON line: stdout, a path, or off."""

    _sources: dict[str, Source] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        problems = [
            *self._redis_problems(),
            *self._redis_tls_problems(),
            *self._tls_problems(),
            *self._port_problems(),
            *self._lease_problems(),
        ]
        if problems:
            raise InvalidSettings(problems)
        return self

    def _redis_problems(self) -> list[str]:
        problems = []
        if self.redis_cluster and self.redis_database:
            problems.append(
                f"REDIS_DATABASE: got {self.redis_database}, takes 0 together with REDIS_CLUSTER"
            )
        if self.redis_cluster and self.redis_sentinels:
            problems.append(
                "REDIS_SENTINELS: got some, takes nothing together with REDIS_CLUSTER,"
                " which elects its masters itself"
            )
        if self.redis_sentinels and not self.redis_sentinel_master:
            problems.append(
                "REDIS_SENTINEL_MASTER: got nothing, takes the name by which REDIS_SENTINELS"
                " know the master"
            )
        if self.redis_sentinel_master and not self.redis_sentinels:
            problems.append(
                "REDIS_SENTINELS: got nothing, takes the sentinels that know REDIS_SENTINEL_MASTER"
            )
        return problems

    def _redis_tls_problems(self) -> list[str]:
        files = ("redis_tls_ca", "redis_tls_cert", "redis_tls_key")
        problems = [
            f"REDIS_TLS: got false, takes true together with {name.upper()}"
            for name in files
            if getattr(self, name) and not self.redis_tls
        ]
        if self.redis_tls_cert and not self.redis_tls_key:
            problems.append("REDIS_TLS_KEY: got nothing, takes the private key of REDIS_TLS_CERT")
        if self.redis_tls_key and not self.redis_tls_cert:
            problems.append("REDIS_TLS_CERT: got nothing, takes the certificate of REDIS_TLS_KEY")
        return problems

    def _lease_problems(self) -> list[str]:
        # A worker extends its lease before each call; a call that outlasts it would be made
        # again by another worker, and each time count as a worker's death.
        least = self.peer_timeout_seconds + LEASE_MARGIN_SECONDS
        if self.worker_lease_seconds >= least:
            return []
        got = f"{self.worker_lease_seconds:g}"
        peer = f"PEER_TIMEOUT_SECONDS={self.peer_timeout_seconds:g}"
        return [f"WORKER_LEASE_SECONDS: got {got}, takes at least {least:g} together with {peer}"]

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
        note.text for note in Settings.model_fields[field].metadata if isinstance(note, Takes)
    )
    got = error["input"]
    shown = got if isinstance(got, int | float) else repr(str(got))
    return f"{field.upper()}: got {shown}, takes {takes}"
