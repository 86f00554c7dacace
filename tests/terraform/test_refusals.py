"""What cannot be is said early, once, and where it stands in the configuration."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Final
from uuid import uuid4

import pytest

from tests.api.house import House
from tests.terraform.conftest import ROOT, Installed, Workspace
from tests.tokens.issuer import QuietServer

NOBODY: Final = str(uuid4())
TOKEN: Final = "justiam_a_token_that_nobody_may_read"
ONE_GROUP: Final = 'resource "justiam_group" "group" {\n  name = "one group"\n}\n'

GROUPS: Final = 'resource "justiam_group" "group" {\n  count = 3\n  name  = "group ${count.index}"\n}\n'

INVALID: Final = f"""
resource "justiam_access_request_template" "numbers" {{
  name                  = "x"
  app_id                = "{NOBODY}"
  allowed_durations     = [60, 0, 60.5]
  escalation_after_mins = 600000
  notification_count    = 0
}}
resource "justiam_access_request_template" "words" {{
  name                      = " "
  app_id                    = "internal-db"
  mapping_ids               = ["{NOBODY}", "reader"]
  notification_policy       = "some"
  trigger_task_failure_mode = "explode"
}}
resource "justiam_access_request_template" "together" {{
  name                = "x"
  app_id              = "{NOBODY}"
  approver_group_ids  = ["{NOBODY}"]
  escalation_group_id = "{NOBODY}"
}}
resource "justiam_access_request_template" "twice" {{
  name              = "x"
  app_id            = "{NOBODY}"
  allowed_durations = [60, 60]
}}
resource "justiam_access_request_template" "json" {{
  name          = "x"
  app_id        = "{NOBODY}"
  custom_fields = "[{{"
}}
resource "justiam_access_request_template" "repeated" {{
  name          = "x"
  app_id        = "{NOBODY}"
  custom_fields = <<-JSON
    [{{"label": "Region", "label": "Ticket", "type": "text"}}]
  JSON
}}
resource "justiam_access_request_template" "fields" {{
  name          = "x"
  app_id        = "{NOBODY}"
  custom_fields = jsonencode([{{ label = "Region", type = "select" }}, {{ type = "date", color = "red" }}])
}}
resource "justiam_scheduled_task" "schedule" {{
  name          = "x"
  script        = "def run(): ..."
  schedule_type = "interval"
  cron          = "0 6 * * 1-5"
}}
resource "justiam_scheduled_task" "cron" {{
  name          = "x"
  script        = "def run(): ..."
  schedule_type = "cron"
  cron          = "daily"
}}
resource "justiam_integration" "target" {{
  name    = "x"
  target  = "slack"
  events  = ["access_request.closed"]
  task_id = "{NOBODY}"
}}
resource "justiam_integration" "roles" {{
  name   = "x"
  target = "webhook"
  events = ["access_request.denied"]
  roles  = ["approver"]
}}
resource "justiam_secret" "name" {{
  name = "slack-webhook"
}}
resource "justiam_group" "permissions" {{
  name        = "x"
  permissions = ["everything"]
}}
resource "justiam_user" "email" {{
  name  = "x"
  email = "dana"
}}
"""
SAID: Final = (
    ("numbers", "allowed_durations = [60, 0, 60.5]", "must be a whole number from 1 to"),
    ("numbers", "escalation_after_mins = 600000", "must be a whole number from 1 to 525600."),
    ("numbers", "notification_count = 0", "must be a whole number from 1 to 1000."),
    ("words", 'name = " "', "must have 1 to 200 characters."),
    ("words", 'app_id = "internal-db"', "must be a UUID, such as the id of another resource."),
    ("words", f'mapping_ids = ["{NOBODY}", "reader"]', "must be a UUID, such as the id of another resource."),
    ("words", 'notification_policy = "some"', 'one of all, first_n, random_n, round_robin; it is "some".'),
    ("words", 'trigger_task_failure_mode = "explode"', 'one of ignore, retry, block; it is "explode".'),
    ("together", f'escalation_group_id = "{NOBODY}"', "must not be one of approver_group_ids"),
    ("twice", "allowed_durations = [60, 60]", "must not name the same value twice."),
    ("json", 'custom_fields = "[{"', "must be JSON; use jsonencode"),
    ("repeated", "custom_fields =", 'the name "label" stands more than once in one object'),
    ("fields", "custom_fields =", "options belong to select and multi_select, which need at least one."),
    ("fields", "custom_fields =", "custom field 1: color is not a known property"),
    ("fields", "custom_fields =", "custom field 1: label is required."),
    ("fields", "custom_fields =", "custom field 1: type must be one of text, textarea"),
    ("schedule", "", "interval_seconds goes with schedule_type interval, and only with that."),
    ("schedule", 'cron = "0 6 * * 1-5"', "cron goes with schedule_type cron, and only with that."),
    ("cron", 'cron = "daily"', "must be five fields, as in 0 6 * * 1-5."),
    ("target", 'events = ["access_request.closed"]', "must be one of access_request.submitted"),
    ("roles", 'roles = ["approver"]', "roles goes with target email only."),
    ("roles", "", "url goes with target webhook, and only with that."),
    ("name", 'name = "slack-webhook"', "must be capitals, digits and _, beginning with a capital."),
    ("permissions", 'permissions = ["everything"]', "must be one of access_requests.manage"),
    ("email", 'email = "dana"', "must be an email address."),
)


def test_a_plan_refuses_what_is_known_to_be_wrong(workspace: Workspace) -> None:
    workspace.write(INVALID)
    # Not even a service is needed.
    said = workspace.run("validate", "-no-color", code=1, variables={"JUSTIAM_ENDPOINT": "", "JUSTIAM_TOKEN": ""})
    errors = [" ".join(each.replace("│", " ").split()) for each in said.split("Error: ")]
    for resource, line, message in SAID:
        assert [
            each for each in errors if f'"{resource}"' in each and line in " ".join(each.split()) and message in each
        ], (resource, line, message, said)


async def test_what_the_service_refuses_is_said_of_the_argument(workspace: Workspace, house: House) -> None:
    taken = await house.group(f"taken {uuid4().hex[:8]}")
    workspace.write(
        f"""
resource "justiam_application" "app" {{ name = "Refusals {uuid4().hex[:8]}" }}
resource "justiam_group" "taken" {{
  name = "{taken.name}"
}}
resource "justiam_access_request_template" "unknown" {{
  name               = "x"
  app_id             = justiam_application.app.id
  approver_group_ids = ["{taken.id}", "{NOBODY}"]
  trigger_task_id    = "{NOBODY}"
}}
resource "justiam_app_mapping" "reserved" {{
  app_id = justiam_application.app.id
  name   = "x"
  claim  = "sub"
  value  = "x"
}}
resource "justiam_app_mapping" "attached" {{
  app_id    = justiam_application.app.id
  name      = "attached"
  claim     = "roles"
  value     = "x"
  group_ids = ["{taken.id}", "ffffffff-ffff-4fff-bfff-ffffffffffff"]
}}
"""
    )
    said = workspace.apply(code=1)
    assert re.search(r'name = "taken \w+" .*? \(in_use\) If it is the same group, import it by its id', said)
    assert re.search(r"Cannot create the template .*approver_group_ids = \[.*there is no group with this id\.", said)
    assert re.search(r"trigger_task_id = \S+ there is no scheduled task with this id\.", said)
    assert re.search(r'claim = "sub" .*has a meaning of its own in tokens', said)
    assert re.search(r"group_ids = \[.*\] There is no group with this id\.", said)
    # What was made all the same is kept, with what it has, and is not made twice.
    kept = workspace.state()["justiam_app_mapping.attached"]
    assert kept["group_ids"] == [str(taken.id)]


def test_what_is_not_known_yet_is_waited_for(workspace: Workspace) -> None:
    mark = uuid4().hex[:8]
    workspace.write(
        f"""
resource "terraform_data" "later" {{ input = "{mark}" }}
resource "justiam_application" "app" {{ name = "App ${{terraform_data.later.output}}" }}
resource "justiam_group" "group" {{ name = "group ${{terraform_data.later.output}}" }}
resource "justiam_access_request_template" "template" {{
  name               = terraform_data.later.output
  app_id             = justiam_application.app.id
  approver_group_ids = [justiam_group.group.id]
  allowed_durations  = [for minutes in [60, 120] : minutes + length(terraform_data.later.output)]
  custom_fields      = jsonencode([{{ label = terraform_data.later.output, type = "text" }}])
  auto_approve       = terraform_data.later.output == ""
  escalation_after_mins = length(terraform_data.later.output)
}}
resource "justiam_scheduled_task" "task" {{
  name          = "task ${{terraform_data.later.output}}"
  script        = "def run(): ... # ${{terraform_data.later.output}}"
  schedule_type = terraform_data.later.output == "" ? "once" : "interval"
  interval_seconds = length(terraform_data.later.output) + 60
}}
data "justiam_group" "group" {{ name = justiam_group.group.name }}
"""
    )
    workspace.apply()
    workspace.changes_nothing()
    template = workspace.state()["justiam_access_request_template.template"]
    assert template["allowed_durations"] == [68, 128]
    assert template["escalation_after_mins"] == 8


# A service that cannot be used


@contextmanager
def answering(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """A server that is none of ours."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def do_POST(self) -> None:
            answer(self)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = QuietServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def saying(
    status: int, body: str = "<h1>Hello</h1>", kind: str = "text/html", **headers: str
) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body.encode())

    return answer


@pytest.fixture
def nowhere(installed: Installed, tmp_path: Path) -> Workspace:
    """A configuration with several resources, and no service yet."""
    there = Workspace(installed, tmp_path, JUSTIAM_TOKEN=TOKEN)
    there.write(GROUPS)
    return there


def only_error(said: str) -> str:
    assert said.count("Error: ") == 1, said
    return said.partition("Error: ")[2]


class TestConfiguration:
    def test_comes_from_the_block_or_from_the_environment(self, workspace: Workspace, house: House) -> None:
        workspace.write(f'resource "justiam_group" "group" {{\n  name = "{uuid4().hex}"\n}}\n')
        variables = workspace._variables
        block = (
            f'provider "justiam" {{\n  endpoint = "{variables["JUSTIAM_ENDPOINT"]}/api/v1/"\n'
            f'  token    = " {house.admin.token} "\n}}\n'
        )
        versions = (workspace.directory / "versions.tf").read_text()
        workspace.write(versions.replace('provider "justiam" {}', block), "versions.tf")
        # What stands in the block counts.
        said = workspace.apply(
            variables={"JUSTIAM_ENDPOINT": "http://127.0.0.1:1", "JUSTIAM_TOKEN": TOKEN, "TF_LOG": "TRACE"}
        )
        assert house.admin.token not in said
        assert house.admin.token not in (workspace.directory / "terraform.tfstate").read_text()

    def test_is_asked_for_where_it_is_missing(self, nowhere: Workspace) -> None:
        said = nowhere.plan(code=1, variables={"JUSTIAM_TOKEN": ""})
        assert "Give endpoint in the provider block, or set JUSTIAM_ENDPOINT." in said
        assert "Give token in the provider block, or set JUSTIAM_TOKEN." in said

    @pytest.mark.parametrize(
        ("endpoint", "reason"),
        [
            ("http://access.example.com", "everybody on the way could read the token: use https://."),
            ("ftp://access.example.com", "It is not the URL of a service"),
            ("https://[", "It is not the URL of a service"),
            ("https://user:word@access.example.com", "It must not hold a user or a password"),
        ],
    )
    def test_a_token_is_not_sent_where_others_could_read_it(
        self, nowhere: Workspace, endpoint: str, reason: str
    ) -> None:
        said = only_error(nowhere.plan(code=1, variables={"JUSTIAM_ENDPOINT": endpoint}))
        assert "Invalid JUSTIAM_ENDPOINT" in said
        assert reason in said


class TestOneError:
    def test_for_a_wrong_token(self, workspace: Workspace) -> None:
        workspace.write(GROUPS)
        said = only_error(workspace.plan(code=1, variables={"JUSTIAM_TOKEN": TOKEN}))
        assert "JustIAM does not know the token" in said
        assert "Make a new token with `justiam token create`." in said

    def test_for_a_server_that_cannot_be_reached(self, nowhere: Workspace) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        said = only_error(nowhere.plan(code=1, variables={"JUSTIAM_ENDPOINT": f"http://127.0.0.1:{port}"}))
        assert f"Cannot reach http://127.0.0.1:{port}: Connection refused." in said

    def test_for_one_that_is_silent(self, nowhere: Workspace) -> None:
        versions = (nowhere.directory / "versions.tf").read_text()
        block = 'provider "justiam" {\n  timeout_seconds = 1\n}'
        nowhere.write(versions.replace('provider "justiam" {}', block), "versions.tf")
        with socket.create_server(("127.0.0.1", 0)) as silent:
            endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
            said = only_error(nowhere.plan(code=1, variables={"JUSTIAM_ENDPOINT": endpoint}))
        assert f"{endpoint} did not answer in time." in said

    @pytest.mark.parametrize(
        ("answer", "reason"),
        [
            (saying(200), "does not answer like JustIAM. Is the address right?"),
            (saying(200, "[]", "application/json"), "does not answer like JustIAM. Is the address right?"),
            (saying(404), "answered 404, and not like JustIAM. Is the address right?"),
            (saying(302, Location="https://login.example.com/"), "sends us on to https://login.example.com/."),
        ],
        ids=["a page", "other JSON", "not found", "a redirect"],
    )
    def test_for_one_that_is_not_ours(
        self, nowhere: Workspace, answer: Callable[[BaseHTTPRequestHandler], None], reason: str
    ) -> None:
        with answering(answer) as endpoint:
            said = only_error(nowhere.plan(code=1, variables={"JUSTIAM_ENDPOINT": endpoint}))
        assert reason in said

    def test_for_one_that_stays_busy(self, nowhere: Workspace) -> None:
        versions = (nowhere.directory / "versions.tf").read_text()
        block = 'provider "justiam" {\n  retry_seconds = 1\n}'
        nowhere.write(versions.replace('provider "justiam" {}', block), "versions.tf")
        began = time.monotonic()
        with answering(saying(429)) as endpoint:
            said = only_error(nowhere.plan(code=1, variables={"JUSTIAM_ENDPOINT": endpoint}))
        assert "answered 429 Too Many Requests." in said
        # It repeats for 30 seconds unless told otherwise.
        assert time.monotonic() - began < 30


def test_a_busy_service_is_waited_for(nowhere: Workspace) -> None:
    """Each call is put off once, a creation too: nothing was carried out, and the service said so."""
    calls: list[str] = []
    lock = threading.Lock()
    me = '{"permissions": []}'
    group = json.dumps({"id": NOBODY, "name": "one group", "description": "", "permissions": []})

    def answer(handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers.get("Content-Length") or 0)
        handler.rfile.read(length)
        call = f"{handler.command} {handler.path}"
        with lock:
            calls.append(call)
            times = calls.count(call)
        if times == 1:
            saying(503 if handler.command == "POST" else 429, Retry_After="0")(handler)
        elif handler.path.endswith("/users/me"):
            saying(200, me, "application/json")(handler)
        else:
            saying(201, group, "application/json")(handler)

    nowhere.write(ONE_GROUP)
    with answering(answer) as endpoint:
        said = nowhere.apply(variables={"JUSTIAM_ENDPOINT": endpoint})
    assert "1 added" in said
    assert calls.count("POST /api/v1/groups") == 2


def test_a_template_is_not_made_twice(nowhere: Workspace) -> None:
    """No name keeps two templates apart, and a database that falls silent may have written the first."""
    calls: list[str] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        calls.append(handler.command)
        if handler.command == "GET":
            saying(200, '{"permissions": []}', "application/json")(handler)
        else:
            problem = {"code": "record_unavailable", "detail": "The database did not answer in time. Try again."}
            saying(503, json.dumps(problem), "application/problem+json", Retry_After="0")(handler)

    nowhere.write(f'resource "justiam_access_request_template" "x" {{\n  name = "x"\n  app_id = "{NOBODY}"\n}}\n')
    with answering(answer) as endpoint:
        said = nowhere.apply(code=1, variables={"JUSTIAM_ENDPOINT": endpoint})
    assert "The change may have been carried out all the same: look before you repeat it." in said
    assert calls.count("POST") == 1


def test_an_interrupted_run_keeps_what_it_was_making(nowhere: Workspace, installed: Installed) -> None:
    """Ctrl-C reaches Terraform and the provider alike; what is under way is finished and recorded."""
    under_way = threading.Event()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        if handler.path.endswith("/users/me"):
            saying(200, '{"permissions": []}', "application/json")(handler)
        else:
            under_way.set()
            time.sleep(1.5)
            made = {"id": NOBODY, "name": "one group", "description": "", "permissions": []}
            saying(201, json.dumps(made), "application/json")(handler)

    nowhere.write(ONE_GROUP)
    with answering(answer) as endpoint:
        process = subprocess.Popen(
            [installed.terraform, "apply", "-auto-approve", "-no-color"],
            cwd=nowhere.directory,
            env=installed.environment(JUSTIAM_ENDPOINT=endpoint, JUSTIAM_TOKEN=TOKEN),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        assert under_way.wait(30)
        os.killpg(process.pid, signal.SIGINT)
        said, _ = process.communicate(timeout=30)
    assert "Interrupt received" in said
    assert nowhere.state()["justiam_group.group"]["id"] == NOBODY


def test_a_state_of_an_earlier_version_is_understood(workspace: Workspace) -> None:
    workspace.write(f'resource "justiam_group" "group" {{\n  name = "{uuid4().hex}"\n}}\n')
    workspace.apply()
    path = workspace.directory / "terraform.tfstate"
    stored = json.loads(path.read_text())
    # An attribute that the version which wrote it did not know.
    del stored["resources"][0]["instances"][0]["attributes"]["permissions"]
    path.write_text(json.dumps(stored))
    workspace.changes_nothing()


def test_a_development_override_needs_no_installation(workspace: Workspace) -> None:
    page = (ROOT / "docs" / "terraform" / "index.md").read_text()
    block = next(each for each in re.findall(r"```hcl\n(.*?)```", page, re.DOTALL) if "dev_overrides" in each)
    cli = workspace.directory / "cli.tfrc"
    cli.write_text(block.replace("/path/to/justiam", str(ROOT)))
    shutil.rmtree(workspace.directory / ".terraform")
    (workspace.directory / ".terraform.lock.hcl").unlink()
    workspace.write(ONE_GROUP)
    said = workspace.plan(code=0, variables={"TF_CLI_CONFIG_FILE": str(cli)})
    assert "Provider development overrides are in effect" in said
    assert "1 to add" in said
