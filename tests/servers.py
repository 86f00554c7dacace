"""Servers as only tests need them."""

from __future__ import annotations

from typing import Final

from cli.dev import TemporalDevServer

CONTINUE_AS_NEW_AFTER: Final = 60
"""Events after which the testing server suggests to continue as new; four times what an ordinary request takes."""


class TestingTemporal(TemporalDevServer):
    """The dev server, with a limit that a test can reach."""

    __test__ = False

    def command(self) -> list[str]:
        limit = f"limit.historyCount.suggestContinueAsNew={CONTINUE_AS_NEW_AFTER}"
        return [*super().command(), f"--dynamic-config-value={limit}"]
