"""One HTTP/2 connection that makes prepared unary gRPC calls and times them.

All requests are made before the clock starts, as the very bytes that go to the socket; what is
left to do per call is to note a time and to look at three frames of the answer.
"""

from __future__ import annotations

import socket
import struct
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Final

from bench.hpack import Decoder, literal

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_FRAME: Final = struct.Struct(">IBI")  # length and type in one, flags, stream
_WINDOW: Final = 2**31 - 1
_DEFAULT_WINDOW: Final = 65_535
_RECEIVE_BYTES: Final = 1 << 18
_MOST_FRAME: Final = 16_384

_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE, _CONTINUATION = (
    0, 1, 3, 4, 6, 7, 8, 9,
)  # fmt: skip
_END_STREAM, _ACK, _END_HEADERS = 0x1, 0x1, 0x4
_HEADER_TABLE_SIZE, _MOST_STREAMS, _INITIAL_WINDOW = 1, 3, 4

OK: Final = "0"
"""The gRPC status of a call that went well."""


class ProtocolError(Exception):
    """The server said what a server must not, or ended the connection."""


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """One frame."""
    return _FRAME.pack(len(payload) << 8 | kind, flags, stream) + payload


def header_blocks(authority: str, path: str, metadata: Mapping[str, str]) -> tuple[bytes, bytes]:
    """The request headers as a gRPC client sends them: the first time, and ever after.

    The first block puts the fields into the server's table, the second names them there.
    """
    fields = [
        literal(b"", path.encode(), index=4, remember=True),
        literal(b"", authority.encode(), index=1, remember=True),
        literal(b"te", b"trailers", remember=True),
        literal(b"", b"application/grpc", index=31, remember=True),
        *(literal(n.encode(), v.encode(), remember=True) for n, v in metadata.items()),
    ]
    known = b"\x83\x86"  # :method POST, :scheme http
    latest_first = bytes(0x80 | 62 + at for at in range(len(fields)))
    return known + b"".join(fields), known + latest_first[::-1]


class Connection:
    """Makes its calls in order, at most ``streams`` at a time, each on a stream of its own."""

    def __init__(
        self,
        address: tuple[str, int],
        path: str,
        messages: Sequence[bytes],
        streams: int,
        metadata: Mapping[str, str],
    ) -> None:
        self.socket = socket.create_connection(address, timeout=5)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._streams = streams
        self._total = len(messages)
        self._sent = self._done = 0
        self._window = _DEFAULT_WINDOW
        self._stream_window = _DEFAULT_WINDOW
        self._out = bytearray()
        self._rest = b""
        self._decoder = Decoder()
        self._known: dict[bytes, str] = {}
        self._started: list[float] = []
        self._ended = bytearray(self._total)
        self.latencies: list[float] = []
        """Seconds of each call that was answered, in the order of the answers."""
        self.answers: list[bytes] = [b""] * self._total
        """The message of each answer as it came, with gRPC's five bytes before it."""
        self.statuses: Counter[str] = Counter()
        """gRPC statuses (``0`` is success) with their messages."""
        blocks = header_blocks(f"{address[0]}:{address[1]}", path, metadata)
        self._requests, self._ends = self._prepare(messages, blocks)
        sizes = [len(message) + 5 for message in messages]
        self._largest = max(sizes, default=0)
        self._data_before = [0, *accumulate(sizes)]
        try:
            self._shake_hands()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Hang up."""
        self.socket.close()

    @staticmethod
    def _prepare(
        messages: Sequence[bytes], blocks: tuple[bytes, bytes]
    ) -> tuple[memoryview, list[int]]:
        out = bytearray()
        ends = [0]
        for at, message in enumerate(messages):
            stream = 2 * at + 1
            out += frame(_HEADERS, _END_HEADERS, stream, blocks[at > 0])
            data = b"\0" + struct.pack(">I", len(message)) + message
            parts = range(0, len(data), _MOST_FRAME)
            for start in parts:
                flags = _END_STREAM if start == parts[-1] else 0
                out += frame(_DATA, flags, stream, data[start : start + _MOST_FRAME])
            ends.append(len(out))
        return memoryview(bytes(out)), ends

    def _shake_hands(self) -> None:
        settings = struct.pack(">HIHI", _INITIAL_WINDOW, _WINDOW, 2, 0)  # and no server push
        grow = struct.pack(">I", _WINDOW - _DEFAULT_WINDOW)
        self.socket.sendall(
            _PREFACE + frame(_SETTINGS, 0, 0, settings) + frame(_WINDOW_UPDATE, 0, 0, grow)
        )
        self._settled = False
        while not self._settled:
            self.receive(0.0)
        if self._largest > self._stream_window:
            raise ProtocolError(f"a message of {self._largest} bytes is larger than a window")
        self.socket.sendall(self._out)
        self._out.clear()
        self.socket.setblocking(False)  # noqa: FBT003 - its only parameter

    @property
    def is_done(self) -> bool:
        """Whether every call has been answered."""
        return self._done == self._total

    @property
    def wants_to_write(self) -> bool:
        """Whether something is left that the socket did not take."""
        return bool(self._out)

    def send(self, now: float) -> None:
        """Start as many calls as may be under way, and send what the socket takes."""
        sent = self._sent
        count = min(self._streams - sent + self._done, self._total - sent)
        if count > 0:
            before = self._data_before
            if before[sent + count] - before[sent] > self._window:
                count = bisect_right(before, before[sent] + self._window) - 1 - sent
            if count > 0:
                self._sent = sent + count
                self._window -= before[sent + count] - before[sent]
                self._started.extend([now] * count)
                chunk = self._requests[self._ends[sent] : self._ends[sent + count]]
                if not self._out:
                    chunk = chunk[self._write(chunk) :]
                self._out += chunk
        if self._out:
            del self._out[: self._write(self._out)]

    def _write(self, data: memoryview | bytearray) -> int:
        try:
            return self.socket.send(data)
        except BlockingIOError:
            return 0

    def receive(self, now: float) -> None:
        """Read what has come, and note the calls that it ends.

        Raises:
            ProtocolError: the server ended the connection or broke the protocol.
        """
        try:
            data = self.socket.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        if not data:
            raise ProtocolError(f"connection closed after {self._done} of {self._total} calls")
        buffer = self._rest + data if self._rest else data
        unpack, known, answers = _FRAME.unpack_from, self._known, self.answers
        latencies, started, ended = self.latencies, self._started, self._ended
        at, end = 0, len(buffer)
        good = 0
        while end - at >= 9:
            length_and_kind, flags, stream = unpack(buffer, at)
            start = at + 9
            after = start + (length_and_kind >> 8)
            if after > end:
                break
            at = after
            kind = length_and_kind & 0xFF
            if kind == _DATA and flags == 0:
                call = stream >> 1
                answers[call] = (
                    answers[call] + buffer[start:after] if answers[call] else buffer[start:after]
                )
            elif kind == _HEADERS and flags == _END_HEADERS | _END_STREAM:
                block = buffer[start:after]
                status = known.get(block) or self._read_headers(block)
                call = stream >> 1
                ended[call] = 1
                latencies.append(now - started[call])
                if status == OK and answers[call]:
                    good += 1
                else:
                    self._note_failure(status)
            elif kind == _HEADERS and flags == _END_HEADERS:
                block = buffer[start:after]
                if block not in known:
                    self._read_headers(block)
            else:
                self._take_rare(kind, flags, stream, buffer[start:after])
        self._rest = buffer[at:]
        self._done += good
        self.statuses[OK] += good

    def _read_headers(self, block: bytes) -> str:
        """The gRPC status in a block, with its message; empty when it has none."""
        changes = self._decoder.changes
        fields = dict(self._decoder.decode(block))
        status = fields.get(b"grpc-status", b"").decode()
        if status != OK and b"grpc-message" in fields:
            status += " " + fields[b"grpc-message"].decode()
        if fields.get(b":status", b"200") != b"200":
            status = f"HTTP {fields[b':status'].decode()}"
        # A block that changed the table means something else the next time, and so may all others.
        if self._decoder.changes == changes:
            self._known[block] = status
        else:
            self._known.clear()
        return status

    def _note_failure(self, status: str) -> None:
        self._done += 1
        self.statuses["success without an answer" if status == OK else status or "none"] += 1

    def _take_rare(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _SETTINGS:
            if not flags & _ACK:
                self._settle(payload)
                self._out += frame(_SETTINGS, _ACK, 0, b"")
        elif kind == _PING:
            if not flags & _ACK:
                self._out += frame(_PING, _ACK, 0, payload)
        elif kind == _WINDOW_UPDATE:
            if stream == 0:
                self._window += struct.unpack(">I", payload)[0]
        elif kind == _RST_STREAM:
            if not self._ended[stream >> 1]:
                self._ended[stream >> 1] = 1
                self._note_failure(f"reset, error {struct.unpack('>I', payload)[0]}")
        elif kind == _GOAWAY:
            raise ProtocolError(f"the server goes away: {payload[8:]!r}")
        else:
            _refuse_unread(kind, flags)

    def _settle(self, payload: bytes) -> None:
        for at in range(0, len(payload), 6):
            name, value = struct.unpack_from(">HI", payload, at)
            if name == _INITIAL_WINDOW:
                self._stream_window = value
            elif name == _MOST_STREAMS:
                self._streams = min(self._streams, value)
            elif name == _HEADER_TABLE_SIZE and value < 4096:
                raise ProtocolError(f"the server's header table of {value} bytes is too small")
        self._settled = True


def _refuse_unread(kind: int, flags: int) -> None:
    """Frames that both servers never send: split or padded headers, padded data.

    Priorities and unknown kinds are to be ignored.
    """
    if kind in {_DATA, _HEADERS, _CONTINUATION}:
        raise ProtocolError(f"a frame of kind {kind} with flags {flags:#x} is not read here")
