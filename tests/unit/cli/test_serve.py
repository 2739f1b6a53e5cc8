"""The service as people start it: in a process of its own."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import pytest

from booking_worker.cli import serve
from booking_worker.proto import booking_worker_pb2, booking_worker_pb2_grpc
from tests.support.engines import EXTERNAL_ENGINES, STANDALONE, Engines, ServersKind, settings_of
from tests.support.processes import child_environment, needs_proc, processes_in
from tests.support.server import free_port
from tests.support.wait import wait_until
from tests.unit.cli.conftest import Command

STARTS_WITHIN = 25
DEV_SH = Path(__file__).parents[3] / "scripts" / "dev.sh"

Environment: TypeAlias = dict[str, str]


class Running:
    """A ``booking-worker`` process with its output in two files."""

    def __init__(
        self,
        environment: Environment,
        directory: Path,
        *arguments: str,
        ready: str = "ready.json",
        **settings: str,
    ) -> None:
        self._ready = directory / ready
        self._files = (directory / "out").open("wb"), (directory / "err").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "booking_worker", *arguments, "--ready-file", ready],
            cwd=directory,
            env={**environment, **settings},
            stdout=self._files[0],
            stderr=self._files[1],
        )
        self._directory = directory

    def facts(self) -> dict[str, Any]:
        """What it wrote when it was ready."""
        deadline = time.monotonic() + STARTS_WITHIN
        while not self._ready.exists():
            assert self.process.poll() is None, self.err
            assert time.monotonic() < deadline, self.err
            time.sleep(0.02)
        facts: dict[str, Any] = json.loads(self._ready.read_text())
        return facts

    @property
    def out(self) -> str:
        return (self._directory / "out").read_text()

    @property
    def err(self) -> str:
        return (self._directory / "err").read_text()

    def end(self, number: int = signal.SIGTERM) -> int:
        """Its exit code, once it has ended."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(20)
        finally:
            self.process.kill()
            self.process.wait()
            for file in self._files:
                file.close()


def free_ports() -> dict[str, str]:
    """For the service and its sandbox, which stands where the settings say."""
    return {
        "GRPC_PORT": "0",
        "HTTP_PORT": "0",
        "METRICS_PORT": "0",
        "GRPC_BOOKING_SERVICE_ENDPOINT": f"localhost:{free_port()}",
        "GRPC_TICKET_SERVICE_ENDPOINT": f"localhost:{free_port()}",
        "GRPC_REALTIME_SERVICE_ENDPOINT": f"localhost:{free_port()}",
    }


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return child_environment(tmp_path_factory)


@pytest.fixture(scope="module")
def service(
    environment: Environment, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    """One service with its sandbox for the module: starting it is what takes time."""
    directory = tmp_path_factory.mktemp("service")
    running = Running(environment, directory, "serve", "--sandbox", **free_ports())
    try:
        running.facts()
        yield running
    finally:
        code = running.end()
    assert code == 0, running.err


def test_it_says_where_everything_is_and_what_to_try(service: Running):
    facts = service.facts()
    assert facts["pid"] == service.process.pid
    at = f"localhost:{facts['grpc_port']}"
    for text in (
        at,
        f"http://localhost:{facts['http_port']}/healthz",
        f"http://localhost:{facts['metrics_port']}/metrics",
        facts["data_dir"],
        f"  {sys.executable} -m booking_worker queue status --address {at}",
        "grpcurl -plaintext",
        "the last three are the sandbox's stand-ins",
    ):
        assert text in service.err


def test_the_join_that_it_says_to_try_needs_nothing_but_python(
    service: Running, environment: Environment, tmp_path: Path
):
    service.facts()
    shown = re.search(r"^  \S+ -c '.+?'$", service.err, re.MULTILINE | re.DOTALL)
    assert shown, service.err
    ran = subprocess.run(
        ["/bin/sh", "-c", shown[0]],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "success: true" in ran.stdout


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `booking-worker` below the directory that this process is in."""
    made = tmp_path / "my env" / "booking-worker"
    made.parent.mkdir()
    made.touch(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BOOKING_WORKER_CALLED_AS", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", [str(made), "serve"])
    return made


def test_it_is_called_as_whoever_started_it_says(program: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BOOKING_WORKER_CALLED_AS", "./scripts/dev.sh")
    assert serve._called_as() == "./scripts/dev.sh"
    assert "export BOOKING_WORKER_CALLED_AS=./scripts/dev.sh" in DEV_SH.read_text()


def test_it_is_called_by_its_name_where_that_is_on_the_path(
    program: Path, monkeypatch: pytest.MonkeyPatch
):
    assert serve._called_as() == "'./my env/booking-worker'"
    monkeypatch.setenv("PATH", str(program.parent))
    assert serve._called_as() == "booking-worker"


def test_it_is_called_by_its_path_where_another_is_on_the_path(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "booking-worker").touch(0o755)
    assert serve._called_as() == "'./my env/booking-worker'"
    monkeypatch.chdir(program.parent)
    assert serve._called_as() == "./booking-worker"


def test_it_is_called_as_a_module_where_it_was_started_so(
    program: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys, "argv", ["/somewhere/booking_worker/__main__.py", "serve"])
    monkeypatch.setattr(sys, "executable", "/somewhere/bin/python")
    assert serve._called_as() == "/somewhere/bin/python -m booking_worker"


def join(service: Running, user_id: str) -> str:
    """Where the service is, once this user has joined there."""
    address = f"localhost:{service.facts()['grpc_port']}"
    with grpc.insecure_channel(address) as channel:
        stub = booking_worker_pb2_grpc.BookingWorkerServiceStub(channel)
        request = booking_worker_pb2.EnqueueBookingRequest(
            user_id=user_id, event_id="concert", seat_count=2
        )
        assert stub.EnqueueBooking(request).success
    return address


def test_what_it_says_to_try_works(service: Running, command: Command):
    address = join(service, "ann")
    status = command("queue", "status", "concert", "--json", "--address", address)
    assert status.json["joined"] >= 1
    assert command("check", "--address", address).code == 0


async def test_standard_output_is_the_audit_logs_alone(service: Running):
    join(service, "bob")
    await wait_until(lambda: "user:bob" in service.out)
    assert all("change_id" in json.loads(line) for line in service.out.splitlines())


def test_a_second_one_on_the_same_data_is_told_without_a_traceback(
    service: Running, environment: Environment, tmp_path: Path
):
    data_dir = service.facts()["data_dir"]
    second = Running(
        environment, tmp_path, "serve", DATA_DIR=data_dir, GRPC_PORT="0", HTTP_PORT="0"
    )
    assert second.process.wait(STARTS_WITHIN) == 1
    second.end()
    assert f"DATA_DIR {data_dir} is in use by another service" in second.err
    assert "Traceback" not in second.err


@needs_proc
@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_ready_file_that_cannot_be_written_leaves_nothing_running(
    environment: Environment, tmp_path: Path, processes: str
):
    arguments = ("serve", "--sandbox", "--processes", processes)
    service = Running(environment, tmp_path, *arguments, ready="no/such/file", **free_ports())
    assert service.process.wait(STARTS_WITHIN) == 1
    service.end()
    assert "Error: --ready-file no/such/file cannot be written" in service.err
    assert "Traceback" not in service.err
    assert processes_in(tmp_path) == []


@needs_proc
@pytest.mark.parametrize("processes", ["1", "2"])
async def test_told_twice_it_ends_at_once_and_so_does_its_engine(
    environment: Environment, tmp_path: Path, processes: str
):
    settings = free_ports() | {"SHUTDOWN_GRACE_SECONDS": "60", "PEER_TIMEOUT_SECONDS": "25"}
    arguments = ("serve", "--processes", processes)
    with socket.create_server(("localhost", 0)) as silent:
        endpoint = f"localhost:{silent.getsockname()[1]}"
        settings["GRPC_BOOKING_SERVICE_ENDPOINT"] = endpoint
        settings["GRPC_TICKET_SERVICE_ENDPOINT"] = ""
        service = Running(environment, tmp_path, *arguments, **settings)
        join(service, "ann")  # which waits for a Booking Service that does not answer
        await wait_until(lambda: '"processing"' in service.out)
        service.process.send_signal(signal.SIGTERM)
        await wait_until(lambda: '"stopping"' in service.err)
        service.process.send_signal(signal.SIGINT)
        assert service.process.wait(STARTS_WITHIN) == 128 + signal.SIGINT
    service.end()
    await wait_until(lambda: not processes_in(tmp_path))


def test_a_port_that_is_taken_is_told_by_the_settings_name(
    service: Running, environment: Environment, tmp_path: Path
):
    port = str(service.facts()["http_port"])
    second = Running(
        environment, tmp_path, "serve", GRPC_PORT="0", METRICS_PORT="0", HTTP_PORT=port
    )
    assert second.process.wait(STARTS_WITHIN) == 2
    second.end()
    assert f"Error: HTTP_PORT: got {port}" in second.err
    assert "Traceback" not in second.err


@pytest.mark.parametrize("kind", EXTERNAL_ENGINES, ids=lambda kind: kind.name)
def test_on_servers_of_ones_own_it_says_what_may_be_lost(
    engines: Engines,
    kind: ServersKind,
    environment: Environment,
    tmp_path: Path,
    command: Command,
):
    settings = settings_of(engines.get(kind).made) | free_ports() | {"REDIS_STRICT": "false"}
    service = Running(environment, tmp_path, "serve", "--sandbox", **settings)
    try:
        address = join(service, "ann")
        status = command("queue", "status", "concert", "--json", "--address", address)
        health = command("check", "--json", "--address", address)
    finally:
        code = service.end()
    assert code == 0, service.err
    assert status.json["joined"] >= 1
    assert "loss at a crash: everything, whenever the engine ends" in service.err
    (durability,) = (one for one in health.json["findings"] if one["about"] == "durability")
    assert durability["grade"] == "wrong"
    assert "set appendonly yes" in durability["says"]


def test_a_server_that_keeps_nothing_is_refused(
    engines: Engines, environment: Environment, tmp_path: Path
):
    settings = settings_of(engines.get(STANDALONE).made) | free_ports()
    service = Running(environment, tmp_path, "serve", "--sandbox", **settings)
    assert service.process.wait(STARTS_WITHIN) == 1
    service.end()
    assert "set appendonly yes" in service.err
    assert "or set REDIS_STRICT=false" in service.err
    assert "Traceback" not in service.err


def test_a_server_that_is_not_there_is_told_without_a_traceback(
    environment: Environment, tmp_path: Path
):
    settings = {"ENGINE": "redis", "REDIS_PORT": str(free_port())} | free_ports()
    service = Running(environment, tmp_path, "serve", "--sandbox", **settings)
    assert service.process.wait(STARTS_WITHIN) == 1
    service.end()
    assert "see REDIS_HOST, REDIS_PORT and REDIS_TLS" in service.err
    assert "Traceback" not in service.err


def test_the_sandbox_alone_says_where_it_is_and_keeps_its_ledger(
    environment: Environment, tmp_path: Path
):
    ports = ["--booking-port", "0", "--ticket-port", "0", "--realtime-port", "0"]
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    ledger = ["--ledger", str(tmp_path / "ledger.db")]
    first = Running(environment, tmp_path / "one", "sandbox", *ports, *ledger)
    try:
        facts = first.facts()
        second = Running(environment, tmp_path / "two", "sandbox", *ports, *ledger)
        assert second.process.wait(STARTS_WITHIN) == 1
        second.end()
    finally:
        assert first.end(signal.SIGINT) == 0
    assert all(facts[name] in first.out for name in ("booking", "ticket", "realtime"))
    assert "another sandbox is using" in second.err
    assert "Traceback" not in second.err
