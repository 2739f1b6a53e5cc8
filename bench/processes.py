"""The processes that a benchmark measures: each is started, used and ended here, by its id."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.load import read_messages, write_messages
from booking_worker.config import Settings

ROOT: Final = Path(__file__).parents[1]
SERVICE: Final = "/booking_worker.v1.BookingWorkerService/"
_READY_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 30.0
_SETTINGS: Final = frozenset(Settings.model_fields)


class BenchmarkError(Exception):
    """A process did not start, or calls failed: there is nothing to compare."""


@dataclass(frozen=True)
class Sandbox:
    """Running stand-in peers."""

    process: subprocess.Popen[str]
    booking: str
    ticket: str
    realtime: str

    def told(self, message_type: str) -> int:
        """How many messages of this type its Realtime Service has taken."""
        return int(_ask(self.process, f"told {message_type}"))

    def set_tickets(self, event_id: str, tickets: int) -> None:
        """Have so many tickets for an event."""
        _ask(self.process, f"tickets {event_id} {tickets}")


@dataclass(frozen=True)
class Echo:
    """A running echo."""

    process: subprocess.Popen[str]
    grpc_port: int

    @property
    def pids(self) -> dict[str, int]:
        """Its processes by the names that a load reports their CPU under."""
        return {"server": self.process.pid}


@dataclass(frozen=True)
class Service:
    """A running ``booking-worker serve``."""

    process: subprocess.Popen[str]
    grpc_port: int
    engine_pid: int | None
    """None where the engine is not the service's own."""
    data_dir: Path
    start_seconds: float
    """From the start of the process until it said that it was ready."""

    @property
    def pids(self) -> dict[str, int]:
        """Its processes by the names that a load reports their CPU under."""
        engine = {} if self.engine_pid is None else {"engine": self.engine_pid}
        return {"server": self.process.pid, **engine}

    @property
    def audit_log(self) -> Path:
        """Every change of status, a JSON line each."""
        return self.data_dir / "audit.jsonl"


@contextmanager
def work_dir() -> Iterator[Path]:
    """A directory on the disk of the checkout, as that of /tmp may be memory and sync nothing."""
    (ROOT / "data").mkdir(exist_ok=True)
    path = Path(tempfile.mkdtemp(prefix="bench-", dir=ROOT / "data"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def cpu_seconds(pid: int) -> float:
    """What a process has used so far; 0 where there is no /proc to read it from."""
    stat = Path(f"/proc/{pid}/stat")
    if not stat.exists():
        return 0.0
    fields = stat.read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def sync_milliseconds(directory: Path) -> float:
    """What it takes to append 4 KiB to a file and have it on disk, the median of 50 times."""
    times = []
    with (directory / "sync").open("wb", buffering=0) as file:
        for _ in range(50):
            began = time.perf_counter()
            file.write(b"x" * 4096)
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - began)
    return sorted(times)[25] * 1000


@contextmanager
def echo(transport: str = "auto") -> Iterator[Echo]:
    """The reference: a server that answers with a constant."""
    with _running("bench.echo", "--transport", transport) as process:
        yield Echo(process, int(_line(process)))


@contextmanager
def sandbox(directory: Path, tickets: int) -> Iterator[Sandbox]:
    """Stand-in peers that answer at once, with so many tickets for each event.

    With a ledger of their own: what an earlier run held would be missing to this one.
    """
    ledger = Path(tempfile.mkdtemp(prefix="sandbox-", dir=directory)) / "ledger.db"
    with _running("bench.sandbox", "--ledger", str(ledger), "--tickets", str(tickets)) as process:
        yield Sandbox(process, *json.loads(_line(process)))


@contextmanager
def service(
    directory: Path,
    peers: Sandbox,
    settings: Mapping[str, str | int] | None = None,
    *arguments: str,
) -> Iterator[Service]:
    """``booking-worker serve ARGUMENTS`` with everything switched on, ready for calls."""
    data_dir = Path(tempfile.mkdtemp(prefix="service-", dir=directory))
    own = {
        "DATA_DIR": data_dir,
        "GRPC_PORT": 0,
        "HTTP_PORT": 0,
        "METRICS_PORT": 0,
        "AUDIT_LOG": data_dir / "audit.jsonl",
        "QUEUE_MAX_SIZE": 10_000_000,
        "GRPC_BOOKING_SERVICE_ENDPOINT": peers.booking,
        "GRPC_TICKET_SERVICE_ENDPOINT": peers.ticket,
        "GRPC_REALTIME_SERVICE_ENDPOINT": peers.realtime,
        **(settings or {}),
    }
    ready_file = data_dir / "ready.json"
    log = (data_dir / "service.log").open("w")
    began = time.perf_counter()
    process = subprocess.Popen(  # noqa: S603 - the arguments are ours
        [
            *(sys.executable, "-m", "booking_worker", "serve", "--ready-file", str(ready_file)),
            *arguments,
        ],
        env=_environment(own),
        cwd=data_dir,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        text=True,
    )
    log.close()
    try:
        _wait_ready(process, ready_file, data_dir / "service.log")
        seconds = time.perf_counter() - began
        port = json.loads(ready_file.read_text())["grpc_port"]
        pid_file = data_dir / "engine.pid"
        engine_pid = int(pid_file.read_text()) if pid_file.exists() else None
        yield Service(process, port, engine_pid, data_dir, seconds)
    finally:
        process.send_signal(signal.SIGTERM)
        if not _end(process):
            _end_orphan(data_dir / "engine.pid")
            raise BenchmarkError(f"the service did not stop within {_STOP_SECONDS:.0f} s")


def load(
    server: Echo | Service,
    method: str,
    messages: Sequence[bytes],
    *,
    directory: Path,
    connections: int = 20,
    streams: int = 20,
    answers: Path | None = None,
) -> dict[str, Any]:
    """Make each call once, in a process of its own; see :mod:`bench.load`.

    Beside what the load found stands the CPU of each process per call, such as ``server_us``:
    on a busy machine the rates are others', but these hardly are.

    Raises:
        BenchmarkError: a call failed.
    """
    path = directory / "messages"
    write_messages(path, messages)
    command = [
        *(sys.executable, "-m", "bench.load", "--port", str(server.grpc_port)),
        *("--path", SERVICE + method),
        *("--messages", str(path), "--connections", str(connections), "--streams", str(streams)),
        *(("--answers", str(answers)) if answers else ()),
    ]
    before = {name: cpu_seconds(pid) for name, pid in server.pids.items()}
    done = subprocess.run(  # noqa: S603 - the arguments are ours
        command, env=_environment({}), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise BenchmarkError(f"the load failed:\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout)
    for name, pid in server.pids.items():
        spent = cpu_seconds(pid) - before[name]
        result[f"{name}_us"] = round(spent / len(messages) * 1e6, 1)
    if result["ok"] != len(messages):
        raise BenchmarkError(f"{method}: {result['ok']} of {len(messages)}: {result['errors']}")
    return result


def run_module(module: str, *arguments: str) -> Any:
    """What a module of ours prints as JSON when run in a process of its own."""
    done = subprocess.run(  # noqa: S603 - the arguments are ours
        [sys.executable, "-m", module, *arguments],
        env=_environment({}),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BenchmarkError(f"{module} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def _environment(settings: Mapping[str, object]) -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    # What is set in the shell must not change what is measured.
    ours = {name: value for name, value in os.environ.items() if name.lower() not in _SETTINGS}
    return {**ours, "PYTHONPATH": path, **{key: str(v) for key, v in settings.items()}}


@contextmanager
def _running(module: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A module of ours that serves until its standard input ends."""
    process = subprocess.Popen(  # noqa: S603 - the arguments are ours
        [sys.executable, "-m", module, *arguments],
        env=_environment({}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.stdin is not None:
            process.stdin.close()
        _end(process)
        if process.stdout is not None:
            process.stdout.close()


def _end(process: subprocess.Popen[str]) -> bool:
    """Whether it ended by itself; it has ended in any case."""
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False
    return True


def _end_orphan(pid_file: Path) -> None:
    """An engine of its own outlives a service that was killed."""
    with suppress(FileNotFoundError, ProcessLookupError):
        os.kill(int(pid_file.read_text()), signal.SIGTERM)


def _line(process: subprocess.Popen[str]) -> str:
    line = process.stdout.readline() if process.stdout else ""
    if not line:
        raise BenchmarkError(f"process {process.pid} ended early")
    return line


def _ask(process: subprocess.Popen[str], question: str) -> str:
    if process.stdin is not None:
        process.stdin.write(question + "\n")
        process.stdin.flush()
    return _line(process).strip()


def _wait_ready(process: subprocess.Popen[str], ready_file: Path, log: Path) -> None:
    until = time.monotonic() + _READY_SECONDS
    while not ready_file.exists():
        if time.monotonic() > until or process.poll() is not None:
            raise BenchmarkError(f"the service does not get ready:\n{log.read_text()[-2000:]}")
        time.sleep(0.005)


def kept(path: Path) -> list[bytes]:
    """The messages of the answers that a load kept, in the order of its calls."""
    return read_messages(path)


def remove(directory: Path) -> None:
    """Delete a directory with all that is in it."""
    shutil.rmtree(directory)
