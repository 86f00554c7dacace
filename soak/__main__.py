"""`make soak`: runs the service under mixed load while its parts fail, then proves what held; exits with 1 if not all.

Real programs on this machine, each a process of its own: PostgreSQL (with fsync), Temporal (its database on disk), two
APIs, two workers, a script worker; receivers of webhooks and mail. Everything is chosen by chance from one seed.
Bounded in time, it ends only what it has started and leaves nothing behind.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import secrets
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

import httpx
import psycopg
from temporalio.client import Client
from temporalio.runtime import Runtime, TelemetryConfig

from cli.dev import DevStackError
from soak import faults, record, settling, verdict
from soak.calling import Line
from soak.faults import Planned
from soak.load import Load
from soak.receivers import Mailbox, Mood
from soak.scene import Scene, furnish
from soak.stack import Stack
from soak.watching import Watch

_PROGRESS_EVERY_SECS: Final = 15.0
_SLOW_FROM_SECS: Final = 120.0
_FAULTS_UNTIL: Final = 0.85
_LAST_CALLS_SECS: Final = 150.0
"""What clients have in hand when the load ends is finished within this, or given up."""
_CONNECTIONS: Final = httpx.Limits(max_connections=64, max_keepalive_connections=16)


@dataclass
class Progress:
    """What is said while it goes on."""

    began: float = field(default_factory=time.monotonic)
    loaded: float = 0.0
    """When the load began, on the monotonic clock."""
    faults: Counter[str] = field(default_factory=Counter)
    happened: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        """One line, with the time since the start."""
        secs = int(time.monotonic() - self.began)
        line = f"[{secs // 60:2}:{secs % 60:02}] {text}"
        self.happened.append(line)
        with contextlib.suppress(OSError):
            sys.stdout.write(line + "\n")
            sys.stdout.flush()


def main() -> int:
    """Run it; the exit code."""
    options = _options()
    # Whatever this was started by: either ends all that was started here.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    progress = Progress()
    try:
        with _directory(options.directory) as directory:
            report = asyncio.run(_soak(options, directory, progress))
    except KeyboardInterrupt:
        progress.say("Stopped; nothing is proven.")
        return 130
    except DevStackError as error:
        progress.say(str(error))
        return 1
    options.json.write_text(json.dumps(report, indent=1, default=str))
    sys.stdout.write(f"\nWritten to {options.json}\n")
    return 0 if report["holds"] else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long the load goes on (10)")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6), help="what is left to chance follows it")
    parser.add_argument("--clients", type=int, default=8, help="requests on their way at the same time (8)")
    parser.add_argument("--json", type=Path, default=Path("soak-results.json"), help="where the results are written")
    parser.add_argument("--directory", type=Path, help="keep data and logs there; without, they are removed at the end")
    options = parser.parse_args()
    if not 0.3 <= options.minutes <= 24 * 60 or not 1 <= options.clients <= 64:
        parser.error("--minutes is from 0.3 to 1440, --clients from 1 to 64")
    return options


@contextlib.contextmanager
def _directory(kept: Path | None) -> Iterator[Path]:
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=False)
        yield kept.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="soak-") as directory:
        yield Path(directory)


@contextlib.contextmanager
def _open_to_scripts() -> Iterator[Path]:
    """Where scripts run, each as a user of its own that may enter nothing of ours."""
    with tempfile.TemporaryDirectory(prefix="soak-scripts-", ignore_cleanup_errors=True) as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


async def _soak(options: argparse.Namespace, directory: Path, progress: Progress) -> dict[str, Any]:
    secs = options.minutes * 60
    chance = Random(options.seed)
    planned = faults.plan(Random(options.seed), secs)
    progress.say(
        f"Seed {options.seed}: {options.minutes:g} minutes, {options.clients} clients, {len(planned)} faults. Starting."
    )
    mailbox = Mailbox()
    await mailbox.open()
    try:
        with _open_to_scripts() as scripts, Stack(directory, scripts, mail_port=mailbox.port) as stack:
            async with httpx.AsyncClient(trust_env=False, limits=_CONNECTIONS) as http:
                line = Line(stack.api_urls, chance, http)
                scene = await furnish(stack.database_url, line, chance, slow=secs >= _SLOW_FROM_SECS)
                _one_clock(stack.database_url)
                # Without its log: that Temporal is away now and then is known here.
                runtime = Runtime(telemetry=TelemetryConfig(logging=None))
                temporal = await Client.connect(stack.temporal.address, runtime=runtime)
                load, watch = Load(scene, line, chance, temporal, stack.database_url), Watch(stack)
                progress.say("Everything is ready. The load begins.")
                progress.loaded = time.monotonic()
                return await _run(options, stack, load, watch, mailbox, planned, progress)
    finally:
        await mailbox.close()


async def _run(  # noqa: PLR0917 - the parts of a run
    options: argparse.Namespace,
    stack: Stack,
    load: Load,
    watch: Watch,
    mailbox: Mailbox,
    planned: list[Planned],
    progress: Progress,
) -> dict[str, Any]:
    secs = options.minutes * 60
    watching = [asyncio.create_task(watch.run()), asyncio.create_task(stack.supervise())]
    try:
        async with asyncio.TaskGroup() as group:
            telling = group.create_task(_tell(load, watch, progress))
            group.create_task(_moods(load.scene, secs, progress))
            group.create_task(_faults(stack, planned, secs, progress))
            loaded = group.create_task(load.run(options.clients))
            await asyncio.sleep(secs)
            ended_at = time.time()
            load.stop.set()
            progress.say("The load ends.")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(loaded), _LAST_CALLS_SECS)
            loaded.cancel()
            telling.cancel()
        await load.settle()
        settled = await settling.settle(stack, load.scene, load.line, progress.say)
    except ExceptionGroup as failures:
        # Of several that fail at once, what could not be started again is the cause of the others.
        if (fatal := failures.subgroup(DevStackError)) is not None:
            raise DevStackError(str(fatal.exceptions[0])) from failures
        raise
    finally:
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
        for receiver, _ in load.scene.receivers.values():
            await receiver.close()
    found = await asyncio.to_thread(record.read, stack.database_url)
    run = verdict.Run(load, watch, mailbox, settled, found, secs, ended_at, stack.ended)
    checks = verdict.judge(run, stack.database_url)
    holds = all(check.holds for check in checks)
    progress.say(f"{'Everything holds' if holds else 'Something does not hold'} (seed {options.seed}):\n")
    sys.stdout.write(verdict.told(checks) + "\n")
    return {
        "holds": holds,
        "seed": options.seed,
        "minutes": options.minutes,
        "clients": options.clients,
        "requests": len(found.requests),
        "statuses": Counter(request.status for request in found.requests.values()),
        "calls": load.line.calls,
        "repeated": load.line.repeated,
        "faults": progress.faults,
        "sweep": settled.sweep,
        "checks": verdict.written(checks),
        "happened": progress.happened,
    }


async def _faults(stack: Stack, planned: list[Planned], secs: float, progress: Progress) -> None:
    for each in planned:
        await asyncio.sleep(max(0.0, progress.loaded + each.at - time.monotonic()))
        if time.monotonic() > progress.loaded + _FAULTS_UNTIL * secs:
            # Those before took longer than planned; the end of a run is without faults.
            return
        progress.faults[each.fault.value] += 1
        await faults.carry_out(stack, each, progress.say)


async def _moods(scene: Scene, secs: float, progress: Progress) -> None:
    """Receivers that are away for a while, and come back."""
    works, away, slow = (scene.receivers[name][0] for name in ("works", "is away", "is slow"))
    for share, receiver, mood in (
        (0.3, works, Mood.AWAY),
        (0.4, works, Mood.WELL),
        (0.5, away, Mood.WELL),
        (0.8, slow, Mood.WELL),
    ):
        await asyncio.sleep(max(0.0, progress.loaded + share * secs - time.monotonic()))
        progress.faults[f"receiver: {mood}"] += 1
        progress.say(f"The receiver that {receiver.name} is now: {mood}")
        await receiver.become(mood)


async def _tell(load: Load, watch: Watch, progress: Progress) -> None:
    while True:
        await asyncio.sleep(_PROGRESS_EVERY_SECS)
        states = ", ".join(f"{count} {status}" for status, count in sorted(watch.states.items()))
        progress.say(
            f"{sum(watch.states.values())} requests ({states}); {load.line.calls} calls, "
            f"{sum(load.line.repeated.values())} repeated; {len(load.sightings)} looks at claims; "
            f"{sum(progress.faults.values())} faults"
        )


def _one_clock(database_url: str) -> None:
    """The judgement stands on one clock for this process and PostgreSQL.

    Raises:
        DevStackError: there are two.
    """
    with psycopg.connect(database_url, autocommit=True) as connection:
        before = time.time()
        row = connection.execute("SELECT extract(epoch FROM clock_timestamp())").fetchone()
        if row is None or not before <= float(row[0]) <= time.time():
            raise DevStackError("PostgreSQL's clock is not this machine's.")


if __name__ == "__main__":
    sys.exit(main())
