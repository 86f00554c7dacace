"""docker-compose.yml, the image and .env.example say what exists. Nothing is started: there may be no Docker."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

# Comes with pre-commit.
import yaml  # type: ignore[import-untyped]

from tests.documented import ROOT, VARIABLE, command_problem, known_variables

COMPOSE: Final[dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: Final[dict[str, dict[str, Any]]] = COMPOSE["services"]
OURS: Final = [name for name, service in SERVICES.items() if str(service["image"]).startswith("justiam")]
ONE_SHOT: Final = {"migrate", "setup-temporal", "temporal-schema", "temporal-namespace"}
WITHOUT_HEALTH_CHECK: Final = {"temporal-ui"}
SECRETS: Final = ("POSTGRES_PASSWORD", "POSTGRES_PWD", "SQL_PASSWORD", "JUSTIAM_SECRET_KEY")
SECRET: Final = re.compile(r"(PASSWORD|PWD|KEY|KEYS|TOKEN|SECRET)$")
"""What the name of a variable with a secret ends with."""
INTERPOLATED: Final = re.compile(r"(?<!\$)\$\{(\w+)(:\?|:-)?([^}]*)\}")


def _schema_problem(text: str, directory: Path) -> str | None:
    """What the schema of the Compose specification says against a file."""
    written = directory / "docker-compose.yml"
    written.write_text(text)
    checker = Path(sys.executable).parent / "check-jsonschema"
    checked = subprocess.run(
        [checker, "--builtin-schema", "vendor.compose-spec", written], capture_output=True, text=True, check=False
    )
    return checked.stdout if checked.returncode else None


def test_it_fits_the_schema_of_the_compose_specification(tmp_path: Path) -> None:
    assert _schema_problem((ROOT / "docker-compose.yml").read_text(), tmp_path) is None


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("    restart: unless-stopped", "    restrt: unless-stopped"),
        ("  read_only: true", "  read_only: [1]"),
        ("services:", "servces:"),
        ("condition: service_healthy", "condition: service_wealthy"),
        ("name: justiam", "name: [justiam]"),
    ],
)
def test_what_does_not_fit_the_schema_is_noticed(right: str, wrong: str, tmp_path: Path) -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    assert right in text
    problem = _schema_problem(text.replace(right, wrong, 1), tmp_path)
    assert problem is not None
    assert "validation errors" in problem


def test_it_has_the_programs_of_a_production_set_up() -> None:
    assert {
        "postgres",
        "temporal",
        "temporal-ui",
        "migrate",
        "setup-temporal",
        "api",
        "worker",
        "script-worker",
    } <= SERVICES.keys()
    assert set(OURS) == {"migrate", "setup-temporal", "api", "worker", "script-worker"}


@pytest.mark.parametrize("name", OURS)
def test_each_service_runs_a_command_that_exists(name: str) -> None:
    command = SERVICES[name]["command"]
    assert command_problem(command) is None
    assert command == [name]


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_waits_for_services_that_get_there(name: str) -> None:
    for other, condition in SERVICES[name].get("depends_on", {}).items():
        if condition["condition"] == "service_healthy":
            assert "healthcheck" in SERVICES[other]
        else:
            assert condition["condition"] == "service_completed_successfully"
            assert other in ONE_SHOT


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_that_stays_is_started_again_and_looked_after(name: str) -> None:
    service = SERVICES[name]
    assert ("restart" in service) == (name not in ONE_SHOT)
    assert ("healthcheck" in service) == (name not in ONE_SHOT | WITHOUT_HEALTH_CHECK)


@pytest.mark.parametrize("name", SERVICES)
def test_nothing_has_a_password_that_anybody_could_know(name: str) -> None:
    for variable, value in SERVICES[name].get("environment", {}).items():
        if variable in SECRETS:
            assert re.fullmatch(r"\$\{\w+:\?[^}]+\}", value), f"{variable} must be required from the environment"
        elif SECRET.search(variable):
            # What one may do without.
            assert re.fullmatch(r"\$\{\w+:-\}", value), f"{variable} must come from the environment"
        elif re.search(r"://[^/]*@", value):
            assert ":?" in value


@pytest.mark.parametrize("name", SERVICES)
def test_only_this_host_reaches_a_published_port(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


def test_images_are_pinned_and_volumes_declared() -> None:
    for service in SERVICES.values():
        assert re.search(r":\d", service["image"])
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert source in COMPOSE["volumes"] or (ROOT / source).is_file()


@pytest.mark.parametrize("file", ["docker-compose.yml", "Dockerfile", ".env.example"])
def test_each_of_our_variables_is_a_setting(file: str) -> None:
    assert set(VARIABLE.findall((ROOT / file).read_text())) <= known_variables()


def test_what_is_taken_from_the_environment_is_in_the_example() -> None:
    text = "\n".join(
        line for line in (ROOT / "docker-compose.yml").read_text().splitlines() if not line.lstrip().startswith("#")
    )
    example = dict(
        line.split("=", 1)
        for line in (ROOT / ".env.example").read_text().splitlines()
        if line and not line.startswith("#")
    )
    taken = {name: (kind, default) for name, kind, default in INTERPOLATED.findall(text)}
    assert taken.keys() == example.keys()
    for name, (kind, default) in taken.items():
        assert example[name] == ("" if kind == ":?" else default)


def test_the_image_is_built_from_the_locks_and_runs_as_nobody_special() -> None:
    lines = (ROOT / "Dockerfile").read_text()
    assert "--require-hashes" in lines
    assert "requirements/runtime.txt" in lines
    assert re.search(r"^USER [1-9]\d*$", lines, re.MULTILINE)
    stages = set(re.findall(r"^FROM \S+ AS (\w+)$", lines, re.MULTILINE))
    for name in OURS:
        assert SERVICES[name]["build"]["target"] in stages
    # What a build without a target makes.
    assert re.findall(r"^FROM \S+ AS (\w+)$", lines, re.MULTILINE)[-1] == "service"


def test_the_image_gets_every_package_and_nothing_else() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"bench", "soak", "tests"}
    modules = {path.name for path in ROOT.glob("*.py")}
    assert kept == packages | modules | {"LICENSE", "README.md", "pyproject.toml", "requirements"}
