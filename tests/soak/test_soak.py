"""The endurance run itself, as short as it can be: real programs, a few kills, and everything has to hold."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

from tests.dev.running import is_alive, wait_until

_SOAK: Final = (sys.executable, "-m", "soak", "--minutes", "0.5", "--clients", "4")
_ROOT: Final = Path(__file__).parent.parent.parent


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Where temporary files are made: open to the users that scripts run as, which `tmp_path` is not."""
    with tempfile.TemporaryDirectory(prefix="test-soak-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


def _environment(temporary: Path) -> dict[str, str]:
    return os.environ | {"TMPDIR": str(temporary)}


@pytest.mark.timeout(480)
def test_a_short_run_holds_and_leaves_nothing_behind(tmp_path: Path, temporary: Path) -> None:
    results = tmp_path / "results.json"
    done = subprocess.run(
        [*_SOAK, "--seed", "1", "--json", str(results)],
        cwd=_ROOT,
        env=_environment(temporary),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report: dict[str, Any] = json.loads(results.read_text())
    assert report["requests"] > 0
    assert {"worker killed", "API killed", "Temporal killed", "PostgreSQL stopped (immediate)"} & report[
        "faults"
    ].keys()
    assert all(check["holds"] for check in report["checks"])
    assert list(temporary.iterdir()) == []


@pytest.mark.timeout(180)
def test_a_run_that_is_interrupted_ends_what_it_started(temporary: Path) -> None:
    run = subprocess.Popen(
        [*_SOAK, "--seed", "1"], cwd=_ROOT, env=_environment(temporary), stdout=subprocess.PIPE, text=True
    )
    started: list[psutil.Process] = []

    def several() -> bool:
        started[:] = psutil.Process(run.pid).children(recursive=True)
        return len(started) > 5

    wait_until(several, 90, "programs are started")
    run.send_signal(signal.SIGINT)
    output, _ = run.communicate(timeout=60)
    assert run.returncode == 130, output
    assert not [process for process in started if is_alive(process)]
    assert list(temporary.iterdir()) == []
