"""``booking-worker queue``: the lines, as an operator sees and mends them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from booking_worker.cli.options import Address, Json, Operator, TlsCa, examples, operator_name

if TYPE_CHECKING:
    from booking_worker.proto import admin_pb2

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="See who waits and holds; cancel an item; pause and resume.",
)

Item = Annotated[str, typer.Argument(metavar="ITEM", help="The id that a join was answered.")]


@app.command(
    epilog=examples(
        "booking-worker queue status                  # every event, a line each",
        "booking-worker queue status concert",
        "booking-worker queue status concert --json | jq .waiting",
    )
)
def status(
    event: Annotated[
        str, typer.Argument(metavar="EVENT", show_default=False, help="One event.")
    ] = "",
    address: Address = "",
    tls_ca: TlsCa = None,
    json: Json = False,
) -> None:
    """How many wait, hold and have bought: of one event, or of each.

    The seats left, processing, held and sold of an event add up to its total.
    """
    from booking_worker.cli.client import as_dict, service
    from booking_worker.cli.output import print_facts, print_json, print_table
    from booking_worker.proto import admin_pb2

    with service(address, tls_ca) as client:
        names = (
            [event]
            if event
            else client.call(client.admin.ListEvents, admin_pb2.ListEventsRequest()).event_ids
        )
        books = [
            client.call(client.admin.GetEventStatus, admin_pb2.GetEventStatusRequest(event_id=name))
            for name in names
        ]
    if json:
        print_json(as_dict(books[0]) if event else [as_dict(one) for one in books])
    elif event and not books[0].joined:
        typer.echo(f"Nobody has joined the line of {event} yet.")
    elif event:
        print_facts(_facts(books[0]))
    elif books:
        rows = [_row(one) for one in books]
        print_table(_COLUMNS, rows, numbers=_COLUMNS[2:])
    else:
        typer.echo("Nobody has joined a line yet.")


@app.command(
    "list",
    epilog=examples(
        "booking-worker queue list concert",
        "booking-worker queue list concert --status awaiting_payment --limit 10",
        "booking-worker queue list concert --json | jq -r '.[].item_id'",
    ),
)
def list_items(
    event: Annotated[str, typer.Argument(metavar="EVENT", help="The event.")],
    status: Annotated[
        list[str] | None,
        typer.Option(
            "--status",
            metavar="STATUS",
            show_default="all",
            help="Only these; may be given more than once: waiting, processing,"
            " awaiting_payment, confirming, releasing, failed.",
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, metavar="N", help="How many.")] = 50,
    offset: Annotated[int, typer.Option(min=0, metavar="N", help="How many to skip.")] = 0,
    address: Address = "",
    tls_ca: TlsCa = None,
    json: Json = False,
) -> None:
    """Who is in line, in order; who was admitted; dead letters.

    Items that have ended are found by `queue show` alone.
    """
    from booking_worker.cli.client import service
    from booking_worker.proto import admin_pb2

    request = admin_pb2.ListItemsRequest(
        event_id=event, statuses=status or [], offset=offset, limit=limit
    )
    with service(address, tls_ca) as client:
        items = client.call(client.admin.ListItems, request).items
    print_items(list(items), "Nobody." if offset == 0 else "No more.", json=json)


@app.command(epilog=examples("booking-worker queue show 3n0Fb2Yk9XyQ.concert"))
def show(
    item: Item,
    address: Address = "",
    tls_ca: TlsCa = None,
    json: Json = False,
) -> None:
    """All that is known of one item, also after it has ended."""
    from booking_worker.cli.client import as_dict, service
    from booking_worker.cli.output import clock_time, print_facts, print_json
    from booking_worker.proto import admin_pb2

    with service(address, tls_ca) as client:
        found = client.call(client.admin.GetItem, admin_pb2.GetItemRequest(queue_item_id=item))
    if json:
        print_json(as_dict(found))
        return
    facts = as_dict(found)
    request = facts.pop("request") or {}
    for name in ("joined_at_ms", "deadline_ms", "pay_by_ms"):
        facts[name.removesuffix("_ms")] = clock_time(facts.pop(name))
    print_facts(
        {
            **{name: value for name, value in facts.items() if value or name == "attempts"},
            "seat_numbers": ", ".join(request.get("seat_numbers", ())),
            "amount": f"{request.get('total_amount', 0):.2f} {request.get('currency', '')}".strip(),
            **{f"metadata {name}": value for name, value in request.get("metadata", {}).items()},
        }
    )


@app.command(
    epilog=examples(
        "booking-worker queue cancel 3n0Fb2Yk9XyQ.concert --reason 'asked by phone'",
    )
)
def cancel(
    item: Item,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why, for the audit log.")
    ] = "cancelled by an operator",
    operator: Operator = "",
    address: Address = "",
    tls_ca: TlsCa = None,
    json: Json = False,
) -> None:
    """Cancel anyone's item; its tickets go to the next in line.

    Repeating is safe. What is completed or ended otherwise stays as it is.
    """
    from booking_worker.cli.client import service
    from booking_worker.cli.output import print_json
    from booking_worker.proto import admin_pb2

    request = admin_pb2.CancelItemRequest(
        queue_item_id=item, reason=reason, operator=operator or operator_name()
    )
    with service(address, tls_ca) as client:
        status = client.call(client.admin.CancelItem, request).status
    if json:
        print_json({"item_id": item, "status": status})
    elif status == "cancelled":
        typer.echo(f"{item} is cancelled.")
    else:
        typer.echo(f"{item} is {status}: it is cancelled once its tickets have been given back.")


def _not_empty(event: str | None) -> str | None:
    # As from a shell variable that is not set: who names one event must not stop every sale.
    if event == "":
        raise typer.BadParameter("is empty; leave it out to mean all events")
    return event


Event = Annotated[
    str | None,
    typer.Argument(
        metavar="EVENT", show_default="all events", help="One event.", callback=_not_empty
    ),
]


@app.command(
    epilog=examples(
        "booking-worker queue pause concert --reason 'the hall has to be moved'",
        "booking-worker queue pause --reason 'prices are wrong'     # every event",
    )
)
def pause(
    reason: Annotated[
        str,
        typer.Option(
            "--reason", metavar="TEXT", help="Why, for other operators and the audit log."
        ),
    ],
    event: Event = None,
    operator: Operator = "",
    address: Address = "",
    tls_ca: TlsCa = None,
    json: Json = False,
) -> None:
    """Admit nobody until `queue resume`: to one event, or to any.

    People still join and keep their places; who holds tickets can pay, cancel and run out of
    time; a wait in line still ends after QUEUE_TIMEOUT_SECONDS. Of all events, every replica
    knows it within a second.
    """
    from booking_worker.cli.client import service
    from booking_worker.cli.output import print_json
    from booking_worker.proto import admin_pb2

    request = admin_pb2.PauseAdmissionRequest(
        event_id=event or "", reason=reason, operator=operator or operator_name()
    )
    with service(address, tls_ca) as client:
        client.call(client.admin.PauseAdmission, request)
    if json:
        print_json({"event_id": event or "", "status": "paused", "reason": reason})
    else:
        typer.echo(f"Nobody is admitted to {event or 'any event'} until it is resumed.")


@app.command(
    epilog=examples(
        "booking-worker queue resume concert",
        "booking-worker queue resume                  # all but those paused by themselves",
    )
)
def resume(
    event: Event = None,
    operator: Operator = "",
    address: Address = "",
    tls_ca: TlsCa = None,
    json: Json = False,
) -> None:
    """Admit again, after `queue pause` or when data were lost.

    Capacity is refreshed first where that is due. What to check before: docs/upgrade.md.
    """
    from booking_worker.cli.client import service
    from booking_worker.cli.output import print_json
    from booking_worker.proto import admin_pb2

    request = admin_pb2.ResumeAdmissionRequest(
        event_id=event or "", operator=operator or operator_name()
    )
    with service(address, tls_ca) as client:
        was = client.call(client.admin.ResumeAdmission, request).paused_because
    if json:
        status = "resumed" if was else "not_paused"
        print_json({"event_id": event or "", "status": status, "reason": was})
        return
    what = event or "all events"
    typer.echo(f"{what}: resumed; paused was: {was}" if was else f"{what}: not paused.")


def print_items(items: list[admin_pb2.Item], none: str, *, json: bool) -> None:
    """Items on standard output: a JSON array, a table, or ``none`` where there are none."""
    from booking_worker.cli.client import as_dict
    from booking_worker.cli.output import clock_time, print_json, print_table

    if json:
        print_json([as_dict(item) for item in items])
    elif items:
        columns = ("number", "item", "user", "seats", "status", "position", "joined", "message")
        rows = [
            (
                item.seq,
                item.item_id,
                item.user_id,
                item.seats,
                item.status,
                item.position or "",
                clock_time(item.joined_at_ms),
                item.message,
            )
            for item in items
        ]
        print_table(columns, rows, numbers=("number", "seats", "position"))
    else:
        typer.echo(none)


_COLUMNS = (
    "event",
    "state",
    "waiting",
    "processing",
    "holding",
    "completed",
    "ended",
    "seats left",
)


def _row(books: admin_pb2.EventStatus) -> tuple[object, ...]:
    ended = books.expired + books.cancelled + books.sold_out_items + books.rejected + books.failed
    return (
        books.event_id,
        _state(books),
        books.waiting,
        books.processing,
        books.awaiting_payment,
        books.completed,
        ended,
        _seats_left(books),
    )


def _state(books: admin_pb2.EventStatus) -> str:
    if books.sold_out:
        return "sold out"
    return "paused" if books.paused else "open"


def _seats_left(books: admin_pb2.EventStatus) -> str:
    if not books.capacity_known:
        return "not known yet"
    if not books.HasField("capacity"):
        return "unlimited"
    return f"{books.capacity}" if books.capacity_exact else f"{books.capacity} or more"


def _facts(books: admin_pb2.EventStatus) -> dict[str, object]:
    from booking_worker.cli.output import duration
    from booking_worker.domain.estimate import per_second
    from booking_worker.domain.model import Rate

    measured = Rate(books.rate.weight, books.rate.at_ms, books.rate.since_ms)
    rate = per_second(measured, books.now_ms)
    oldest = f" (the first for {duration(books.now_ms - books.oldest_ms)})"
    left = f"{_seats_left(books)}{' left' if books.capacity_known else ''}"
    return {
        "event": books.event_id,
        "state": _state(books),
        "paused because": books.paused_because,
        "joined": books.joined,
        "admitted": f"{books.admitted}, {rate:.1f} a second lately",
        "waiting": f"{books.waiting}{oldest if books.oldest_ms else ''}",
        "processing": books.processing,
        "awaiting payment": books.awaiting_payment,
        "completed": books.completed,
        "expired": books.expired,
        "cancelled": books.cancelled,
        "sold out": books.sold_out_items,
        "rejected": books.rejected,
        "failed": f"{books.failed} ({books.dead_letters} dead letters wait for an operator)",
        "seats": f"{left}, {books.processing_seats} processing,"
        f" {books.held_seats} held, {books.confirmed_seats} sold",
    }
