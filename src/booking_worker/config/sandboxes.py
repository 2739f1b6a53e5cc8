"""The sandbox that the settings lead to."""

from __future__ import annotations

import re
from typing import Final

from booking_worker.config.settings import Settings
from booking_worker.domain.errors import InvalidSettings
from booking_worker.sandbox.server import Sandbox

_HERE: Final = re.compile(r"(?:dns:(?:///)?)?(?:localhost|127\.0\.0\.1):([0-9]+)", re.IGNORECASE)


def sandbox_of(settings: Settings) -> Sandbox:
    """Stand-ins of the services that are called, where the settings say that those are.

    Raises:
        InvalidSettings: they are elsewhere; calls would go to those and not to the stand-ins.
    """
    problems: list[str] = []

    def port(name: str) -> int:
        endpoint: str = getattr(settings, name)
        # One that is not configured is not called: its stand-in may be anywhere.
        if not endpoint:
            return 0
        if here := _HERE.fullmatch(endpoint):
            return int(here[1])
        problems.append(f"{name.upper()}: got {endpoint}, takes localhost:PORT with --sandbox")
        return 0

    sandbox = Sandbox(
        settings.data_dir / "sandbox.db",
        booking_port=port("grpc_booking_service_endpoint"),
        ticket_port=port("grpc_ticket_service_endpoint"),
        realtime_port=port("grpc_realtime_service_endpoint"),
    )
    if problems:
        raise InvalidSettings(problems)
    return sandbox
