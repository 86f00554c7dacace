"""`justiam dev` as its users meet it: started, killed, started again."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx
import psutil
import pytest
from temporalio.client import Client

from tests.dev.running import (
    STOP_TIMEOUT_SECS,
    Dev,
    is_alive,
    start_in_vain,
    wait_until,
)
from tests.documented import ROOT, blocks

SHOWN: Final = {
    "README.md": ['{"roles":["db_readonly"]}', "revoked\n{}\n", '"event": "access_request.approved"'],
    "docs/signals.md": [
        "approved by bob@example.com\n",
        "There is no signal “aprove”",
        "Nobody decides their own request",
        '"refusals":3',
    ],
    "docs/tokens.md": ['"active":true', '"username":"alice@example.com"'],
}
"""What comes of pasting a page's shell blocks one after the other."""


def cancel_pending(dev: Dev, name: str) -> int:
    """Cancels what somebody waits for; how much that was."""
    cancelled = 0
    user, requests = dev.description["users"][name], f"{dev.description['api_url']}/api/v1/access-requests"
    with httpx.Client(headers={"Authorization": f"Bearer {user['token']}"}) as http:
        for request in http.get(requests).raise_for_status().json()["items"]:
            if request["status"] == "pending":
                http.post(f"{requests}/{request['id']}/revoke").raise_for_status()
                cancelled += 1
    return cancelled


def submit(dev: Dev, name: str) -> None:
    user, api = dev.description["users"][name], f"{dev.description['api_url']}/api/v1"
    with httpx.Client(headers={"Authorization": f"Bearer {user['token']}"}) as http:
        template = http.get(f"{api}/access-request-templates").raise_for_status().json()["items"][0]
        body = {"template_id": template["id"], "requested_duration_mins": 60, "justification": "To be looked at."}
        http.post(f"{api}/access-requests", json=body).raise_for_status()


def pasted(dev: Dev, directory: Path, page: Path) -> str:
    """What a page's shell blocks say when they are pasted one after the other."""
    (directory / ".justiam").symlink_to(dev.data_dir)
    (directory / ".venv").symlink_to(sys.prefix)
    for block in blocks(page, "python"):
        (directory / "decide.py").write_text(block)
    shown = [block for block in blocks(page, "sh") if not block.startswith("make ")]
    script = "\n".join(["set -euo pipefail", *shown])
    done = subprocess.run(
        ["bash", "-c", script], cwd=directory, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    with Dev(tmp_path_factory.mktemp("dev") / "data") as running:
        yield running


class TestRunning:
    async def test_describes_itself_once_everything_answers(self, dev: Dev) -> None:
        described = dev.description
        assert list(described) == [
            "api_url",
            "temporal_address",
            "temporal_ui_url",
            "temporal_namespace",
            "database_url",
            "users",
        ]
        assert dev.query("SELECT 1") == [(1,)]
        # Go's library is compiled when the first script in Go is saved, not while people begin to try the service.
        assert not (dev.data_dir / "scripts" / "standard").exists()
        async with httpx.AsyncClient(follow_redirects=True) as http:
            for url in (f"{described['api_url']}/docs", described["temporal_ui_url"]):
                assert (await http.get(url)).is_success
        client = await Client.connect(described["temporal_address"], namespace=described["temporal_namespace"])
        assert await client.service_client.check_health()

    def test_gives_the_demo_people_tokens_that_work(self, dev: Dev) -> None:
        users = dev.description["users"]
        assert set(users) == {"admin", "alice", "bob", "carol", "erin"}
        for name, user in users.items():
            assert user["email"] == f"{name}@example.com"
            me = httpx.get(
                f"{dev.description['api_url']}/api/v1/users/me", headers={"Authorization": f"Bearer {user['token']}"}
            )
            assert me.json()["id"] == user["id"]

    def test_prints_a_request_that_works_when_pasted(self, dev: Dev) -> None:
        line = next(line for line in dev.output.splitlines() if "curl" in line and "/access-requests " in line)
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
        submitted = json.loads(done.stdout)
        assert submitted["status"] == "pending"
        assert submitted["requester"]["email"] == "alice@example.com"

    @pytest.mark.skipif(shutil.which("curl") is None, reason="the documentation shows curl")
    @pytest.mark.parametrize("page", ["README.md", "docs/signals.md", "docs/tokens.md"])
    def test_runs_what_the_documentation_shows(self, dev: Dev, tmp_path: Path, page: str) -> None:
        cancel_pending(dev, "alice")
        said = pasted(dev, tmp_path, ROOT / page)
        for text in SHOWN[page]:
            assert text in said, said
        assert not cancel_pending(dev, "alice"), "it is in the way of who pastes the next page, or this one again"

    @pytest.mark.skipif(shutil.which("bash") is None, reason="the documentation is for bash")
    async def test_runs_what_operators_are_shown(self, dev: Dev, tmp_path: Path) -> None:
        page = ROOT / "docs/temporal-ui.md"
        cancel_pending(dev, "alice")
        submit(dev, "alice")
        client = await Client.connect(dev.description["temporal_address"])
        queries = [line for block in blocks(page, "text") for line in block.splitlines() if " = '" in line]
        assert queries
        for query in queries:
            await client.count_workflows(query)
        waiting = next(query for query in queries if "'pending'" in query)
        # Temporal's list lags behind.
        async with asyncio.timeout(60):
            while not (await client.count_workflows(waiting)).count:
                await asyncio.sleep(0.2)
        said = pasted(dev, tmp_path, page)
        assert "Workflow terminated" in said
        assert "   holds  Every pending or approved request has a running workflow." in said

    def test_keeps_secrets_from_other_accounts(self, dev: Dev) -> None:
        assert dev.data_dir.stat().st_mode & 0o777 == 0o700
        for name in ("dev.json", "users.json", "secret.key", "postgres/password"):
            assert (dev.data_dir / name).stat().st_mode & 0o777 == 0o600

    def test_refuses_a_second_instance_on_its_data(self, dev: Dev) -> None:
        said = start_in_vain(dev.data_dir)
        assert said.count("\n") == 1
        assert f"process {dev.process.pid}" in said
        assert dev.description["api_url"] in said
        assert "--data-dir" in said

    @pytest.mark.parametrize(
        ("option", "key"),
        [("--port", "api_url"), ("--temporal-port", "temporal_address"), ("--temporal-ui-port", "temporal_ui_url")],
    )
    def test_names_a_busy_port_and_its_option(self, dev: Dev, tmp_path: Path, option: str, key: str) -> None:
        port = dev.description[key].rpartition(":")[2]
        said = start_in_vain(tmp_path / "data", option, port)
        assert said == f"Port {port} is in use: choose another with {option}, or {option} 0 for any free one\n"

    @pytest.mark.parametrize("name", ["PostgreSQL", "Temporal", "worker", "API", "scripts"])
    def test_starts_again_what_was_killed(self, dev: Dev, name: str) -> None:
        before = dev.output.count(f"{name} is ready again")
        killed = dev.children()[name]
        killed.kill()
        dev.wait_for(f"{name} is ready again", times=before + 1)
        assert dev.children()[name].pid != killed.pid
        assert f"{name} was ended by SIGKILL; starting it again" in dev.output
        token = dev.description["users"]["alice"]["token"]

        def answers() -> bool:
            url = f"{dev.description['api_url']}/api/v1/access-requests"
            return httpx.get(url, headers={"Authorization": f"Bearer {token}"}).is_success

        wait_until(answers, 60)


async def test_keeps_everything_when_all_of_it_is_killed(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with Dev(data_dir) as first:
        first.query("CREATE TABLE public.kept AS SELECT 42 AS n")
        users = first.description["users"]
        client = await Client.connect(first.description["temporal_address"])
        await client.start_workflow("Nobody", id="kept", task_queue="nobody")
        children = first.children()
        first.process.kill()
        for child in (children["PostgreSQL"], children["Temporal"]):
            child.kill()
        first.process.wait()
        # What nobody killed, its supervisor's end did (on Linux), or the next start does.
        with Dev(data_dir) as second:
            assert not any(is_alive(child) for child in children.values())
            assert second.query("SELECT n FROM public.kept") == [(42,)]
            assert second.description["users"] == users
            client = await Client.connect(second.description["temporal_address"])
            assert (await client.get_workflow_handle("kept").describe()).workflow_type == "Nobody"
            children = second.children()
            second.process.send_signal(signal.SIGINT)
            assert second.process.wait(STOP_TIMEOUT_SECS) == 0
            assert not (data_dir / "dev.json").exists()
            assert not any(is_alive(child) for child in children.values())
            stopped = re.findall(r"(\w+) +stopped", second.output)
            assert stopped == ["scripts", "API", "worker", "Temporal", "PostgreSQL"]


def test_stops_cleanly_while_it_starts(tmp_path: Path) -> None:
    dev = Dev(tmp_path / "data", "--no-demo")
    dev.start()
    dev.wait_for("  worker ")
    children = dev.children()
    dev.process.send_signal(signal.SIGINT)
    assert dev.process.wait(STOP_TIMEOUT_SECS) == 0
    assert "demo data" not in dev.output
    assert not any(is_alive(child) for child in children.values())
    assert not (dev.data_dir / "dev.json").exists()


def test_ends_the_children_of_a_killed_instance(tmp_path: Path) -> None:
    # As they are left where the kernel does not end orphans.
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    with subprocess.Popen(["sleep", "60"]) as ours, subprocess.Popen(["sleep", "60"]) as stranger:
        started = psutil.Process(ours.pid).create_time()
        children = [
            {"name": "worker", "pid": ours.pid, "started": started, "signal": signal.SIGTERM.value},
            {"name": "API", "pid": stranger.pid, "started": started - 3_600, "signal": signal.SIGTERM.value},
        ]
        (data_dir / "children.json").write_text(json.dumps({"children": children}))
        with socket.create_server(("127.0.0.1", 0)) as taken:
            start_in_vain(data_dir, "--port", str(taken.getsockname()[1]))
        assert ours.wait(60) == -signal.SIGTERM
        assert stranger.poll() is None
        stranger.kill()


def test_a_data_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    place = tmp_path / "file" / "data"
    said = start_in_vain(place)
    assert said == f"Cannot write the data directory {place}: Not a directory. Choose another with --data-dir\n"
