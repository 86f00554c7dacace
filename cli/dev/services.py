"""The service's own programs, as children of the development stack."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import ClassVar, Final

import httpx

from cli.dev.program import Program
from cli.dev.temporal import NAMESPACE, TemporalDevServer
from workflows.names import SCRIPT_TASK_QUEUE, TASK_QUEUE

_HTTP_TIMEOUT_SECS: Final = 3.0
_TEMPORAL_KEYS: Final = "JUSTIAM_TEMPORAL_ENCRYPTION_KEYS"


class Worker(Program):
    """`justiam worker`."""

    name = "worker"
    # It lets activities finish for ten seconds.
    stop_timeout_secs: ClassVar[float] = 20.0

    def __init__(self, log_file: Path, temporal: TemporalDevServer) -> None:
        super().__init__(log_file)
        self._temporal = temporal

    def command(self) -> list[str]:
        """The installed command, of the same environment as this one."""
        return [_justiam(), "worker"]

    def is_healthy(self) -> bool:
        """Whether Temporal has been asked for tasks since this worker was started."""
        return self._temporal.is_polled(TASK_QUEUE, since=self.spawned_at)


class ScriptWorker(Program):
    """`justiam script-worker`, with nothing of the service in its environment but where Temporal and the API are."""

    name = "scripts"
    # It lets a script finish for ten seconds.
    stop_timeout_secs: ClassVar[float] = 20.0

    def __init__(self, log_file: Path, temporal: TemporalDevServer, api_url: str, cache: Path) -> None:
        super().__init__(log_file)
        self._temporal = temporal
        # As in production: no database, and no keys but those of what Temporal hands it.
        others = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("JUSTIAM_") or name == _TEMPORAL_KEYS
        }
        self.environment = others | {
            "JUSTIAM_TEMPORAL_ADDRESS": temporal.address,
            "JUSTIAM_TEMPORAL_NAMESPACE": NAMESPACE,
            "JUSTIAM_SCRIPT_API_URL": api_url,
            "JUSTIAM_SCRIPT_CACHE_DIR": str(cache),
            # Compiling takes both processors for half a minute, when people begin to try the service.
            "JUSTIAM_SCRIPT_WARM_UP": "false",
            "JUSTIAM_LOG_FORMAT": "console",
        }

    def command(self) -> list[str]:
        """The installed command, of the same environment as this one."""
        return [_justiam(), "script-worker"]

    def is_healthy(self) -> bool:
        """Whether Temporal has been asked for scripts since this worker was started."""
        return self._temporal.is_polled(SCRIPT_TASK_QUEUE, since=self.spawned_at, kind="ACTIVITY")


class Api(Program):
    """`justiam api`."""

    name = "API"

    def __init__(self, log_file: Path, url: str) -> None:
        super().__init__(log_file)
        self._url = url

    def command(self) -> list[str]:
        """The installed command, of the same environment as this one."""
        return [_justiam(), "api"]

    def is_healthy(self) -> bool:
        """Whether it says itself that it can serve."""
        try:
            return httpx.get(f"{self._url}/healthz", trust_env=False, timeout=_HTTP_TIMEOUT_SECS).is_success
        except httpx.TransportError:
            return False


def _justiam() -> str:
    return str(Path(sys.executable).parent / "justiam")
