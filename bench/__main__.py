"""`make bench`: measures the service, its floor and a control in one run, prints a table, writes JSON.

Real servers on this machine, fresh for each repetition. The first column is what people run: `justiam dev`, with
PostgreSQL and Temporal on disk. The second has Temporal in memory. The floor is a bare workflow with one update on the
same Temporal server, a bare FastAPI route with one indexed SELECT, and one INSERT. The control is the same submit and
approve as plain FastAPI and PostgreSQL (bench/control.py). Nothing here is a test; what counts are the ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from bench import grants, house, measures, stacks
from bench.table import Table, printed

_STACKS: Final = {"on disk": stacks.on_disk, "in memory": stacks.in_memory}


async def main() -> None:
    """Measure everything and write it down."""
    options = _options()
    tables = {column: Table() for column in options.columns}
    for repetition in range(options.repetitions):
        for column, table in tables.items():
            _say(f"repetition {repetition + 1} of {options.repetitions}, Temporal {column}")
            with TemporaryDirectory(prefix="justiam-bench-") as name:
                await _measure(Path(name), column, table, options, last=repetition + 1 == options.repetitions)
            _say("\n".join(printed({column: table})))
    document = {"measured_at": datetime.now(UTC).isoformat()} | {name: each.as_json() for name, each in tables.items()}
    options.json.write_text(json.dumps(document, indent=1))
    _say("\n".join(["", *printed(tables), "", f"Median (range) of {options.repetitions}. Written to {options.json}"]))


async def _measure(directory: Path, column: str, table: Table, options: argparse.Namespace, *, last: bool) -> None:
    async with _STACKS[column](directory) as stack, house.furnished(stack, directory, table) as bench:
        await measures.warm_up(bench)
        await measures.one_client(bench, options.count)
        await measures.many_clients(bench, options.pairs)
        if column == "in memory":
            await measures.statements(bench, options.count)
        await measures.reads(bench, options.reads)
        if last:
            await grants.history(bench)
            for count in options.expiries:
                await grants.expiry_lag(bench, count)
            if options.open:
                await grants.memory_held(bench, options.open)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repetitions", type=int, default=3, help="each on fresh servers (3)")
    parser.add_argument(
        "--columns", nargs="+", choices=list(_STACKS), default=list(_STACKS), help="which servers (both)"
    )
    parser.add_argument("--count", type=int, default=60, help="calls of the single client (60)")
    parser.add_argument("--pairs", type=int, default=640, help="pairs of the 64 clients together (640)")
    parser.add_argument("--reads", type=int, default=1500, help="calls for each reading endpoint (1500)")
    parser.add_argument("--expiries", type=int, nargs="*", default=[], help="grants that end at once, e.g. 500 2000")
    parser.add_argument(
        "--open", type=int, default=0, help="grants that are open at once, for their memory, e.g. 20000"
    )
    parser.add_argument("--json", type=Path, default=Path("bench-results.json"), help="where the results are written")
    return parser.parse_args()


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
