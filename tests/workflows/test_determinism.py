"""Workflows stay deterministic without the sandbox: a lint forbids in `workflows/` what the sandbox forbids."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from temporalio.worker import UnsandboxedWorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxMatcher, SandboxRestrictions

import worker
from settings import Settings
from tests.workflows.world import World

WORKFLOWS = Path(__file__).parents[2] / "workflows"
FORBIDDEN = SandboxRestrictions.invalid_module_members_default
# `asyncio.wait` iterates over a set; `asyncio.gather` and `workflow.wait` keep an order.
UNORDERED = {"asyncio.wait", "asyncio.as_completed"}
MUTABLE = ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp


def forbidden(name: str) -> bool:
    """Return whether the sandbox refuses the use of a dotted name, such as `time.sleep`."""
    if name in UNORDERED:
        return True
    matcher: SandboxMatcher | None = FORBIDDEN
    parts = name.split(".")
    for part in parts:
        if matcher is None:
            return False
        if matcher.use & {part, "*"}:
            return True
        matcher = matcher.children.get(part)
    return False


def violations(source: str) -> Iterator[str]:
    """Yield each use of a forbidden name, and each module-level value that workflows could share and change."""
    tree = ast.parse(source)
    imported = _imported(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            yield f"line {node.lineno}: global {', '.join(node.names)}"
        elif isinstance(node, ast.Name | ast.Attribute):
            name = _dotted(node, imported)
            if name is not None and forbidden(name):
                yield f"line {node.lineno}: {name}"
    for statement in tree.body:
        if isinstance(statement, ast.Assign | ast.AnnAssign) and isinstance(statement.value, MUTABLE):
            yield f"line {statement.lineno}: a mutable value that all workflows of a worker would share"


def _imported(tree: ast.Module) -> dict[str, str]:
    """Return what each imported name stands for: `pause` for `time.sleep`, say."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                names[alias.asname or top] = alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return names


def _dotted(node: ast.expr, imported: dict[str, str]) -> str | None:
    """Return the name as its module has it: `time.sleep` also where `from time import sleep as pause` renamed it."""
    if isinstance(node, ast.Name):
        return imported.get(node.id, f"__builtins__.{node.id}")
    if isinstance(node, ast.Attribute):
        before = _dotted(node.value, imported)
        return None if before is None else f"{before}.{node.attr}"
    return None


@pytest.mark.parametrize("path", sorted(WORKFLOWS.glob("*.py")), ids=lambda path: path.name)
def test_a_workflow_module_uses_nothing_that_the_sandbox_forbids(path: Path) -> None:
    assert list(violations(path.read_text())) == []


@pytest.mark.parametrize(
    "source",
    [
        "import time\ntime.sleep(1)",
        "import time as clock\nclock.monotonic()",
        "from time import sleep as pause\npause(1)",
        "from datetime import datetime\ndatetime.now()",
        "import datetime\ndatetime.datetime.utcnow()",
        "from uuid import uuid4\nuuid4()",
        "import random\nrandom.choice([1])",
        "import os\nos.environ['A']",
        "import subprocess\nsubprocess.run([])",
        "open('/etc/hostname')",
        "import asyncio\nasyncio.wait([])",
        "seen = {}",
        "def f():\n    global state",
    ],
)
def test_the_lint_finds_what_is_forbidden(source: str) -> None:
    assert list(violations(source))


@pytest.mark.parametrize(
    "source",
    [
        "from temporalio import workflow\nworkflow.now(); workflow.uuid4(); workflow.random().choice([1])",
        "import asyncio\nasyncio.Lock(); asyncio.gather()",
        "from datetime import datetime\ndatetime.fromisoformat('2026-01-01')",
        "LIMITS = (1, 2)",
    ],
)
def test_the_lint_lets_deterministic_code_pass(source: str) -> None:
    assert not list(violations(source))


def test_tests_run_workflows_in_the_sandbox(real_world: World) -> None:
    """`tests/conftest.py` sets it for all of them."""
    assert real_world._worker is not None
    assert isinstance(real_world._worker.config()["workflow_runner"], SandboxedWorkflowRunner)


def test_programs_run_workflows_outside_of_the_sandbox(real_world: World) -> None:
    default = Settings.model_fields["workflow_sandbox"].default
    settings = real_world.settings.model_copy(update={"workflow_sandbox": default})
    assert isinstance(worker.workflow_runner(settings), UnsandboxedWorkflowRunner)
