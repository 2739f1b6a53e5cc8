"""Logs on standard error: JSON for machines or lines for people, our own and the libraries'.

Standard output is left to what a command prints, and to the audit log.
"""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from typing import Any, Final, TextIO, cast

import orjson
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


def get_logger(name: str) -> FilteringBoundLogger:
    """The logger of one module; pass ``__name__``.

    Calls below the level do next to nothing, so a line per item at debug may stay on the hot
    path. Facts go in as keywords: ``log.debug("held", item_id=..., event_id=...)``.
    """
    return cast("FilteringBoundLogger", _loggers.setdefault(name, _Logger(name)))


def configure(level: str, fmt: str, stream: TextIO | None = None) -> None:
    """Send all logs of this process to ``stream`` (standard error unless given).

    Args:
        level: one of :data:`LEVELS`; libraries are heard from ``info`` on at most.
        fmt: ``json`` (one object a line: timestamp, level, logger, msg, then the facts) or
            ``console``.
        stream: where to.
    """
    target = stream or sys.stderr
    threshold = LEVELS[level]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    rendering = _json() if fmt == "json" else _console(target)
    structlog.configure(
        processors=[*shared, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=_Factory(target),
        cache_logger_on_first_use=False,  # _Logger does, and can forget
    )
    for logger in _loggers.values():
        logger.forget()
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    logging.root.handlers[:] = [handler]
    logging.root.setLevel(max(threshold, logging.INFO))
    logging.getLogger("booking_worker").setLevel(threshold)


def _json() -> list[Processor]:
    return [
        structlog.processors.format_exc_info,
        # An event is what is sold; what is said is the message.
        structlog.processors.EventRenamer("msg"),
        _in_order,
        structlog.processors.JSONRenderer(serializer=_dumps),
    ]


def _console(target: TextIO) -> list[Processor]:
    return [
        structlog.dev.ConsoleRenderer(
            colors=target.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    ]


def _in_order(_logger: WrappedLogger, _name: str, line: EventDict) -> EventDict:
    first = ("timestamp", "level", "logger", "msg")
    return {key: line.pop(key) for key in first if key in line} | dict(line)


def _dumps(line: EventDict, **options: Any) -> str:
    return orjson.dumps(line, **options).decode()


class _Logger:
    """Becomes what is configured at its first use, and keeps that at hand.

    structlog's own lazy logger looks itself up at each call: 0.8 us where this takes 0.1.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, method: str) -> Any:
        found = getattr(structlog.get_logger(self._name).bind(), method)
        if structlog.is_configured():
            setattr(self, method, found)
        return found

    def forget(self) -> None:
        """What is configured has changed."""
        name = self._name
        self.__dict__.clear()
        self._name = name


_loggers: dict[str, _Logger] = {}


class _NamedLogger:
    """Writes each line at once, whole, and knows whose it is."""

    def __init__(self, name: str, file: TextIO) -> None:
        self.name = name
        self._file = file

    def msg(self, line: str) -> None:
        # A full disk, or a reader that is gone: who logs has other work, and nobody to tell.
        with suppress(OSError):
            self._file.write(line + "\n")
            self._file.flush()

    debug = info = warning = error = critical = exception = msg


class _Factory:
    def __init__(self, file: TextIO) -> None:
        self._file = file

    def __call__(self, *args: Any) -> _NamedLogger:
        return _NamedLogger(str(args[0]) if args else "", self._file)
