"""The real terraform with the installed provider, against the real API with its PostgreSQL and Temporal."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import pytest
from temporalio.client import Client

from tests.api.house import House, open_house, settings
from tests.cli.conftest import served
from tests.conftest import Databases
from tests.servers import TestingTemporal

ROOT: Final = Path(__file__).parents[2]
PROVIDER_PYTHON: Final = ROOT / "terraform" / ".venv" / "bin" / "python"
VERSIONS: Final = (ROOT / "examples" / "versions.tf").read_text()
_TIMEOUT_SECS: Final = 180

SURROUNDINGS: Final = """
resource "justiam_application" "other" { name = "Other ${var.mark}" }
resource "justiam_group" "one" { name = "one ${var.mark}" }
resource "justiam_group" "two" { name = "two ${var.mark}" }
resource "justiam_user" "dana" {
  email = "dana-${var.mark}@example.com"
  name  = "Dana"
}
resource "justiam_secret" "token" {
  name  = "TOKEN_${upper(var.mark)}"
  value = "hidden-1"
}
variable "mark" { default = "MARK" }
"""

LEAST: Final = """
resource "justiam_application" "app" { name = "App ${var.mark}" }
resource "justiam_app_mapping" "mapping" {
  app_id = justiam_application.app.id
  name   = "Reader"
  claim  = "roles"
  value  = "reader"
}
resource "justiam_group" "group" { name = "group ${var.mark}" }
resource "justiam_user" "user" {
  email = "user-${var.mark}@example.com"
  name  = "User"
}
resource "justiam_group_membership" "membership" {
  group_id = justiam_group.group.id
  user_id  = justiam_user.user.id
}
resource "justiam_scheduled_task" "task" {
  name   = "task ${var.mark}"
  script = "def run(): ..."
}
resource "justiam_access_request_template" "template" {
  name   = "Template ${var.mark}"
  app_id = justiam_application.app.id
}
resource "justiam_integration" "mail" {
  name   = "mail ${var.mark}"
  target = "email"
  events = ["access_request.submitted"]
}
resource "justiam_integration" "hook" {
  name   = "hook ${var.mark}"
  target = "webhook"
  events = ["access_request.submitted"]
  url    = "https://one.example.com/hook"
}
resource "justiam_integration" "script" {
  name    = "script ${var.mark}"
  target  = "task"
  events  = ["access_request.submitted"]
  task_id = justiam_scheduled_task.task.id
}
resource "justiam_secret" "secret" {
  name  = "SECRET_${upper(var.mark)}"
  value = "hidden-2"
}
"""


@dataclass(frozen=True)
class Installed:
    """Terraform with the provider in its plugin directory."""

    terraform: str
    home: Path
    initialised: Path
    """A directory in which `terraform init` was run."""

    def environment(self, **variables: str) -> dict[str, str]:
        """Nothing of the machine's own: no configuration, no token, no proxy."""
        (self.home / "cli.tfrc").touch()
        return {
            "HOME": str(self.home),
            "PATH": os.environ["PATH"],
            "TF_CLI_CONFIG_FILE": str(self.home / "cli.tfrc"),
            "CHECKPOINT_DISABLE": "1",
            "TF_IN_AUTOMATION": "1",
            **variables,
        }


class Workspace:
    """A configuration, and what terraform makes of it."""

    def __init__(self, installed: Installed, directory: Path, **variables: str) -> None:
        self.directory = directory
        self._installed = installed
        self._variables = variables
        for name in (".terraform", ".terraform.lock.hcl"):
            source = installed.initialised / name
            if source.is_dir():
                shutil.copytree(source, directory / name, symlinks=True)
            else:
                shutil.copy(source, directory)
        self.write(VERSIONS, "versions.tf")

    def write(self, text: str, file: str = "main.tf") -> None:
        (self.directory / file).write_text(text)

    def run(self, *arguments: str, code: int | None = 0, variables: Mapping[str, str] | None = None) -> str:
        """Everything that a command says; it must end with `code`, unless that is None."""
        given = {**self._variables, **(variables or {})}
        done = subprocess.run(
            [self._installed.terraform, *arguments],
            cwd=self.directory,
            env=self._installed.environment(**given),
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT_SECS,
        )
        said = done.stdout + done.stderr
        if token := given.get("JUSTIAM_TOKEN"):
            assert token not in said, "the token was printed"
        assert code is None or done.returncode == code, said
        return said

    def apply(self, *options: str, code: int = 0, variables: Mapping[str, str] | None = None) -> str:
        return plain(
            self.run("apply", "-auto-approve", "-no-color", "-input=false", *options, code=code, variables=variables)
        )

    def plan(self, *options: str, code: int | None = None, variables: Mapping[str, str] | None = None) -> str:
        return plain(self.run("plan", "-no-color", "-input=false", *options, code=code, variables=variables))

    def changes_nothing(self) -> None:
        """A plan is empty."""
        self.run("plan", "-no-color", "-input=false", "-detailed-exitcode")

    def destroy(self, *options: str, code: int = 0) -> str:
        return plain(self.run("destroy", "-auto-approve", "-no-color", "-input=false", *options, code=code))

    def state(self) -> dict[str, dict[str, Any]]:
        """The attributes of each resource and data source, by address, as the state file has them."""
        stored = json.loads((self.directory / "terraform.tfstate").read_text())
        return {
            ("data." if each["mode"] == "data" else "") + f"{each['type']}.{each['name']}": each["instances"][0][
                "attributes"
            ]
            for each in stored["resources"]
        }


def plain(said: str) -> str:
    """What terraform says, without frames and line breaks of its own."""
    return " ".join(said.replace("│", " ").replace("╷", " ").replace("╵", " ").split())


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    terraform = shutil.which("terraform")
    if terraform is None:
        pytest.skip("terraform is not on the PATH, so nothing tries the provider")
    assert PROVIDER_PYTHON.exists(), "the provider has no environment: make terraform-provider"
    home = tmp_path_factory.mktemp("terraform-home")
    plugins = home / ".terraform.d" / "plugins"
    subprocess.run([PROVIDER_PYTHON, "-m", "justiam_provider.install", plugins], check=True, capture_output=True)
    initialised = tmp_path_factory.mktemp("initialised")
    (initialised / "versions.tf").write_text(VERSIONS)
    ready = Installed(terraform, home, initialised)
    # Plain: it is found in the plugin directory, and no network is there to ask.
    subprocess.run(
        [terraform, "init", "-no-color", "-input=false"],
        cwd=initialised,
        env=ready.environment(),
        check=True,
        capture_output=True,
    )
    return ready


@pytest.fixture(scope="module")
async def house(new_database: Databases) -> AsyncIterator[House]:
    """The record behind the service; shared by the tests of a module."""
    with new_database() as url:
        async with open_house(url) as house:
            yield house


@pytest.fixture(scope="module")
def address(house: House, temporal: TestingTemporal, temporal_client: Client) -> Iterator[str]:
    """The API, with the real Temporal behind it."""
    assert temporal_client is not None
    chosen = settings(house.url).model_copy(update={"temporal_address": temporal.address})
    with served(chosen) as url:
        yield url


@pytest.fixture
def workspace(installed: Installed, address: str, house: House, tmp_path: Path) -> Workspace:
    """An empty directory, with the administrator's token in the environment."""
    return Workspace(installed, tmp_path, JUSTIAM_ENDPOINT=address, JUSTIAM_TOKEN=house.admin.token)


@pytest.fixture(scope="module")
def attached(installed: Installed, address: str, house: House) -> Iterator[dict[str, str]]:
    """A provider that runs already. Terraform starts one three times a command, which is most of what a test takes.

    Installed and started as people have it, it is in the tests of the specification, the example and the refusals.
    """
    command = [str(PROVIDER_PYTHON), "-m", "justiam_provider", "--debug"]
    environment = installed.environment(JUSTIAM_ENDPOINT=address, JUSTIAM_TOKEN=house.admin.token)
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as provider:
        assert provider.stdout is not None
        try:
            yield {"TF_REATTACH_PROVIDERS": provider.stdout.readline().strip()}
        finally:
            provider.terminate()


@pytest.fixture
def configured(installed: Installed, address: str, house: House, attached: dict[str, str], tmp_path: Path) -> Workspace:
    """The surroundings, under names that no other test has."""
    workspace = Workspace(installed, tmp_path, JUSTIAM_ENDPOINT=address, JUSTIAM_TOKEN=house.admin.token, **attached)
    workspace.write(SURROUNDINGS.replace("MARK", uuid4().hex[:8]), "surroundings.tf")
    return workspace
