"""The house stands as it is drawn: imports point one way, and a status has one writer (design, sections 1 and 7)."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "domain": set(),
    "db": {"ciphers", "domain", "telemetry"},
    "deliveries": {"domain"},
    "script_tasks": {"domain"},
    "workflows": {"domain"},
    "activities": {"db", "deliveries", "domain", "payloads", "script_tasks", "telemetry", "workflows"},
    "api": {
        "activities",
        "db",
        "deliveries",
        "domain",
        "logs",
        "payloads",
        "script_tasks",
        "settings",
        "telemetry",
        "temporal_client",
        "workflows",
    },
    "web": {"activities", "api", "db", "domain", "settings", "telemetry", "workflows"},
    "script_worker": {
        "activities",
        "logs",
        "script_tasks",
        "settings",
        "telemetry",
        "temporal_client",
        "workflows",
    },
    "worker": {"activities", "db", "domain", "logs", "settings", "telemetry", "temporal_client", "workflows"},
    "cli": {"activities", "api", "db", "domain", "logs", "script_worker", "settings", "web", "worker", "workflows"},
    # A client like any other: it knows the words of the API, and nothing of what is behind it.
    "cli/people": {"cli", "domain", "settings"},
    "temporal_client": {"logs", "payloads", "settings", "telemetry"},
    "payloads": {"ciphers"},
    "ciphers": set(),
    "settings": {"domain"},
    "telemetry": set(),
    "logs": set(),
}
OURS = {package for package in MAY_IMPORT if "/" not in package}
NOT_SHIPPED = {"bench", "soak", "tests"}
# Pure: what these stand on does no I/O of its own. A table model in a workflow would be loaded in its sandbox.
MAY_STAND_ON = {
    "domain": {"email_validator", "idna", "joserfc", "pydantic", "scim2_models"},
    "workflows": {"pydantic", "temporalio"},
}
# `random` is handed in by who calls; a clock or an environment is nobody's to look at.
IMPURE = {
    "asyncio",
    "http",
    "os",
    "pathlib",
    "secrets",
    "socket",
    "sqlite3",
    "subprocess",
    "threading",
    "time",
    "urllib",
}


def _modules(package: str) -> list[Path]:
    module, folder = ROOT / f"{package}.py", ROOT / package
    return [module] if module.exists() else sorted(folder.rglob("*.py"))


def _imported(path: Path) -> set[str]:
    """The packages that a module imports, also within functions and for its annotations only."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute, so that they can be read"
            names.add((node.module or "").partition(".")[0])
    return names


def _every_module() -> list[Path]:
    return [path for package in sorted(OURS) for path in _modules(package)]


def test_every_package_has_its_place() -> None:
    """A package that nobody has placed would be held to nothing."""
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} | {path.stem for path in ROOT.glob("*.py")}
    assert packages <= OURS | NOT_SHIPPED


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_point_one_way(package: str) -> None:
    own = package.partition("/")[0]
    for path in _modules(package):
        assert _imported(path) & (OURS | NOT_SHIPPED) <= MAY_IMPORT[package] | {own}, path.relative_to(ROOT)


def test_the_terraform_provider_stands_alone() -> None:
    """It is installed where the service is not."""
    modules = sorted((ROOT / "terraform").glob("justiam_provider/*.py"))
    assert modules
    for path in modules:
        assert not _imported(path) & (OURS | NOT_SHIPPED), path.relative_to(ROOT)


def test_the_endurance_run_judges_from_outside() -> None:
    """It starts the programs, fills the record and reads it; what it judges it must not judge by."""
    for path in (ROOT / "soak").glob("*.py"):
        assert _imported(path) & (OURS | NOT_SHIPPED) <= {"cli", "db", "domain", "settings", "soak"}, path.name


@pytest.mark.parametrize("package", MAY_STAND_ON)
def test_rules_and_workflows_stand_on_little(package: str) -> None:
    for path in _modules(package):
        others = _imported(path) - OURS - sys.stdlib_module_names
        assert others <= MAY_STAND_ON[package], path.relative_to(ROOT)


def test_rules_do_no_io_and_look_at_no_clock() -> None:
    now = re.compile(r"\bdatetime\.(now|utcnow|today)\(|\bdate\.today\(|\buuid[14]\(|\bopen\(")
    for path in _modules("domain"):
        assert not _imported(path) & IMPURE, path.relative_to(ROOT)
        assert not now.search(path.read_text()), path.relative_to(ROOT)


def test_workflows_take_time_and_chance_from_temporal() -> None:
    own = re.compile(r"\bdatetime\.(now|utcnow|today)\(|\btime\.(time|monotonic|sleep)\(|(?<!workflow\.)\buuid[14]\(")
    for path in _modules("workflows"):
        assert not _imported(path) & (IMPURE - {"asyncio"} | {"random"}), path.relative_to(ROOT)
        assert not own.search(path.read_text()), path.relative_to(ROOT)


def test_modules_are_named_for_what_they_hold() -> None:
    vague = re.compile(r"(^|_)(utils?|helpers?|managers?|common|misc|stuff)(_|$)")
    for path in _every_module():
        for name in (path.stem, *path.relative_to(ROOT).parts[:-1]):
            assert not vague.search(name), path.relative_to(ROOT)


class TestStatus:
    """The transition is the only writer of a request's status, a submission the only maker of its row."""

    UPDATES = re.compile(
        r"UPDATE\s+access_requests\b(?:(?!\bWHERE\b).)*\bSET\b((?:(?!\bWHERE\b|\bFROM\b).)*)", re.DOTALL
    )
    INSERTS = re.compile(r"\b(INSERT\s+INTO|MERGE\s+INTO|COPY)\s+access_requests\b")
    DELETES = re.compile(r"\b(DELETE\s+FROM|TRUNCATE)\s+access_requests\b")
    WRITER, MAKER = "db/transitions.py", "db/submission.py"

    def test_the_patterns_see_what_they_should(self) -> None:
        writer, maker = (ROOT / self.WRITER).read_text(), (ROOT / self.MAKER).read_text()
        assert len(self.UPDATES.findall(writer)) == 2
        assert len(self.INSERTS.findall(maker)) == 1
        (assigned,) = self.UPDATES.findall("UPDATE access_requests r SET status = 'x', a = 1 FROM u WHERE id = 1")
        assert re.findall(r"(\w+)\s*=", assigned) == ["status", "a"]

    def test_is_written_in_one_place(self) -> None:
        for path in _every_module():
            text, name = path.read_text(), str(path.relative_to(ROOT))
            if name != self.WRITER:
                for assigned in self.UPDATES.findall(text):
                    assert set(re.findall(r"(\w+)\s*=", assigned)) <= {"attention_at"}, name
            if name != self.MAKER:
                assert not self.INSERTS.search(text), name
            assert not self.DELETES.search(text), f"{name}: requests are history and stay"

    def test_is_not_written_through_a_model_either(self) -> None:
        """Where a model is only ever named in a query, no row of it can be changed by assignment."""
        changing = {"get", "update", "insert", "deletion", "delete"}
        for path in _every_module():
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call):
                    arguments = [argument.id for argument in node.args if isinstance(argument, ast.Name)]
                    called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                    assert called != "AccessRequest", path
                    assert not (called in changing and "AccessRequest" in arguments), path
