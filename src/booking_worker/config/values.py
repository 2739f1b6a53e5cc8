"""The kinds of values that settings have: how they are written, read, and asked for."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import NoDecode

_UNITS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(h|ms|m|s)")
_ENDPOINT = re.compile(r"(?:dns:(?:///)?)?(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.%a-z]+\]):([0-9]{1,5})")
_ADDRESS = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.%a-z]+\]):([0-9]{1,5})")
_MAX_PORT: Final = 65_535

Address: TypeAlias = tuple[str, int]
"""A host and a port."""


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
class Takes:
    """What a variable takes, for the message about a wrong one."""

    text: str


class GoStyle:
    """Marks a field that is written as a Go-style duration."""


def _duration(value: object) -> object:
    return parse_duration(value.strip()) if isinstance(value, str) else value


def lower(value: object) -> object:
    """A word as it is meant, however it was typed."""
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


def _address(text: str) -> Address:
    found = _ADDRESS.fullmatch(text)
    if not found or not 0 < int(found[2]) <= _MAX_PORT:
        raise ValueError(text)
    return found[1].strip("[]"), int(found[2])


def _addresses(value: object) -> object:
    if not isinstance(value, str):
        return value
    return tuple(_address(part.strip()) for part in value.split(",")) if value.strip() else ()


def format_address(address: Address) -> str:
    """As it is written in a setting."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _empty_is_none(value: object) -> object:
    return None if value == "" else value


def _readable_file(path: Path | None) -> Path | None:
    if path is not None and not (path.is_file() and os.access(path, os.R_OK)):
        raise ValueError(path)
    return path


Port = Annotated[
    int, Field(ge=0, le=_MAX_PORT), Takes("a port from 1 to 65535, or 0 for any free one")
]
ServerPort = Annotated[int, Field(ge=1, le=_MAX_PORT), Takes("a port from 1 to 65535")]
Count = Annotated[int, Field(ge=1, le=10**9), Takes("a whole number of at least 1")]
Slots = Annotated[int, Field(ge=1, le=10_000), Takes("a whole number from 1 to 10000")]
CountOrNone = Annotated[int, Field(ge=0, le=10**9), Takes("a whole number of at least 0")]
Seconds = Annotated[
    float,
    Field(gt=0, le=10**9, allow_inf_nan=False),
    Takes("seconds greater than 0, such as 900 or 0.5"),
]
SecondsOrNone = Annotated[
    float, Field(ge=0, le=10**9, allow_inf_nan=False), Takes("seconds of at least 0, such as 60")
]
Duration = Annotated[
    float,
    BeforeValidator(_duration),
    Field(gt=0, le=10**9, allow_inf_nan=False),
    Takes("a duration greater than 0, such as 30s, 5m, 1h30m or 100ms"),
    GoStyle(),
]
Endpoint = Annotated[
    str,
    AfterValidator(_endpoint),
    Takes("the host:port of a gRPC service, such as localhost:50058, or unix:/path"),
]
EndpointOrNone = Annotated[
    str,
    AfterValidator(_endpoint_or_none),
    Takes("the host:port of a gRPC service, unix:/path, or nothing when there is none"),
]
FileOrNone = Annotated[
    Path | None,
    BeforeValidator(_empty_is_none),
    AfterValidator(_readable_file),
    Takes("a PEM file that can be read, or nothing"),
]
Addresses = Annotated[
    tuple[Address, ...],
    NoDecode,
    BeforeValidator(_addresses),
    Takes("host:port, several with commas between them, or nothing"),
]
Truth = Annotated[bool, Takes("true or false")]
Text = Annotated[str, Takes("a text, or nothing")]
