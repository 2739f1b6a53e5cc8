"""``booking-worker config``: every setting, its value, and where that came from."""

from __future__ import annotations

from booking_worker.cli.options import Json, examples

EXAMPLES = examples("booking-worker config", "GRPC_PORT=6000 booking-worker config --json")


def config(*, json: Json = False) -> None:
    """Show every setting, its value and where it came from.

    A setting is an environment variable, or a line NAME=VALUE in the file .env of the
    directory that the command runs in; the environment wins.
    Secrets are hidden.
    """
    from dataclasses import asdict

    from booking_worker.cli.output import print_json, print_table
    from booking_worker.config import explain, load

    settings = explain(load())
    if json:
        print_json([asdict(one) for one in settings])
    else:
        rows = [(one.name, one.value, one.source, one.explanation) for one in settings]
        print_table(("setting", "value", "from", "what it is"), rows)
