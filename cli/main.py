"""The commands. Each imports what it needs when it runs, so that `justiam --help` answers at once."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

from cli import audit, identity, secret, signing_key, token
from cli.explaining import (
    checked_script_worker_settings,
    checked_settings,
    fail,
    speaks_to_temporal,
    unreachable_explained,
)
from cli.people import account, requests, templates
from settings import SettingsError, describe_settings, unknown_variables

if TYPE_CHECKING:
    from db.database import Database
    from db.pruning import Pruned


class _Commands(typer.core.TyperGroup):
    """All commands; what a command is given has to be text before it begins."""

    def main(self, args: Sequence[str] | None = None, *others: Any, **named: Any) -> Any:  # noqa: ANN401 - as in click
        """Run a command."""
        given = sys.argv[1:] if args is None else list(args)
        variables = {name: value for name, value in os.environ.items() if name.startswith("JUSTIAM_")}
        for place, text in (*((f"Argument {n}", each) for n, each in enumerate(given, 1)), *variables.items()):
            if not _is_text(text):
                typer.echo(f"{place} is not UTF-8 text. Set the terminal and its locale to UTF-8.", err=True)
                sys.exit(2)
        for stream in (sys.stdout, sys.stderr):
            # What a terminal's encoding cannot show must not keep the rest from being shown.
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="replace")
        if hasattr(sys.stdin, "reconfigure"):
            # Some locales let bytes through that are no text; they would fail later, without a reason that helps.
            sys.stdin.reconfigure(errors="strict")
        return super().main(args, *others, **named)


def _is_text(value: str) -> bool:
    """Return whether the system's bytes could be decoded; the rest stands as surrogates in the value."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


app = typer.Typer(
    name="justiam",
    cls=_Commands,
    help="Time-limited access to applications: people ask, approvers decide, the access ends by itself.\n\n"
    "People sign in with `justiam login` and begin with `justiam request submit`.\n\n"
    "To try it, run `justiam dev`: it needs nothing else. In production, run `justiam migrate` and "
    "`justiam setup-temporal` once for each version, then any number of `justiam api` and `justiam worker`; "
    "`justiam settings` lists the environment variables they read.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(token.app, name="token")
app.add_typer(signing_key.app, name="signing-key")
app.add_typer(identity.app, name="identity")
app.add_typer(secret.app, name="secrets")
account.add_to(app)
app.add_typer(templates.app, name="template", rich_help_panel=account.PANEL)
app.add_typer(requests.app, name="request", rich_help_panel=account.PANEL)


app.add_typer(audit.app, name="audit")


@app.command()
def dev(
    data_dir: Annotated[
        Path, typer.Option(help="Where the databases, secrets and logs are kept between two starts.")
    ] = Path(".justiam"),
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port of the API; 0: any free one.")] = 8000,
    temporal_port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Port of the Temporal server; 0: any free one.")
    ] = 7233,
    temporal_ui_port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Port of the Temporal UI; 0: any free one.")
    ] = 8233,
    demo: Annotated[bool, typer.Option(help="Load people, groups and templates to try things out with.")] = True,
) -> None:
    """Run the whole service here: PostgreSQL, Temporal, worker and API, with demo data.

    Everything is real and stays in --data-dir; Ctrl-C stops it, and the next start finds it as it was. When all is
    healthy, <data-dir>/dev.json names the addresses and the demo people's tokens.
    """
    from cli.dev.program import DevStackError
    from cli.dev.stack import StackOptions, run

    options = StackOptions(
        data_dir=data_dir, port=port, temporal_port=temporal_port, temporal_ui_port=temporal_ui_port, demo=demo
    )
    try:
        run(options)
    except (DevStackError, SettingsError) as error:
        fail(str(error))


@app.command()
def api() -> None:
    """Serve the HTTP API and the pages until SIGTERM or SIGINT. Any number may run side by side."""
    settings = checked_settings()
    import logs
    from web import serving

    speaks_to_temporal()
    logs.configure(settings.log_level, settings.log_format)
    serving.run(settings)


@app.command("worker")
def run_worker() -> None:
    """Run workflows and activities until SIGTERM or SIGINT. Any number may run side by side."""
    settings = checked_settings()
    import worker

    speaks_to_temporal()
    asyncio.run(worker.main(settings))


@app.command("script-worker")
def run_script_worker() -> None:
    """Run the scripts of tasks until SIGTERM or SIGINT. Needs neither the database nor the keys of the service.

    Scripts are other people's code: give this its own machine or container, which reaches Temporal and the API
    (JUSTIAM_SCRIPT_API_URL) and nothing else of yours.
    """
    settings = checked_script_worker_settings()
    import script_worker

    speaks_to_temporal()
    asyncio.run(script_worker.main(settings))


@app.command()
def migrate() -> None:
    """Bring the database to this version's schema. Safe to repeat, and to run from several places at once."""
    settings = checked_settings()
    from db.migrate import ServerTooOld, upgrade

    try:
        with unreachable_explained(settings):
            applied = upgrade(settings.database_url.get_secret_value())
    except ServerTooOld as error:
        fail(str(error))
    typer.echo("\n".join(f"Applied {revision}" for revision in applied) or "The schema fits this version.")


@app.command()
def setup_temporal() -> None:
    """Create the search attributes and the Schedule of the sweep in Temporal. Safe to repeat; workers do it as well."""
    settings = checked_settings()
    import worker

    speaks_to_temporal()
    with unreachable_explained(settings):
        created = asyncio.run(worker.setup_temporal(settings))
    typer.echo("\n".join(f"Created {thing}" for thing in created) or "Temporal has everything it needs.")


@app.command()
def sweep(
    *, as_json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON object.")] = False
) -> None:
    """Compare the record with the running workflows now, and repair what differs.

    The same happens on a Schedule every few minutes. Exits with 1 where a repair failed.
    """
    settings = checked_settings()
    import worker

    speaks_to_temporal()
    with unreachable_explained(settings):
        report = asyncio.run(worker.sweep(settings))
    if as_json:
        typer.echo(report.model_dump_json())
    else:
        for name, field in type(report).model_fields.items():
            typer.echo(f"{getattr(report, name):>8}  {field.description}")
    if report.failed:
        raise typer.Exit(1)


@app.command()
def prune(
    older_than: Annotated[
        int, typer.Option("--older-than", metavar="DAYS", min=7, help="Forget what was over this many days ago.")
    ],
) -> None:
    """Forget old deliveries, and old runs of tasks with what they printed, of requests that are closed.

    Requests, their timelines and the audit log stay as they are. Nothing is forgotten unless you run this; safe to
    repeat, to interrupt, and to run beside everything else.
    """
    from cli.record import on_record

    async def forget(database: Database) -> Pruned:
        from db import pruning

        return await pruning.prune(database, timedelta(days=older_than))

    pruned = on_record(forget)
    typer.echo(f"Forgot {pruned.deliveries} deliveries and {pruned.runs} runs.")


@app.command("settings")
def show_settings() -> None:
    """List the environment variables with meaning, default and current value, and check them.

    Secrets are masked. Exits with 1 where the service could not start with these values.
    """
    for setting in describe_settings():
        default = "required" if setting.default is None else f"default: {setting.default}"
        typer.echo(f"{setting.variable} ({default})")
        typer.echo(f"    {setting.meaning}.")
        if setting.value is not None:
            typer.echo(f"    Now: {setting.value}")
    for variable in unknown_variables():
        typer.echo(f"{variable} is set, but is no setting: misspelt?", err=True)
    checked_settings()
