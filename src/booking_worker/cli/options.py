"""Options that several commands share, and the examples under each command's help."""

from __future__ import annotations

import getpass
import os
from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[
    bool, typer.Option("--json", help="Print JSON for scripts instead of tables for people.")
]
Address = Annotated[
    str,
    typer.Option(
        "--address",
        metavar="HOST:PORT",
        show_default="localhost:GRPC_PORT",
        help="Where the service takes gRPC calls.",
    ),
]
TlsCa = Annotated[
    Path | None,
    typer.Option(
        "--tls-ca",
        metavar="FILE",
        show_default="GRPC_TLS_CERT",
        help="PEM file with what the service's certificate is checked against.",
    ),
]
Operator = Annotated[
    str,
    typer.Option(
        "--as",
        metavar="NAME",
        show_default="your login name",
        help="Who asks, for the audit log.",
    ),
]


def operator_name() -> str:
    """Who asks, where --as does not say it: the login name, or the user's id where it has none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # OSError from Python 3.13 on
        return f"uid-{os.getuid()}"


def examples(*lines: str) -> str:
    """An epilog that keeps its line breaks."""
    # The control character tells the help formatter so.
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])
