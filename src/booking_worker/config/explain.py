"""The settings, for people."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

from pydantic import SecretStr

from booking_worker.config.settings import Settings, Source
from booking_worker.config.values import GoStyle, format_address, format_duration

_HIDDEN: Final = "********"


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
    match value:
        case SecretStr():
            return _HIDDEN if value.get_secret_value() else ""
        case bool():
            return str(value).lower()
        case tuple():
            return ",".join(map(format_address, value))
        case float() if any(isinstance(note, GoStyle) for note in notes):
            return format_duration(value)
        case float() if math.floor(value) == value:
            return str(int(value))
    return "" if value is None else str(value)
