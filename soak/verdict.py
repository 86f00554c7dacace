"""What a run proves, one check for each promise, and how it is told."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from soak import journal, record, settling
from soak.load import Load
from soak.receivers import Mailbox
from soak.record import Record
from soak.rights import Rights
from soak.settling import Settled
from soak.stack import COPIES, POOL
from soak.steadiness import Bounds, Finding, Trend, trend
from soak.watching import Series, Watch

_MIB: Final = 1024 * 1024
_MOST_SHOWN: Final = 10
_ENOUGH_SECS: Final = 480.0
"""A run of that length has to show whether memory grows; a shorter one may be too short to tell."""
MEMORY: Final = Bounds(warm_up_secs=120, least_secs=180, absolute=24 * _MIB, relative=0.10)
FILES: Final = Bounds(warm_up_secs=120, least_secs=180, absolute=16, relative=0.0)


@dataclass
class Check:
    """One promise, and whether it held."""

    promise: str
    looked_at: str
    """How much of it was looked at."""
    violations: list[str] = field(default_factory=list)
    note: str = ""
    open: bool = False
    """Nothing can be said, because the run was too short."""

    @property
    def holds(self) -> bool:
        """Whether nothing was found."""
        return not self.violations


@dataclass
class Run:
    """Everything that is known at the end of a run."""

    load: Load
    watch: Watch
    mailbox: Mailbox
    settled: Settled
    record: Record
    secs: float
    ended_at: float
    """When the load ended."""
    fallen: list[str]
    """Programs that ended by themselves."""


def judge(run: Run, database_url: str) -> list[Check]:
    """All checks, in the order in which they are told."""
    load, found, written = run.load, run.record, run.load.journal
    rights = Rights([*record.grants(found, run.watch.seen), *load.memberships], load.absences)
    tokens = sum(seen.expires_at is not None for seen in load.sightings)
    return [
        _audited(run.settled),
        Check(
            "The audit log holds (justiam audit verify)",
            run.settled.verified.partition("\n")[0],
            [] if run.settled.log_holds else ["it does not"],
        ),
        Check(
            "Everything that was left undone got done within four minutes of the last fault",
            f"{run.settled.secs:.0f} s; {run.settled.redelivered} deliveries demanded anew",
            [f"{count} {what}" for what, count in run.settled.left.items()],
        ),
        Check(
            "Each acknowledged submission is one request; no key made two; nothing came from nowhere",
            f"{len(written.submissions)} submissions, {len(found.requests)} requests",
            journal.lost_or_doubled(written, found),
        ),
        Check(
            "Each acknowledged decision is the record's, and no refused one is",
            f"{len(written.decisions)} decisions",
            journal.decisions_that_differ(written, found),
        ),
        Check(
            "Each signal that Temporal took is in the timeline once",
            f"{len(written.signals)} signals",
            journal.signals_that_differ(written, found),
        ),
        Check(
            "Each acknowledged message is there once",
            f"{len(written.messages)} messages",
            journal.messages_that_differ(written, found),
        ),
        Check(
            "Every life is begun once, granted at most once, ended once, and a grant lasts as long as was asked for",
            f"{len(found.requests)} timelines",
            journal.broken_lives(found),
        ),
        Check("Answers agree with the clock and with each other", f"{load.reads} reads", load.wrong),
        Check(
            "No claim without a grant, no grant without its claims, no token that outlasts its grant",
            f"{len(load.sightings)} answers, {tokens} of them tokens",
            [problem for seen in load.sightings for problem in rights.judge(seen)],
        ),
        Check(
            "No token counts whose grant is over",
            f"{len(load.introspections)} introspections, {sum(told.active for told in load.introspections)} active",
            [problem for told in load.introspections for problem in rights.judge_introspection(told)],
        ),
        *_told(run),
        Check(
            "Each mail that counts as delivered has arrived",
            f"{len(run.mailbox.received)} mails",
            settling.mails_not_sent(database_url, run.mailbox),
        ),
        Check(
            "Each change fires its task once; what is repeated succeeds; a task that blocks succeeds before the grant",
            "runs of three kinds of triggers",
            settling.runs_that_differ(database_url),
        ),
        Check(
            "No call was answered with a defect (500, or a refusal that nothing explains)",
            f"{load.line.calls} calls, {sum(load.line.repeated.values())} of them repeated",
            [f"{count} times: {what}" for what, count in load.line.unexpected.items()],
        ),
        Check("No program ended by itself", f"{len(run.watch.memory)} processes of ours", run.fallen),
        *_steady(run),
    ]


def _audited(settled: Settled) -> Check:
    invariants = settled.audit.get("invariants", [])
    violations = [
        f"{each['name']}: {violation['request_id']} {violation['what']}"
        for each in invariants
        for violation in each["violations"]
    ]
    return Check(
        "Both stores agree, and each invariant holds (justiam audit invariants)",
        f"{settled.audit.get('requests', 0)} requests, {len(invariants)} invariants",
        violations or ([] if settled.audit.get("holds") else ["the audit did not answer"]),
        note=f"asked {settled.audits} times" if settled.audits > 1 else "",
    )


def _told(run: Run) -> Iterable[Check]:
    for receiver, templates in run.load.scene.receivers.values():
        received = receiver.received
        yield Check(
            f"The receiver that {receiver.name} was told of every event, signed, and of nothing else",
            f"{sum(received.values())} events in {receiver.calls} calls",
            receiver.problems + journal.events_not_told(run.settled.due, run.record, received, templates),
        )


def _steady(run: Run) -> Iterable[Check]:
    for what, series, bounds, unit, scale in (
        ("Memory", run.watch.memory, MEMORY, "MiB", _MIB),
        ("Open files", run.watch.files, FILES, "files", 1),
    ):
        for kind in ("API", "worker", "script worker"):
            of_kind = {
                key: _until(samples, run.ended_at) for key, samples in series.items() if key[0].rstrip(" 12") == kind
            }
            yield _steady_kind(f"{what} of the {kind} does not grow", of_kind, bounds, unit, scale, run.secs)
    yield _connections(run)


def _steady_kind(
    promise: str, series: dict[tuple[str, int], Series], bounds: Bounds, unit: str, scale: float, secs: float
) -> Check:
    trends = {key: trend(samples, bounds) for key, samples in series.items()}
    judged = {key: found for key, found in trends.items() if found.finding is not Finding.TOO_SHORT}
    growing = [
        f"{name}, process {pid}: {_shown(found, unit, scale)}"
        for (name, pid), found in judged.items()
        if found.finding is Finding.GROWS
    ]
    if not judged:
        missing = ["no process lived long enough, in a run that is long enough"] if secs >= _ENOUGH_SECS else []
        return Check(promise, f"{len(series)} processes", missing, note="too short to tell", open=not missing)
    shown = "; ".join(f"{name}: {_shown(found, unit, scale)}" for (name, _), found in judged.items())
    return Check(promise, f"{len(judged)} of {len(series)} processes, {len(growing)} growing", growing, note=shown)


def _connections(run: Run) -> Check:
    samples = _until(run.watch.connections, run.ended_at)
    most = max((count for _, count in samples), default=0.0)
    allowed = 2 * COPIES * POOL
    violations = [f"{name} holds {count:.0f} when nothing goes on" for name, count in run.settled.held.items() if count]
    # One pool more, for the moment until those of a killed program are noticed.
    if most > allowed + POOL:
        violations.append(f"{most:.0f} at once; the programs' pools together have {allowed}")
    return Check(
        "Connections to PostgreSQL stay within the pools, and all are given back",
        f"{most:.0f} at most of {allowed}; {run.settled.pooled:.0f} at the end, none of them held"
        if not violations
        else f"{most:.0f} at most of {allowed}; {run.settled.pooled:.0f} at the end",
        violations,
    )


def _shown(found: Trend, unit: str, scale: float) -> str:
    return f"{found.before / scale:.0f} → {found.after / scale:.0f} {unit} in {found.secs / 60:.1f} min"


def _until(samples: Series, end: float) -> Series:
    return [(at, value) for at, value in samples if at <= end]


def told(checks: Sequence[Check]) -> str:
    """The table for people."""
    lines = []
    for check in checks:
        mark = "  ?  " if check.open else " yes " if check.holds else "  NO "
        lines.append(f"{mark} {check.promise}")
        lines.append(f"      {check.looked_at}{f' ({check.note})' if check.note else ''}")
        lines += [f"      ! {violation}" for violation in check.violations[:_MOST_SHOWN]]
        if len(check.violations) > _MOST_SHOWN:
            lines.append(f"      ! and {len(check.violations) - _MOST_SHOWN} more")
    return "\n".join(lines)


def written(checks: Sequence[Check]) -> list[dict[str, Any]]:
    """The same for programs."""
    return [vars(check) | {"holds": check.holds} for check in checks]
