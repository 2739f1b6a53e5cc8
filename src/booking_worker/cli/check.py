"""``booking-worker check``: is everything reachable and sane, and what to do when it isn't."""

from __future__ import annotations

import typer

from booking_worker.cli.options import Address, Json, TlsCa, examples

EXAMPLES = examples("booking-worker check", "booking-worker check --json | jq .ok")


def check(*, address: Address = "", tls_ca: TlsCa = None, json: Json = False) -> None:
    """Is everything reachable and sane? What to do if not.

    Looks at the settings, the engine, the services that are called and the service itself.
    The service need not run: without it, what it would need is looked at. Exits 1 if anything
    is wrong.
    """
    from booking_worker.cli.checks import look_at_everything
    from booking_worker.cli.output import print_json, print_table
    from booking_worker.telemetry.logs import configure

    configure("error", "console")
    findings = look_at_everything(address, tls_ca)
    ok = all(finding.grade != "wrong" for finding in findings)
    if json:
        print_json({"ok": ok, "findings": [finding._asdict() for finding in findings]})
    else:
        rows = [
            (finding.about, finding.grade, finding.says, finding.advice) for finding in findings
        ]
        print_table(("", "", "found", "what to do"), rows)
        typer.echo("All is well." if ok else "Something is wrong: see above.")
    if not ok:
        raise typer.Exit(1)
