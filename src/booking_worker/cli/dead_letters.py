"""``booking-worker dead-letters``: items that failed for good and wait for an operator."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from booking_worker.cli.options import Address, Json, Operator, TlsCa, examples, operator_name

if TYPE_CHECKING:
    from booking_worker.cli.client import ServiceClient

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Items that failed for good: put them back, or give up.",
)

Items = Annotated[list[str], typer.Argument(metavar="ITEM...", help="Ids, as `list` shows them.")]


@app.command(
    "list",
    epilog=examples(
        "booking-worker dead-letters list             # of every event",
        "booking-worker dead-letters list concert --json",
    ),
)
def list_dead_letters(
    event: Annotated[
        str, typer.Argument(metavar="EVENT", show_default=False, help="One event.")
    ] = "",
    limit: Annotated[
        int, typer.Option(min=1, max=500, metavar="N", help="How many of each event.")
    ] = 50,
    offset: Annotated[
        int, typer.Option(min=0, metavar="N", help="How many of each event to skip.")
    ] = 0,
    address: Address = "",
    tls_ca: TlsCa = None,
    json: Json = False,
) -> None:
    """Items that failed for good, and why; the oldest first."""
    from booking_worker.cli.client import service
    from booking_worker.cli.queue import print_items
    from booking_worker.proto import admin_pb2

    with service(address, tls_ca) as client:
        names = (
            [event]
            if event
            else client.call(client.admin.ListEvents, admin_pb2.ListEventsRequest()).event_ids
        )
        items = [
            item
            for name in names
            for item in client.call(
                client.admin.ListDeadLetters,
                admin_pb2.ListDeadLettersRequest(event_id=name, offset=offset, limit=limit),
            ).items
        ]
    print_items(items, "No dead letters." if offset == 0 else "No more.", json=json)


@app.command(
    epilog=examples(
        "booking-worker dead-letters requeue 3n0Fb2Yk9XyQ.concert",
        "booking-worker dead-letters list concert --json | jq -r '.[].item_id' \\",
        "  | xargs booking-worker dead-letters requeue",
    )
)
def requeue(
    items: Items,
    operator: Operator = "",
    address: Address = "",
    tls_ca: TlsCa = None,
    json: Json = False,
) -> None:
    """Put dead letters back: at their old place, or to their old task."""
    from booking_worker.proto import admin_pb2

    def put_back(client: ServiceClient, item: str) -> str:
        request = admin_pb2.RequeueDeadLetterRequest(
            queue_item_id=item, operator=operator or operator_name()
        )
        return client.call(client.admin.RequeueDeadLetter, request).status

    _each(items, put_back, "is {} again", address, tls_ca, json=json)


@app.command(epilog=examples("booking-worker dead-letters discard 3n0Fb2Yk9XyQ.concert"))
def discard(
    items: Items,
    operator: Operator = "",
    address: Address = "",
    tls_ca: TlsCa = None,
    json: Json = False,
) -> None:
    """Give dead letters up for good: they stay failed, off this list."""
    from booking_worker.proto import admin_pb2

    def give_up(client: ServiceClient, item: str) -> str:
        request = admin_pb2.DiscardDeadLetterRequest(
            queue_item_id=item, operator=operator or operator_name()
        )
        client.call(client.admin.DiscardDeadLetter, request)
        return "discarded"

    _each(items, give_up, "is {}", address, tls_ca, json=json)


def _each(
    items: list[str],
    act: Callable[[ServiceClient, str], str],
    says: str,
    address: str,
    tls_ca: TlsCa,
    *,
    json: bool,
) -> None:
    """Act on every item, also after one that could not be; then exit 1 if any could not."""
    from booking_worker.cli.client import service
    from booking_worker.cli.output import CommandFailed, print_error, print_json

    outcomes: list[dict[str, str]] = []
    with service(address, tls_ca) as client:
        for item in items:
            try:
                outcomes.append({"item_id": item, "status": act(client, item)})
            except CommandFailed as error:
                outcomes.append({"item_id": item, "error": error.message})
    if json:
        print_json(outcomes)
    for outcome in outcomes:
        if "error" in outcome:
            print_error(f"{outcome['item_id']}: {outcome['error']}")
        elif not json:
            typer.echo(f"{outcome['item_id']} {says.format(outcome['status'])}.")
    if any("error" in outcome for outcome in outcomes):
        raise typer.Exit(1)
