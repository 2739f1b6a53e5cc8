"""A member of a crew that does what its first message says, and starts in no time.

It ends with exit code 3 as long as the file ``ends_while`` exists, is deaf to SIGTERM or
ends with an exit code at it if told so, says again and again that it is well if told so, and
writes what it hears to the file ``news``. Its page counts itself.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import msgpack

link = socket.socket(fileno=os.dup(0))
messages = msgpack.Unpacker()


def hear() -> dict | None:
    while True:
        for message in messages:
            return message
        data = link.recv(65536)
        if not data:
            return None
        messages.feed(data)


hello = hear()
settings = hello["settings"]
if Path(settings["ends_while"]).exists():
    sys.exit(3)
if "ends_with" in settings:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(settings["ends_with"]))
if settings.get("deaf"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
page = [
    ["lives", "Lives.", "counter", [["lives_total", {}, 1.0]]],
    ["booking_worker_worker_slots", "Slots.", "gauge", [["booking_worker_worker_slots", {}, 5.0]]],
]
link.sendall(msgpack.packb({"ready": True}))
link.sendall(msgpack.packb({"page": page, "not_ready": settings.get("not_ready", "")}))


def speak() -> None:
    while True:
        link.sendall(msgpack.packb({"not_ready": ""}))
        time.sleep(0.05)


if settings.get("speaks"):
    threading.Thread(target=speak, daemon=True).start()
news = Path(settings["news"])
while (heard := hear()) is not None:
    half = news.with_suffix(".half")
    half.write_text(json.dumps(heard))
    half.replace(news)
sys.exit(1)
