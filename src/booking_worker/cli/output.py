"""What commands print: tables for people, JSON for scripts, and what went wrong on one line."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

_WIDE: Final = 10_000
_SECOND_MS: Final = 1000
_NOT_WRITTEN: Final = frozenset({errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"))


class CommandFailed(Exception):
    """A command could not do what it was asked; it ends with ``exit_code``.

    ``advice`` says what to do about it.
    """

    def __init__(self, message: str, advice: str = "", exit_code: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice
        self.exit_code = exit_code


def print_json(value: Any) -> None:
    """One JSON document on standard output, and nothing else."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def print_error(message: str, advice: str = "") -> None:
    """What went wrong, on standard error, with what to do about it under it."""
    lines = [f"Error: {printable(message)}", *(printable(line) for line in advice.splitlines())]
    sys.stderr.write("\n".join(lines) + "\n")


def give_up_writing(error: OSError) -> None:
    """Say that nothing more can be written; quietly where the reader of the output has left.

    Raises the error again if it is another.
    """
    if error.errno not in _NOT_WRITTEN:
        raise error
    # What the output still holds would fail again at the end of the process.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if error.errno != errno.EPIPE:
        where = f" {error.filename}" if error.filename else ""
        print_error(f"cannot write{where}: {error.strerror}")


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: Iterable[str] = ()
) -> None:
    """A table on standard output; the columns named in ``numbers`` stand to the right.

    A terminal's width is kept; a pipe gets each row on a line of its own.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    right = frozenset(numbers)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        side: Literal["left", "right"] = "right" if column in right else "left"
        table.add_column(column, justify=side, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(str(cell))) for cell in row))
    _print(table)


def print_facts(facts: Mapping[str, object]) -> None:
    """One thing on standard output: a name and a value on each line, empty ones left out."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column(overflow="fold")
    for name, value in facts.items():
        if value not in {"", None}:
            grid.add_row(name, Text(printable(str(value))))
    _print(grid)


def _print(thing: Any) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    if console.is_terminal:
        console.print(thing)
        return
    console.width = _WIDE
    with console.capture() as printed:
        console.print(thing)
    lines = (line.rstrip() for line in printed.get().splitlines())
    sys.stdout.write("".join(f"{line}\n" for line in lines if line))


def printable(text: str) -> str:
    """The text without what would steer a terminal: it may come from a peer or a user."""
    return "".join(
        one if one.isprintable() or one == "\n" else "\N{REPLACEMENT CHARACTER}" for one in text
    )


def clock_time(at_ms: int) -> str:
    """A moment as people read it, in UTC; empty for 0, which stands for never."""
    if not at_ms:
        return ""
    return f"{datetime.fromtimestamp(at_ms / _SECOND_MS, tz=UTC):%Y-%m-%d %H:%M:%S} UTC"


def duration(milliseconds: float) -> str:
    """How long, to the nearest unit that says something: ``850 ms``, ``12 s``, ``3 h``."""
    if abs(milliseconds) < _SECOND_MS:
        return f"{milliseconds:.0f} ms"
    seconds = milliseconds / _SECOND_MS
    for size, unit in _UNITS:
        if abs(seconds) >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def write_ready_file(path: Path, facts: Mapping[str, Any]) -> None:
    """The facts as JSON in a file that is there whole or not at all.

    Raises:
        CommandFailed: it cannot be written.
    """
    try:
        half = path.with_name(f"{path.name}.{os.getpid()}")
    except ValueError:
        raise CommandFailed(f"--ready-file {path} cannot be written: it names no file") from None
    try:
        half.write_text(json.dumps(facts) + "\n")
        half.replace(path)
    except OSError as error:
        with suppress(OSError):
            half.unlink()
        raise CommandFailed(f"--ready-file {path} cannot be written: {error.strerror}") from None
