"""Commands run as a shell runs them, and a service on a real engine to run them against."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from redis.asyncio import Redis

from booking_worker.cli import main
from booking_worker.config import Settings
from tests.support.api import Api, running_api


@dataclass(frozen=True)
class Ran:
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its standard output, which is to be JSON and nothing else."""
        return json.loads(self.out)


Command: TypeAlias = Callable[..., Ran]


@pytest.fixture
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The defaults alone, in an empty directory."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    return tmp_path


@pytest.fixture
def command(
    no_settings: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Runs ``booking-worker`` with these arguments."""

    def run(*arguments: str) -> Ran:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["booking-worker", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return Ran(ended.value.code or 0, printed.out, printed.err)

    return run


@dataclass(frozen=True)
class Served:
    """A running API, and commands that are sent to it."""

    api: Api
    command: Command

    async def __call__(self, *arguments: str) -> Ran:
        """Run a command that talks to the API, on a thread: the API is on this one."""
        return await asyncio.to_thread(self.command, *arguments, "--address", self.api.target)


@pytest.fixture
async def served(redis_client: Redis, command: Command) -> AsyncIterator[Served]:
    async with running_api(redis_client, "native") as api:
        yield Served(api, command)
