"""Header blocks are read as RFC 7541 writes them, its own examples first."""

from __future__ import annotations

import pytest

from bench.hpack import STATIC, BadHeaders, Decoder, encode_integer, huffman_decode, literal

PLAIN = [
    (
        "4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d54"
        "6e1768747470733a2f2f7777772e6578616d706c652e636f6d"
    ),
    "4803333037c1c0bf",
]
HUFFMAN = [
    (
        "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f"
        "0b97c8e9ae82ae43d3"
    ),
    "4883640effc1c0bf",
]


@pytest.mark.parametrize("blocks", [PLAIN, HUFFMAN], ids=["C.5", "C.6"])
def test_the_examples_of_the_rfc(blocks: list[str]) -> None:
    decoder = Decoder()
    first, second = (dict(decoder.decode(bytes.fromhex(block))) for block in blocks)
    assert first == {
        b":status": b"302",
        b"cache-control": b"private",
        b"date": b"Mon, 21 Oct 2013 20:13:21 GMT",
        b"location": b"https://www.example.com",
    }
    assert second == {**first, b":status": b"307"}


def test_what_is_remembered_changes_the_table_and_what_is_not_does_not() -> None:
    decoder = Decoder()
    assert decoder.decode(literal(b"grpc-status", b"0")) == [(b"grpc-status", b"0")]
    assert decoder.changes == 0
    assert decoder.decode(literal(b"grpc-status", b"0", remember=True)) == [(b"grpc-status", b"0")]
    assert decoder.changes == 1
    assert decoder.decode(b"\xbe") == [(b"grpc-status", b"0")]
    assert decoder.changes == 1


def test_the_oldest_are_forgotten_when_the_table_is_full() -> None:
    decoder = Decoder()
    for at in range(200):
        decoder.decode(literal(b"name", b"%03d" % at, remember=True))
    assert decoder.decode(b"\xbe") == [(b"name", b"199")]
    entries = 4096 // (4 + 3 + 32)
    assert decoder.decode(encode_integer(61 + entries, 7, 0x80)) == [(b"name", b"095")]
    with pytest.raises(BadHeaders):
        decoder.decode(encode_integer(62 + entries, 7, 0x80))
    decoder.decode(b"\x20")
    with pytest.raises(BadHeaders):
        decoder.decode(b"\xbe")


def test_a_name_from_the_static_table() -> None:
    assert STATIC[30] == (b"content-type", b"")
    block = literal(b"", b"application/grpc", index=31)
    assert Decoder().decode(block) == [(b"content-type", b"application/grpc")]


@pytest.mark.parametrize("block", ["80", "be", "40", "4083", "00036162", "3fe21f", "408441"])
def test_what_is_no_header_block_is_refused(block: str) -> None:
    with pytest.raises(BadHeaders):
        Decoder().decode(bytes.fromhex(block))


@pytest.mark.parametrize("text", ["ffffffff", "00", "1f80"])
def test_what_is_no_huffman_code_is_refused(text: str) -> None:
    with pytest.raises(BadHeaders):
        huffman_decode(bytes.fromhex(text))
