from __future__ import annotations

from pathlib import Path

import pytest

from booking_worker.config import Settings, explain, load
from booking_worker.domain.errors import InvalidSettings

NAMES = [name.upper() for name in Settings.model_fields]


def problems(**overrides: object) -> tuple[str, ...]:
    with pytest.raises(InvalidSettings) as caught:
        load(overrides=overrides)
    return caught.value.problems


def test_the_defaults_are_the_designs():
    settings = load()
    assert settings.engine == "embedded"
    assert settings.data_dir == Path("data")
    assert settings.engine_fsync == "always"
    assert (settings.grpc_port, settings.http_port, settings.metrics_port) == (50059, 8080, 9091)
    assert settings.grpc_transport == "auto"
    assert (settings.redis_host, settings.redis_port, settings.redis_database) == (
        "localhost",
        6379,
        0,
    )
    assert (settings.redis_username, settings.redis_password.get_secret_value()) == ("", "")
    assert (settings.redis_strict, settings.redis_tls, settings.redis_cluster) == (
        True,
        False,
        False,
    )
    assert (settings.redis_sentinels, settings.redis_lock_nodes) == ((), ())
    assert (settings.redis_wait_replicas, settings.redis_wait_aof) == (0, False)
    assert settings.grpc_tls_cert is None
    assert settings.grpc_booking_service_endpoint == "localhost:50058"
    assert settings.grpc_ticket_service_endpoint == "localhost:50054"
    assert settings.grpc_realtime_service_endpoint == "localhost:50060"
    assert (settings.queue_max_size, settings.queue_timeout_seconds) == (100_000, 900)
    assert settings.queue_cleanup_interval == 30
    assert (settings.queue_places_per_user, settings.queue_max_seats) == (1, 10)
    assert (settings.payment_timeout_seconds, settings.payment_grace_seconds) == (600, 60)
    assert settings.result_ttl_seconds == 86_400
    assert (settings.worker_pool_size, settings.worker_max_retries) == (10, 3)
    assert (settings.worker_retry_interval, settings.worker_lease_seconds) == (5, 30)
    assert settings.capacity_refresh_seconds == 5
    assert settings.metrics_enabled is True
    assert (settings.log_level, settings.log_format, settings.audit_log) == (
        "info",
        "json",
        "stdout",
    )


@pytest.mark.parametrize(
    "name, value, read",
    [
        ("QUEUE_CLEANUP_INTERVAL", " 1m ", 60.0),
        ("WORKER_RETRY_INTERVAL", "10ms", 0.01),
        ("WORKER_LEASE_SECONDS", "5.5", 5.5),
        ("ENGINE", "Redis", "redis"),
        ("REDIS_CLUSTER", "true", True),
        ("REDIS_SENTINELS", "", ()),
        ("REDIS_LOCK_NODES", "one:1, [::1]:2", (("one", 1), ("::1", 2))),
        ("PAYMENT_GRACE_SECONDS", "0", 0.0),
        ("WORKER_MAX_RETRIES", "0", 0),
        ("GRPC_PORT", "0", 0),
        ("GRPC_TRANSPORT", "Native", "native"),
        ("LOG_LEVEL", "WARNING", "warning"),
        ("METRICS_ENABLED", "false", False),
        ("DATA_DIR", "/var/lib/booking", Path("/var/lib/booking")),
        ("GRPC_TICKET_SERVICE_ENDPOINT", "", ""),
        ("GRPC_REALTIME_SERVICE_ENDPOINT", "", ""),
        ("GRPC_BOOKING_SERVICE_ENDPOINT", "unix:/run/booking.sock", "unix:/run/booking.sock"),
        ("GRPC_BOOKING_SERVICE_ENDPOINT", "[::1]:50058", "[::1]:50058"),
        ("GRPC_BOOKING_SERVICE_ENDPOINT", "dns:///booking.svc:50058", "dns:///booking.svc:50058"),
        ("GRPC_TLS_CERT", "", None),
        ("AUDIT_LOG", "/tmp/audit.jsonl", "/tmp/audit.jsonl"),
    ],
)
def test_a_value_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, read: object
):
    monkeypatch.setenv(name, value)
    got = getattr(load(), name.lower())
    assert got == read
    assert type(got) is type(read) or isinstance(got, Path)


@pytest.mark.parametrize(
    "name, value, takes",
    [
        ("ENGINE", "kafka", "embedded or redis (kafka is not built yet)"),
        ("REDIS_HOST", "", "a host, such as localhost"),
        ("REDIS_PORT", "0", "a port from 1 to 65535"),
        ("REDIS_DATABASE", "-1", "a whole number of at least 0"),
        ("REDIS_TLS", "perhaps", "true or false"),
        ("REDIS_TLS_CA", "/no/such/file", "a PEM file that can be read, or nothing"),
        ("REDIS_SENTINELS", "one", "host:port, several with commas between them, or nothing"),
        ("REDIS_SENTINELS", "one:1,,two:2", "host:port, several with commas between them, or nothing"),
        ("REDIS_LOCK_NODES", "one:99999", "host:port, several with commas between them, or nothing"),
        ("REDIS_WAIT_REPLICAS", "all", "a whole number of at least 0"),
        ("ENGINE_FSYNC", "never", "always or everysec"),
        ("GRPC_PORT", "65536", "a port from 1 to 65535, or 0 for any free one"),
        ("GRPC_PORT", "-1", "a port from 1 to 65535, or 0 for any free one"),
        ("HTTP_PORT", "http", "a port from 1 to 65535, or 0 for any free one"),
        ("METRICS_PORT", "", "a port from 1 to 65535, or 0 for any free one"),
        ("GRPC_TRANSPORT", "quic", "auto, native or grpcio"),
        ("GRPC_TLS_CERT", "/no/such/file", "a PEM file that can be read, or nothing"),
        ("GRPC_BOOKING_SERVICE_ENDPOINT", "", "the host:port of a gRPC service, such as localhost:50058, or unix:/path"),
        ("GRPC_BOOKING_SERVICE_ENDPOINT", "http://x:1", "the host:port of a gRPC service, such as localhost:50058, or unix:/path"),
        ("GRPC_BOOKING_SERVICE_ENDPOINT", "host", "the host:port of a gRPC service, such as localhost:50058, or unix:/path"),
        ("GRPC_BOOKING_SERVICE_ENDPOINT", "unix:", "the host:port of a gRPC service, such as localhost:50058, or unix:/path"),
        ("GRPC_TICKET_SERVICE_ENDPOINT", "host:0", "the host:port of a gRPC service, unix:/path, or nothing when there is none"),
        ("GRPC_REALTIME_SERVICE_ENDPOINT", "host:99999", "the host:port of a gRPC service, unix:/path, or nothing when there is none"),
        ("QUEUE_MAX_SIZE", "0", "a whole number of at least 1"),
        ("QUEUE_MAX_SIZE", "many", "a whole number of at least 1"),
        ("QUEUE_MAX_SIZE", "1.5", "a whole number of at least 1"),
        ("QUEUE_TIMEOUT_SECONDS", "15m", "seconds greater than 0, such as 900 or 0.5"),
        ("QUEUE_TIMEOUT_SECONDS", "nan", "seconds greater than 0, such as 900 or 0.5"),
        ("QUEUE_TIMEOUT_SECONDS", "inf", "seconds greater than 0, such as 900 or 0.5"),
        ("PAYMENT_TIMEOUT_SECONDS", "0", "seconds greater than 0, such as 900 or 0.5"),
        ("PAYMENT_GRACE_SECONDS", "-1", "seconds of at least 0, such as 60"),
        ("QUEUE_CLEANUP_INTERVAL", "30", "a duration greater than 0, such as 30s, 5m, 1h30m or 100ms"),
        ("QUEUE_CLEANUP_INTERVAL", "0s", "a duration greater than 0, such as 30s, 5m, 1h30m or 100ms"),
        ("WORKER_RETRY_INTERVAL", "soon", "a duration greater than 0, such as 30s, 5m, 1h30m or 100ms"),
        ("WORKER_POOL_SIZE", "0", "a whole number from 1 to 10000"),
        ("WORKER_POOL_SIZE", "10001", "a whole number from 1 to 10000"),
        ("WORKER_MAX_RETRIES", "-1", "a whole number of at least 0"),
        ("METRICS_ENABLED", "perhaps", "true or false"),
        ("LOG_LEVEL", "loud", "debug, info, warning or error"),
        ("LOG_FORMAT", "xml", "json or console"),
        ("AUDIT_LOG", "", "stdout, off, or the path of a file"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named_with_what_it_got_and_what_it_takes(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, takes: str
):
    monkeypatch.setenv(name, value)
    assert problems() == (f"{name}: got {value!r}, takes {takes}",)


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_says_what_it_takes(name: str):
    assert [
        problem
        for problem in problems(**{name.lower(): object()})
        if problem.startswith(f"{name}: got ")
    ]


def test_every_wrong_value_is_told_at_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("QUEUE_MAX_SIZE", "many")
    monkeypatch.setenv("LOG_LEVEL", "loud")
    assert len(problems()) == 2


def test_a_number_is_shown_as_a_number():
    assert problems(grpc_port=70_000)[0].startswith("GRPC_PORT: got 70000, takes")


@pytest.fixture
def pem(tmp_path: Path) -> str:
    path = tmp_path / "some.pem"
    path.write_text("PEM")
    return str(path)


def test_tls_needs_certificate_and_key(pem: str):
    assert problems(grpc_tls_cert=pem) == (
        "GRPC_TLS_KEY: got nothing, takes the private key of GRPC_TLS_CERT",
    )
    assert problems(grpc_tls_key=pem) == (
        "GRPC_TLS_CERT: got nothing, takes the certificate of GRPC_TLS_KEY",
    )
    (problem,) = problems(grpc_tls_client_ca=pem)
    assert problem.startswith("GRPC_TLS_CERT: got nothing")
    assert load(overrides={"grpc_tls_cert": pem, "grpc_tls_key": pem}).grpc_tls_cert == Path(pem)


def test_what_a_cluster_cannot_have():
    assert problems(redis_cluster=True, redis_database=1) == (
        "REDIS_DATABASE: got 1, takes 0 together with REDIS_CLUSTER",
    )
    (problem,) = problems(
        redis_cluster=True, redis_sentinels="one:1", redis_sentinel_master="bookings"
    )
    assert problem.startswith("REDIS_SENTINELS: got some, takes nothing together")


def test_sentinels_and_their_master_need_one_another():
    (problem,) = problems(redis_sentinels="one:1")
    assert problem.startswith("REDIS_SENTINEL_MASTER: got nothing, takes the name")
    (problem,) = problems(redis_sentinel_master="bookings")
    assert problem.startswith("REDIS_SENTINELS: got nothing, takes the sentinels")
    load(overrides={"redis_sentinels": "one:1", "redis_sentinel_master": "bookings"})


def test_files_for_tls_need_tls(pem: str):
    assert problems(redis_tls_ca=pem) == (
        "REDIS_TLS: got false, takes true together with REDIS_TLS_CA",
    )
    assert problems(redis_tls=True, redis_tls_cert=pem) == (
        "REDIS_TLS_KEY: got nothing, takes the private key of REDIS_TLS_CERT",
    )
    assert problems(redis_tls=True, redis_tls_key=pem) == (
        "REDIS_TLS_CERT: got nothing, takes the certificate of REDIS_TLS_KEY",
    )
    load(overrides={"redis_tls": True, "redis_tls_cert": pem, "redis_tls_key": pem})


def test_a_lease_outlasts_a_call_to_a_service():
    assert problems(worker_lease_seconds=5.4) == (
        "WORKER_LEASE_SECONDS: got 5.4, takes at least 5.5 together with PEER_TIMEOUT_SECONDS=5",
    )
    load(overrides={"worker_lease_seconds": 1, "peer_timeout_seconds": 0.5})


def test_the_native_transport_has_no_tls(pem: str):
    (problem,) = problems(grpc_tls_cert=pem, grpc_tls_key=pem, grpc_transport="native")
    assert problem.startswith("GRPC_TRANSPORT: got 'native', takes auto or grpcio")


def test_two_servers_cannot_have_one_port():
    assert problems(http_port=50059) == ("HTTP_PORT: got 50059, takes another port than GRPC_PORT",)
    assert problems(metrics_port=8080) == (
        "METRICS_PORT: got 8080, takes another port than HTTP_PORT",
    )
    load(overrides={"metrics_port": 8080, "metrics_enabled": False})
    load(overrides={"grpc_port": 0, "http_port": 0, "metrics_port": 0})


def test_the_environment_wins_over_the_file_and_the_command_line_over_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / ".env").write_text(
        "QUEUE_MAX_SIZE=1\nQUEUE_MAX_SEATS=1\nWORKER_POOL_SIZE=1\nSOMEONE_ELSES=1\n# LOG_LEVEL=debug\n"
    )
    monkeypatch.setenv("QUEUE_MAX_SEATS", "2")
    monkeypatch.setenv("WORKER_POOL_SIZE", "2")
    settings = load(overrides={"worker_pool_size": 3})
    assert (settings.queue_max_size, settings.queue_max_seats, settings.worker_pool_size) == (
        1,
        2,
        3,
    )
    sources = {one.name: one.source for one in explain(settings)}
    assert sources["QUEUE_MAX_SIZE"] == ".env"
    assert sources["QUEUE_MAX_SEATS"] == "environment"
    assert sources["WORKER_POOL_SIZE"] == "command line"
    assert sources["LOG_LEVEL"] == "default"
    assert set(sources) == set(NAMES)


def test_another_file_than_dot_env(tmp_path: Path):
    (tmp_path / "prod.env").write_text("LOG_LEVEL=error\n")
    assert load(tmp_path / "prod.env").log_level == "error"
    assert load().log_level == "info"


def test_a_wrong_value_in_the_file_is_told_like_any_other(tmp_path: Path):
    (tmp_path / ".env").write_text("GRPC_PORT=grpc\n")
    assert problems() == (
        "GRPC_PORT: got 'grpc', takes a port from 1 to 65535, or 0 for any free one",
    )


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path):
    (tmp_path / ".env").write_bytes(b"LOG_LEVEL=\xff\n")
    (problem,) = problems()
    assert problem.startswith(".env: cannot be read: ")


def test_settings_do_not_change():
    with pytest.raises(ValueError, match="frozen"):
        load().grpc_port = 1  # type: ignore[misc]
