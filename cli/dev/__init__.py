"""The development stack: real PostgreSQL, real Temporal, worker and API under one supervisor.

`PostgresServer` and `TemporalDevServer` also work alone: the tests start one of each.
"""

from __future__ import annotations

from cli.dev.postgres import PostgresServer
from cli.dev.program import DevStackError
from cli.dev.temporal import TemporalDevServer

__all__ = ["DevStackError", "PostgresServer", "TemporalDevServer"]
