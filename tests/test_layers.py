"""The house stands as it is drawn: imports point one way, and a status has one writer (design, sections 1 and 7)."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = {"domain", "db", "workflows", "activities", "api", "web", "cli", "worker", "settings", "logs"}
MAY_IMPORT = {
    "domain": set(),
    "db": {"domain"},
    "workflows": {"domain"},
    "activities": {"db", "domain", "workflows"},
    "api": {"activities", "db", "domain", "settings", "workflows"},
    "worker": {"activities", "db", "domain", "logs", "settings", "workflows"},
    "settings": {"domain"},
    "logs": set(),
}


def _modules(package: str) -> list[Path]:
    folder = ROOT / package
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [ROOT / f"{package}.py"]


def _imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").partition(".")[0])
    return names & OURS


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_point_one_way(package: str) -> None:
    for path in _modules(package):
        assert _imported(path) <= MAY_IMPORT[package] | {package}, path.relative_to(ROOT)


def test_modules_are_named_for_what_they_hold() -> None:
    vague = re.compile(r"(^|_)(utils?|helpers?|managers?|common|misc)(_|$)")
    for package in OURS:
        for path in _modules(package) if (ROOT / package).exists() or (ROOT / f"{package}.py").exists() else []:
            assert not vague.search(path.stem), path.relative_to(ROOT)


def test_a_status_is_written_by_the_transition_alone() -> None:
    writes = re.compile(
        r"UPDATE\s+access_requests\b(?:(?!\bWHERE\b).)*\bSET\b((?:(?!\bWHERE\b|\bFROM\b).)*)", re.DOTALL
    )
    inserts = re.compile(r"INSERT\s+INTO\s+access_requests\b")
    for package in OURS - {"web"}:
        for path in _modules(package):
            text, name = path.read_text(), str(path.relative_to(ROOT))
            if name != "db/transitions.py":
                for assigned in writes.findall(text):
                    assert set(re.findall(r"(\w+)\s*=", assigned)) <= {"attention_at"}, name
            if name != "db/submission.py":
                assert not inserts.search(text), name
