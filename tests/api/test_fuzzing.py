"""What schemathesis makes of the OpenAPI document is sent to the running service, by callers of every kind.

No answer is a 500, and each is as the document says: status, media type, schema, headers. Then it follows the links
from what was made, and looks whether what was deleted is gone. `make fuzz` does the same for longer.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest

from tests.api.house import House, served
from tests.api.scene import Scene

SCHEMATHESIS: Final = Path(sys.executable).parent / "schemathesis"
LONGEST_LINE: Final = 400
"""Of its report: it repeats bodies as large as those that it sends."""
THINGS: Final = 4
"""Of each kind, before anything is sent."""

CHECKS: Final = """
[phases.stateful.inference]
# The links are those of the document, which clients follow.
algorithms = []

[checks]
# A schema cannot say which ids there are, which cursors were given out, or which values go together (422); that what
# it allows is understood at all (no 400, 405, 413, 415) is left to check.
positive_data_acceptance.expected-statuses = ["2xx", 401, 403, 404, 409, 412, 422]
# The default, and 413 for what is too large by its schema already.
negative_data_rejection.expected-statuses = [400, 401, 403, 404, 405, 409, 412, 413, 415, 422]

[[operations]]
# To the framework it is one of /users/{user_id}, with the methods of that path and an id that is refused (422).
include-operation-id = "get_me"
checks.unsupported_method.enabled = false
checks.allow_header_conformance.enabled = false

[[operations]]
# What SCIM clients send is read as RFC 7644 has it: names in any case, true as a text, the unknown ignored.
include-path-regex = "^/scim/"
checks.negative_data_rejection.enabled = false
checks.positive_data_acceptance.expected-statuses = ["2xx", 400, 401, 403, 404, 409, 412]
"""

# Whose token a call has where the caller of the run could not get anywhere.
INSTEAD: Final = {"submit_request": "asker", "approve_request": "appr", "deny_request": "appr"}

# Where what exists has to be named for anything to come of it, by the parameter or field.
IDS: Final = {
    **{f"path.{name}": name for name in ("template_id", "request_id", "user_id", "group_id", "app_id", "mapping_id")},
    **{f"path.{name}": name for name in ("task_id", "run_id", "secret_id", "token_id")},
    "query.app_id": "app_id",
    "query.template_id": "template_id",
    "body.app_id": "app_id",
    "body.template_id": "template_id",
    "body.trigger_task_id": "task_id",
    "body.task_id": "task_id",
    "body.requested_duration_mins": "minutes",
    "body.owner_id": "user_id",
    "body.user_id": "user_id",
    "body.escalation_group_id": "group_id",
    "body.mapping_ids[*]": "mapping_id",
    "body.approver_group_ids[*]": "group_id",
    "body.allowed_group_ids[*]": "group_id",
}
# What a caller could do to themselves, which would leave them with nothing to call: only to things that are nobody's.
NEVER_OWN: Final = {"path.token_id", "path.user_id", "path.group_id"}
OFTEN: Final = 0.8
WALKS: Final = 15
"""From what was made along the links, for each case of a route."""


@pytest.fixture(scope="module")
async def address(stack: House) -> AsyncIterator[str]:
    """Where the service listens, as its own server serves it."""
    async with served(stack.app) as url:
        yield url


@pytest.fixture(scope="module")
async def scene(stack: House) -> Scene:
    return await Scene.set(stack)


async def _things(scene: Scene) -> dict[str, list[str]]:
    """Ids of things that are there and that no caller needs."""
    ids: dict[str, list[str]] = defaultdict(list)
    for _ in range(THINGS):
        for made in (
            {"request_id": (await scene.request())["request_id"]},
            {"request_id": (await scene.without_approvers())["request_id"]},
            {"request_id": (await scene.granted())["request_id"]},
            # Nobody has asked for these, so that they can be asked for.
            await scene.template(require_justification=False),
            await scene.template(require_justification=False, auto_approve=True),
            await scene.mapping(),
            {"token_id": (await scene.about_the_bot())["token_id"]},
            await scene.task(),
            await scene.secret(),
        ):
            for name, value in made.items():
                if name.endswith("_id"):
                    ids[name].append(str(value))
    return ids


def _configuration(scene: Scene, caller: str, ids: dict[str, list[str]], cases: int) -> str:
    def header(name: str) -> str:
        token = scene.callers[name].token if name in scene.callers else "nobody"
        return f"headers = {{ Authorization = {json.dumps(f'Bearer {token}')} }}"

    lines = [
        header(caller),
        "[generation]",
        f"max-examples = {cases}",
        "[phases.stateful.generation]",
        f"max-examples = {cases * WALKS}",
        "[dictionaries]",
        "minutes = { values = [60] }",
    ]
    lines += [f"{name} = {{ values = {json.dumps(values)} }}" for name, values in ids.items()]
    lines.append("[parameters]")
    lines += [
        f'"{place}" = {{ dictionary = "{name}", probability = {1.0 if place in NEVER_OWN else OFTEN} }}'
        for place, name in IDS.items()
    ]
    lines.append(CHECKS)
    if caller == "root":
        for operation, other in INSTEAD.items():
            lines += ["[[operations]]", f'include-operation-id = "{operation}"', header(other)]
    return "\n".join(lines)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "caller" in metafunc.fixturenames:
        metafunc.parametrize("caller", metafunc.config.getoption("--fuzz-as").split(","))


@pytest.mark.timeout(300)
async def test_each_answer_is_as_documented(
    scene: Scene, address: str, tmp_path: Path, pytestconfig: pytest.Config, caller: str
) -> None:
    configuration = tmp_path / "schemathesis.toml"
    cases = pytestconfig.getoption("--fuzz-cases")
    configuration.write_text(_configuration(scene, caller, await _things(scene), cases))
    options = {
        # What is at the edge of the document is understood, or not, before anybody asks who calls.
        "phases": "examples,coverage,fuzzing,stateful" if caller == "root" else "fuzzing,stateful",
        "seed": pytestconfig.getoption("--fuzz-seed"),
    }
    process = await asyncio.create_subprocess_exec(
        SCHEMATHESIS,
        f"--config-file={configuration}",
        "run",
        f"{address}/openapi.json",
        *(f"--{name}={value}" for name, value in options.items()),
        "--continue-on-failure",
        "--warnings=off",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        # Its caches and examples are this run's alone: another would not be the same.
        cwd=tmp_path,
        env=os.environ | {"COLUMNS": "120", "NO_COLOR": "1"},
    )
    try:
        output, _ = await process.communicate()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    report = "\n".join(line[:LONGEST_LINE] for line in output.decode().splitlines())
    assert process.returncode == 0, report
    if caller in scene.callers:
        answer = await scene.house.call("GET", "/users/me", scene.callers[caller])
        assert answer.status_code == 200, f"{caller} shut themselves out, and was refused from then on"
