"""The command line. One file per group of commands; each imports what it needs when it runs."""

from __future__ import annotations

import sys

import typer

from booking_worker.cli import check, config, dead_letters, demo, queue, sandbox, serve
from booking_worker.cli.options import examples

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples(
        "booking-worker demo                      # see a whole sale, in a minute",
        "booking-worker serve --sandbox           # run it, with stand-ins for what it calls",
        "booking-worker queue status              # ask it",
        "booking-worker COMMAND --help            # more of each",
    ),
)


@app.callback()
def _root() -> None:
    """A fair line for ticket sales: one place each, admitted in order, no seat sold twice."""


app.command(epilog=serve.EXAMPLES)(serve.serve)
app.command(epilog=demo.EXAMPLES)(demo.demo)
app.command(epilog=sandbox.EXAMPLES)(sandbox.sandbox)
app.add_typer(queue.app, name="queue")
app.add_typer(dead_letters.app, name="dead-letters")
app.command(epilog=config.EXAMPLES)(config.config)
app.command(epilog=check.EXAMPLES)(check.check)


def main() -> None:
    """Run a command and exit: 0, 1 when it failed, 2 when it or a setting was wrong."""
    from booking_worker.cli.output import CommandFailed, give_up_writing, print_error
    from booking_worker.domain.errors import BookingWorkerError, InvalidSettings

    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except OSError as error:
        give_up_writing(error)
        sys.exit(1)
    except UnicodeEncodeError as error:
        # Bytes of an argument that are no text, where text is needed.
        print_error(f"{error.object!r} is not UTF-8")
        sys.exit(2)
    except CommandFailed as error:
        print_error(error.message, error.advice)
        sys.exit(error.exit_code)
    except InvalidSettings as error:
        for problem in error.problems:
            print_error(problem)
        sys.exit(2)
    except BookingWorkerError as error:
        print_error(str(error))
        sys.exit(1)
