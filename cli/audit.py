"""`justiam audit`: prove that what the service promises holds, and that nobody changed what it wrote down."""

from __future__ import annotations

import asyncio
import csv
import json
import sys
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from cli.explaining import checked_settings, fail, speaks_to_temporal, unreachable_explained
from cli.record import on_record

if TYPE_CHECKING:
    from db.database import Database
    from domain.audit_log import AuditEntry, Broken, Chain

app = typer.Typer(help="Prove that what the service promises holds.", no_args_is_help=True)

_FORMATS: Final = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]


class Format(StrEnum):
    """How entries are written."""

    JSONL = "jsonl"
    CSV = "csv"


@app.command("invariants")
def audit_invariants(
    *, as_json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON object.")] = False
) -> None:
    """Prove on both stores that nothing was lost or doubled; read only, at any time.

    One ending for each closed request, a workflow for each open one, a temporary group for each grant and none
    besides, a complete timeline. Names the requests for which something does not hold, and exits with 1.
    """
    settings = checked_settings()
    import worker

    speaks_to_temporal()
    with unreachable_explained(settings):
        report = asyncio.run(worker.audit(settings))
    if as_json:
        typer.echo(report.model_dump_json(indent=2))
    else:
        typer.echo(
            f"{report.requests} requests, {report.open_requests} open, {report.running_workflows} running workflows"
        )
        for invariant in report.invariants:
            mark = f"{len(invariant.violations)} do not" if invariant.violations else "holds"
            typer.echo(f"{mark:>8}  {invariant.meaning}")
            for violation in invariant.violations:
                typer.echo(f"          {violation.request_id} {violation.what}")
    if not report.holds:
        raise typer.Exit(1)


@app.command("verify")
def verify_log(
    *,
    anchor: Annotated[
        str | None,
        typer.Option(metavar="NUMBER:HASH", help="An entry that you kept elsewhere, as this command printed it."),
    ] = None,
    exported: Annotated[
        Path | None, typer.Option(help="An export in JSON lines; its last entry is the anchor.", exists=True)
    ] = None,
) -> None:
    """Follow the audit log from its first entry to its last, and say whether nobody changed it.

    Keep what it prints, outside of the database, and pass it the next time: whoever can write to the database could
    otherwise cut off the end, or write all of it anew. Exits with 1 where the chain does not hold, or where triggers
    that write the log are switched off.
    """
    kept = _anchor(anchor, exported)

    async def verify(database: Database) -> tuple[Chain, Broken | None, list[str]]:
        from db import audit_log

        return *await audit_log.verify(database, anchor=kept), await audit_log.unwatched(database)

    chain, broken, unwatched = on_record(verify)
    if broken is not None:
        fail(f"Entry {broken.id} {broken.why}. The {chain.length} before it hold.")
    if unwatched:
        fail(
            f"{chain.length} entries hold, but changes go unseen now: the triggers are gone or switched off of "
            f"{', '.join(unwatched)}."
        )
    typer.echo(f"{chain.length} entries hold.")
    if chain.length:
        typer.echo(f"Keep this outside of the database: --anchor {chain.length}:{chain.head.hex()}")


@app.command("export")
def export_log(
    *,
    since: Annotated[datetime | None, typer.Option(formats=_FORMATS, help="Made then or later, UTC.")] = None,
    until: Annotated[datetime | None, typer.Option(formats=_FORMATS, help="Made before, UTC.")] = None,
    written_as: Annotated[Format, typer.Option("--format", help="One JSON object a line, or CSV.")] = Format.JSONL,
) -> None:
    """Write the audit log to standard output, oldest entry first."""

    def in_utc(moment: datetime | None) -> datetime | None:
        return None if moment is None else moment.replace(tzinfo=UTC)

    async def export(database: Database) -> None:
        from db import audit_log

        entries = audit_log.stream(database, since=in_utc(since), until=in_utc(until))
        if written_as is Format.JSONL:
            async for entry in entries:
                sys.stdout.write(entry.model_dump_json() + "\n")
            return
        from domain.text import BEGINS_A_TABLE

        sys.stdout.write(BEGINS_A_TABLE)
        table = csv.writer(sys.stdout)
        table.writerow(["id", "at", "actor", "action", "kind", "object_id", "request_id", "before", "after", "hash"])
        async for entry in entries:
            table.writerow(_row(entry))

    try:
        on_record(export)
    except ValueError:
        fail("An entry cannot be read: the export stops before it. Ask justiam audit verify.")


def _row(entry: AuditEntry) -> list[str]:
    from domain.text import in_a_cell

    values = [
        str(entry.id),
        entry.at.isoformat(),
        entry.actor,
        entry.action,
        entry.kind,
        entry.object_id,
        entry.request_id or "",
        "" if entry.before is None else json.dumps(entry.before),
        "" if entry.after is None else json.dumps(entry.after),
        entry.hash,
    ]
    return [in_a_cell(value) for value in values]


def _anchor(given: str | None, exported: Path | None) -> tuple[int, str] | None:
    if exported is not None:
        last = ""
        try:
            with exported.open(encoding="utf-8") as lines:
                for line in lines:
                    last = line if line.strip() else last
            entry = json.loads(last)
            return int(entry["id"]), str(entry["hash"])
        except (ValueError, KeyError, TypeError):
            fail(f"{exported} is no export of the audit log in JSON lines.")
    if given is None:
        return None
    number, _, digest = given.partition(":")
    if not number.isdecimal() or not digest:
        fail("An anchor is NUMBER:HASH, as `justiam audit verify` prints it.")
    return int(number), digest
