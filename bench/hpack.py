"""Header blocks of HTTP/2 (RFC 7541): a full decoder, and literals for what we send.

Small rather than fast: the load meets almost only blocks that it has seen before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

Header = tuple[bytes, bytes]

TABLE_SIZE: Final = 4096
_ENTRY_OVERHEAD: Final = 32

_STATIC_NAMES: Final = (
    b":authority,:method,:method,:path,:path,:scheme,:scheme,:status,:status,:status,:status,"
    b":status,:status,:status,accept-charset,accept-encoding,accept-language,accept-ranges,accept,"
    b"access-control-allow-origin,age,allow,authorization,cache-control,content-disposition,"
    b"content-encoding,content-language,content-length,content-location,content-range,content-type,"
    b"cookie,date,etag,expect,expires,from,host,if-match,if-modified-since,if-none-match,if-range,"
    b"if-unmodified-since,last-modified,link,location,max-forwards,proxy-authenticate,"
    b"proxy-authorization,range,referer,refresh,retry-after,server,set-cookie,"
    b"strict-transport-security,transfer-encoding,user-agent,vary,via,www-authenticate"
).split(b",")
_STATIC_VALUES: Final = {
    2: b"GET", 3: b"POST", 4: b"/", 5: b"/index.html", 6: b"http", 7: b"https", 8: b"200",
    9: b"204", 10: b"206", 11: b"304", 12: b"400", 13: b"404", 14: b"500", 16: b"gzip, deflate",
}  # fmt: skip
STATIC: Final[tuple[Header, ...]] = tuple(
    (name, _STATIC_VALUES.get(at, b"")) for at, name in enumerate(_STATIC_NAMES, start=1)
)

# The lengths of the Huffman codes of bytes 0 to 255 and of the end mark; the code is canonical,
# so its lengths are all there is to it.
_RUNS: Final = (
    "13 23 28*7 24 30 28*2 30 28*8 30 28*9 6 10*2 12 13 6 8 11 10*2 8 11 8 6*3 5*3 6*7 7 8 15 6 12 "
    "10 13 6 7*22 8 7 8 13 19 13 14 6 15 5 6 5 6 5 6*3 5 7*2 6*3 5 6 7 6 5*2 6 7*5 15 11 14 13 28 "
    "20 22 20*2 22*3 23 22 23*5 24 23 24*2 22 23 24 23*4 21 22 23 22 23*2 24 22 21 20 22*2 23*2 21 "
    "23 22*2 24 21 22 23*2 21*2 22 21 23 22 23*2 20 22*3 23 22*2 23 26*2 20 19 22 23 22 25 26*3 "
    "27*2 26 24 25 19 21 26 27*2 26 27 24 21*2 26*2 28 27*3 20 24 20 21 22 21*2 23 22*2 25*2 24*2 "
    "26 23 26 27 26*2 27*5 28 27*5 26 30"
)


def _huffman_lengths() -> Iterator[int]:
    for run in _RUNS.split():
        length, _, times = run.partition("*")
        yield from [int(length)] * int(times or 1)


def _huffman_codes() -> dict[tuple[int, int], int]:
    """Symbol by length and code."""
    lengths = list(_huffman_lengths())
    codes = {}
    code = before = 0
    for length, symbol in sorted((length, symbol) for symbol, length in enumerate(lengths)):
        code <<= length - before
        codes[length, code] = symbol
        code += 1
        before = length
    return codes


_HUFFMAN: Final = _huffman_codes()
_END_MARK: Final = 256
_LONGEST_PADDING: Final = 7


class BadHeaders(Exception):
    """The bytes are no header block, or one for another table."""


def huffman_decode(data: bytes) -> bytes:
    """The text behind a Huffman-coded string."""
    out = bytearray()
    code = length = 0
    for byte in data:
        for shift in range(7, -1, -1):
            code = code << 1 | (byte >> shift) & 1
            length += 1
            symbol = _HUFFMAN.get((length, code))
            if symbol is not None:
                if symbol == _END_MARK:
                    raise BadHeaders("end mark in a string")
                out.append(symbol)
                code = length = 0
    if length > _LONGEST_PADDING or code != (1 << length) - 1:
        raise BadHeaders("a string ends in the middle of a character")
    return bytes(out)


def literal(name: bytes, value: bytes, *, index: int = 0, remember: bool = False) -> bytes:
    """One header field as we send it; ``index`` names a field whose name is the same."""
    start = encode_integer(index, 6, 0x40) if remember else encode_integer(index, 4, 0)
    return start + (b"" if index else _string(name)) + _string(value)


def encode_integer(value: int, bits: int, flags: int) -> bytes:
    """An integer behind the flags of its first byte."""
    most = (1 << bits) - 1
    if value < most:
        return bytes([flags | value])
    out = bytearray([flags | most])
    value -= most
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _string(text: bytes) -> bytes:
    return encode_integer(len(text), 7, 0) + text


class Decoder:
    """Decodes the header blocks of one connection, all of them, in the order they came."""

    def __init__(self) -> None:
        self._table: deque[Header] = deque()
        self._size = 0
        self._limit = TABLE_SIZE
        self.changes = 0
        """Grows whenever the table changes, and with it the meaning of later blocks."""

    def decode(self, block: bytes) -> list[Header]:
        """The fields of one block.

        Raises:
            BadHeaders: it is none.
        """
        try:
            return list(self._fields(block))
        except IndexError as error:
            raise BadHeaders(f"cut short or out of the table: {block.hex()}") from error

    def _fields(self, block: bytes) -> Iterator[Header]:
        at = 0
        while at < len(block):
            first = block[at]
            if first & 0x80:
                index, at = _integer(block, at, 7)
                yield self._entry(index)
            elif first & 0xE0 == 0x20:
                limit, at = _integer(block, at, 5)
                if limit > TABLE_SIZE:
                    raise BadHeaders("a larger table than was offered")
                self._limit = limit
                self._shrink()
            else:
                remember = bool(first & 0x40)
                index, at = _integer(block, at, 6 if remember else 4)
                if index:
                    name = self._entry(index)[0]
                else:
                    name, at = _read_string(block, at)
                value, at = _read_string(block, at)
                if remember:
                    self._add((name, value))
                yield name, value

    def _entry(self, index: int) -> Header:
        if index == 0:
            raise BadHeaders("field 0")
        if index <= len(STATIC):
            return STATIC[index - 1]
        return self._table[index - len(STATIC) - 1]

    def _add(self, header: Header) -> None:
        self._table.appendleft(header)
        self._size += _size(header)
        self._shrink()

    def _shrink(self) -> None:
        self.changes += 1
        while self._size > self._limit:
            self._size -= _size(self._table.pop())


def _size(header: Header) -> int:
    return len(header[0]) + len(header[1]) + _ENTRY_OVERHEAD


def _integer(block: bytes, at: int, bits: int) -> tuple[int, int]:
    most = (1 << bits) - 1
    value = block[at] & most
    at += 1
    if value < most:
        return value, at
    shift = 0
    while True:
        byte = block[at]
        at += 1
        value += (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return value, at


def _read_string(block: bytes, at: int) -> tuple[bytes, int]:
    coded = block[at] & 0x80
    length, at = _integer(block, at, 7)
    if at + length > len(block):
        raise BadHeaders("a string is cut short")
    text = block[at : at + length]
    return (huffman_decode(text) if coded else text), at + length
