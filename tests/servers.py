"""Servers as only tests need them."""

from __future__ import annotations

from typing import Final

from cli.dev import TemporalDevServer

CONTINUE_AS_NEW_AFTER: Final = 60
"""Events after which the testing server suggests to continue as new; four times what an ordinary request takes."""
SWEPT: Final = "swept"
"""A namespace for tests of the sweep, which looks at every workflow there is."""
UNFURNISHED: Final = "unfurnished"
"""A namespace without search attributes and Schedule."""


class TestingTemporal(TemporalDevServer):
    """The dev server, with a limit that a test can reach, and namespaces for those who cannot share."""

    __test__ = False

    def command(self) -> list[str]:
        limit = f"limit.historyCount.suggestContinueAsNew={CONTINUE_AS_NEW_AFTER}"
        namespaces = [f"--namespace={name}" for name in (SWEPT, UNFURNISHED)]
        return [*super().command(), f"--dynamic-config-value={limit}", *namespaces]
