from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from booking_worker.config.values import format_address, format_duration, parse_duration


@pytest.mark.parametrize(
    "text, seconds",
    [
        ("30s", 30),
        ("5m", 300),
        ("1h30m", 5400),
        ("100ms", 0.1),
        ("1.5h", 5400),
        (".5s", 0.5),
        ("1m0s", 60),
        ("0s", 0),
    ],
)
def test_durations_are_go_style(text: str, seconds: float):
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "30", "s", "5 m", "1h30", "x1s", "1s!", "1d", "-5s", "1..5s", "1s\n", "٣s"]
)
def test_what_is_no_duration(text: str):
    with pytest.raises(ValueError, match=r".*"):
        parse_duration(text)


@given(st.integers(1, 10**10))
def test_a_duration_is_written_as_it_is_read(milliseconds: int):
    assert parse_duration(format_duration(milliseconds / 1000)) == pytest.approx(
        milliseconds / 1000
    )


@pytest.mark.parametrize(
    "seconds, text",
    [(0, "0s"), (0.1, "100ms"), (5, "5s"), (90, "1m30s"), (5400, "1h30m"), (3600.001, "1h1ms")],
)
def test_durations_are_written_short(seconds: float, text: str):
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    "address, text", [(("one.example", 1), "one.example:1"), (("::1", 6379), "[::1]:6379")]
)
def test_an_address_is_written_as_it_is_read(address: tuple[str, int], text: str):
    assert format_address(address) == text
