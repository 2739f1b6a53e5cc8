"""A crew of members that start in no time."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from booking_worker.supervisor.crew import Crew
from tests.support.wait import wait_until

SMALL_MEMBER = Path(__file__).parents[2] / "support" / "small_member.py"


class SmallCrew:
    """A crew, and what its members hear."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.crew: Crew

    async def start(
        self, *settings: dict[str, Any], grace_seconds: float = 10, ends_at_once: bool = False
    ) -> None:
        """Start a member for each of the settings."""
        numbered = list(enumerate(settings, 1))
        if ends_at_once:
            self.end_while(len(numbered), there=True)
        hellos = [
            {
                "number": number,
                "settings": {
                    "ends_while": str(self._flag(number)),
                    "news": str(self._news(number)),
                    **given,
                },
            }
            for number, given in numbered
        ]
        self.crew = Crew(hellos, grace_seconds, (sys.executable, str(SMALL_MEMBER)))
        await self.crew.start()

    def _flag(self, number: int) -> Path:
        return self._directory / f"{number}.flag"

    def _news(self, number: int) -> Path:
        return self._directory / f"{number}.news"

    def end_while(self, number: int, *, there: bool) -> None:
        """Let this member end at its start from now on, or no more."""
        if there:
            self._flag(number).touch()
        else:
            self._flag(number).unlink()

    async def kill(self, number: int) -> int:
        """End it as a crash would; its id."""
        pid = self.crew.pids[number - 1]
        os.kill(pid, signal.SIGKILL)
        await wait_until(lambda: pid not in self.crew.pids)
        return pid

    def news(self, number: int) -> dict[str, Any]:
        """What this member heard last."""
        path = self._news(number)
        return json.loads(path.read_text()) if path.exists() else {}

    async def heard(self, number: int, words: str) -> str:
        """The trouble with these words, once this member has heard of it."""
        return await wait_until(
            lambda: next((t for t in self.news(number).get("troubles", ()) if words in t), None)
        )

    async def all_well(self, number: int) -> None:
        """Return once this member has heard that all are ready."""
        await wait_until(
            lambda: (
                (news := self.news(number)) and news["ready"] == news["of"] and not news["troubles"]
            )
        )

    def metric(self, name: str) -> float | None:
        """The one sample of that name, of all together."""
        return next(
            (
                sample.value
                for metric in self.crew.metrics.collect()
                for sample in metric.samples
                if sample.name == name
            ),
            None,
        )


@pytest.fixture
async def small_crew(tmp_path: Path) -> AsyncIterator[SmallCrew]:
    small = SmallCrew(tmp_path)
    yield small
    small.crew.kill()
    await small.crew.stop()
