from __future__ import annotations

import base64
import contextlib
import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from booking_worker.domain.errors import ItemNotFound
from booking_worker.domain.item_id import event_of, is_plain_id, new_item_id

URL_SAFE = re.compile(r"[A-Za-z0-9._~-]+")  # RFC 3986, unreserved
plain_ids = st.text(min_size=1, max_size=128).filter(is_plain_id)


def coded(event: bytes) -> str:
    return "~" + base64.urlsafe_b64encode(event).decode().rstrip("=")


@given(plain_ids)
def test_an_id_is_url_safe_and_knows_its_event(event_id: str):
    item_id = new_item_id(event_id)
    assert URL_SAFE.fullmatch(item_id)
    assert event_of(item_id) == event_id


@given(st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=128))
def test_an_event_id_of_plain_characters_stays_readable(event_id: str):
    assert new_item_id(event_id).endswith("." + event_id)


def test_ids_differ():
    assert len({new_item_id("e") for _ in range(10_000)}) == 10_000


def test_at_least_64_random_bits():
    alphabet = {new_item_id("e")[at] for _ in range(20_000) for at in range(12)}
    assert len(alphabet) ** 12 >= 2**64


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "short.e",
        "abcdefghijkl",
        "abcdefghijkl.",
        "abcdefghijkl.a b",
        "abcdefghijkl.a{b}",
        "abcdefghijkl.é",
        "abcdefghijkl!e",
        "abcdefghijk\n.e",
        "abcdefghijkl.e\n",
        "abcdefghijkl." + "e" * 129,
        "abcdefghijkl.~",
        "abcdefghijkl.~A",  # no base64 of anything
        "abcdefghijkl." + coded(b"\xff\xfe"),  # no UTF-8
        "abcdefghijkl." + coded(b"plain"),  # would be written as it is
        "abcdefghijkl." + coded("é{".encode()),  # braces
        "abcdefghijkl." + coded("é ".encode()),  # spaces
        "abcdefghijkl." + coded(("é" * 129).encode()),  # too long
        "abcdefghijkl." + coded("é\0".encode()),
        "abcdefghijkl." + coded("é".encode())[:-1] + "r",  # another text for the same event
        "x" * 100_000,
    ],
)
def test_what_was_never_an_id_is_an_unknown_item(text: str):
    with pytest.raises(ItemNotFound) as caught:
        event_of(text)
    assert len(str(caught.value)) < 1000


@given(st.text())
def test_any_text_is_an_id_or_an_unknown_item(text: str):
    with contextlib.suppress(ItemNotFound):
        assert is_plain_id(event_of(text))


@pytest.mark.parametrize(
    "text", ["a", "gala-2026", "summer/gala", "événement", "日本", "a" * 128, "🎫", "a:b|c"]
)
def test_plain_ids(text: str):
    assert is_plain_id(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "a b",
        "{a}",
        "a{",
        "}",
        "a" * 129,
        "a\0",
        "a\n",
        "\x7f",
        "\u2028",
        "\u00a0",
        "\ud800",
        "\u200b",
    ],
)
def test_ids_that_are_not_plain(text: str):
    assert not is_plain_id(text)


def test_none_is_taken_for_an_option_of_a_command():
    assert not any(new_item_id("concert").startswith("-") for _ in range(2_000))
