"""What every command for people does around its own work: sign in, call, explain what went wrong."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from cli.people import credentials
from cli.people.errors import CommandError, ExitCode, Misused

if TYPE_CHECKING:
    from cli.people.client import Service

PERSON_OPTION = "person"
"""Name of the parameter of `justiam` itself that `--as` sets."""


@contextmanager
def signed_in(context: typer.Context) -> Iterator[Service]:
    """The service as the person who calls sees it; ends the command with one line where something goes wrong."""
    with explained():
        chosen = credentials.current(person(context))
        # Not before it is known that something will be called: it takes longer than everything else here.
        from cli.people.client import Service

        with Service(chosen, notice=say) as service:
            yield service


@contextmanager
def explained() -> Iterator[None]:
    """Turn what ends a command early into one line and its exit code."""
    from cli.people.rendering import plain

    try:
        yield
    except UnicodeDecodeError:
        say("What was typed or read is not UTF-8 text. Set the terminal and its locale to UTF-8.")
        raise typer.Exit(ExitCode.USAGE) from None
    except CommandError as error:
        say(plain(str(error), lines=False))
        raise typer.Exit(error.exit_code) from None


def person(context: typer.Context) -> str | None:
    """Whom `--as` names."""
    name: str | None = context.find_root().params.get(PERSON_OPTION)
    return name


def say(text: str) -> None:
    """Tell the person something that is no result."""
    typer.echo(text, err=True)


def at_a_terminal() -> bool:
    """Whether there is somebody who can be asked. Questions go to stderr, so that results can go elsewhere."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def confirm(question: str, *, yes: bool) -> None:
    """Have the person confirm, unless `--yes` did.

    Raises:
        Misused: nobody can be asked.
        Declined: the answer was no.
    """
    if yes:
        return
    if not at_a_terminal():
        raise Misused("There is no terminal to ask at: confirm with --yes.")
    from cli.people.errors import Declined

    if not typer.confirm(question, err=True):
        raise Declined("Nothing was changed.")
