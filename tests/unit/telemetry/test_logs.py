from __future__ import annotations

import errno
import io
import logging
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
import structlog

from booking_worker.telemetry import logs

NAME = "booking_worker.test_logs"


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    handlers, level = logging.root.handlers[:], logging.root.level
    ours = logging.getLogger("booking_worker").level
    yield
    structlog.reset_defaults()
    logs.get_logger(NAME).forget()  # type: ignore[attr-defined]
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
    logging.getLogger("booking_worker").setLevel(ours)


def configured(level: str = "info", fmt: str = "json") -> io.StringIO:
    stream = io.StringIO()
    logs.configure(level, fmt, stream)
    return stream


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in stream.getvalue().splitlines()]


def test_a_json_line_has_time_level_logger_message_and_facts_in_this_order():
    stream = configured()
    logs.get_logger(NAME).info("held", item_id="a.e", event_id="e")
    (line,) = lines(stream)
    assert list(line) == ["timestamp", "level", "logger", "msg", "item_id", "event_id"]
    assert line["timestamp"].endswith("Z")
    assert (line["level"], line["logger"], line["msg"]) == ("info", NAME, "held")


@pytest.mark.parametrize(
    "level, heard",
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_the_level_holds_for_our_logs_and_the_libraries(level: str, heard: list[str]):
    stream = configured(level)
    for logger in (logs.get_logger(NAME), logging.getLogger("booking_worker.std")):
        for method in ("debug", "info", "warning", "error"):
            getattr(logger, method)("x")
    assert [line["level"] for line in lines(stream)] == heard * 2
    stream.truncate(0)
    stream.seek(0)
    for method in ("debug", "info", "warning", "error"):
        getattr(logging.getLogger("grpc"), method)("x")
    assert [line["level"] for line in lines(stream)] == [one for one in heard if one != "debug"]


def test_a_librarys_line_looks_like_ours():
    stream = configured()
    logging.getLogger("redis.asyncio").warning("lost %s", "it")
    (line,) = lines(stream)
    assert list(line) == ["timestamp", "level", "logger", "msg"]
    assert (line["level"], line["logger"], line["msg"]) == ("warning", "redis.asyncio", "lost it")


def fail(logger: Any) -> None:
    secret = "a local that tracebacks keep to themselves"
    try:
        raise ValueError(len(secret))
    except ValueError:
        logger.exception("failed", item_id="a.e")


@pytest.mark.parametrize("fmt", ["json", "console"])
def test_a_traceback_is_told_without_the_values_of_locals(fmt: str):
    stream = configured(fmt=fmt)
    fail(logs.get_logger(NAME))
    text = stream.getvalue()
    assert "ValueError: 42" in text
    assert "in fail" in text
    assert "keep to themselves" not in text
    assert fmt == "console" or len(lines(stream)) == 1


def test_console_lines_are_for_people():
    stream = configured(fmt="console")
    logs.get_logger(NAME).info("held", item_id="a.e")
    logging.getLogger("grpc").warning("careful")
    ours, theirs = stream.getvalue().splitlines()
    assert "held" in ours
    assert "item_id=a.e" in ours
    assert "careful" in theirs
    assert "\x1b" not in ours  # no colours where nobody looks


def test_values_that_are_not_json_are_told_all_the_same():
    stream = configured()
    logs.get_logger(NAME).info("odd", thing=object(), data=b"\xff")
    (line,) = lines(stream)
    assert "object object" in line["thing"]


def test_a_logger_follows_when_the_configuration_changes():
    log = logs.get_logger(NAME)
    first = configured("warning")
    log.info("unheard")
    second = configured("info")
    log.info("heard")
    assert first.getvalue() == ""
    assert [line["msg"] for line in lines(second)] == ["heard"]


def test_a_logger_is_one_per_name():
    assert logs.get_logger(NAME) is logs.get_logger(NAME)


def test_a_logger_without_a_name_works_too():
    stream = configured()
    structlog.get_logger().info("hello")
    assert lines(stream)[0]["msg"] == "hello"


def test_a_logger_of_structlogs_own_is_named_as_well():
    stream = configured()
    structlog.get_logger("booking_worker.other").info("hello")
    assert lines(stream)[0]["logger"] == "booking_worker.other"


class FullDisk(io.StringIO):
    """Takes nothing until there is room."""

    has_room = False

    def write(self, text: str) -> int:
        if not self.has_room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(text)


def test_who_logs_goes_on_while_no_line_can_be_written():
    stream = FullDisk()
    logs.configure("info", "json", stream)
    logs.get_logger(NAME).error("lost")
    stream.has_room = True
    logs.get_logger(NAME).error("told")
    assert [line["msg"] for line in lines(stream)] == ["told"]


def test_logs_go_to_standard_error_by_default(capsys: pytest.CaptureFixture[str]):
    logs.configure("info", "json")
    logs.get_logger(NAME).info("hello")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "hello" in captured.err
