"""``python -m booking_worker`` is the command line."""

from __future__ import annotations

from booking_worker.cli import main

if __name__ == "__main__":
    main()
