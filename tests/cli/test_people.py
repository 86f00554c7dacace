"""The commands for people against the API."""

from __future__ import annotations

import json
import re
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import pytest

from cli.people import documents, watching
from domain.actors import Permission
from domain.states import Action
from tests.api.house import House, Somebody
from tests.cli.conftest import Desk
from tests.cli.scene import FIELDS, Scene

_PAGE: Final = Path(__file__).parents[2] / "docs" / "cli.md"


@pytest.fixture
async def scene(house: House) -> Scene:
    return await Scene(house).set()


class TestSigningIn:
    async def test_a_token_is_checked_stored_used_and_forgotten(self, desk: Desk, scene: Scene) -> None:
        token = scene.alice.token
        done = await desk.justiam("login", "--server", f"{desk.url}/", "--token-stdin", typed=f"{token}\n")
        assert done.exit_code == 0, done.stderr
        assert done.stdout.startswith(f"Signed in to {desk.url} as Alice")
        file = desk.home / "justiam" / "credentials.json"
        assert file.stat().st_mode & 0o777 == 0o600

        done = await desk.justiam("whoami")
        assert scene.alice.email in done.stdout
        assert str(file) in done.stdout

        done = await desk.justiam("logout")
        assert (done.exit_code, done.stdout) == (0, f"Signed out of {desk.url}.\n")
        assert not file.exists()
        done = await desk.justiam("whoami")
        assert (done.exit_code, done.stderr) == (3, "You are not signed in. Sign in with `justiam login`.\n")
        assert (await desk.justiam("logout")).stdout == "You were not signed in.\n"

    async def test_a_token_that_does_not_work_is_not_stored(self, desk: Desk) -> None:
        done = await desk.justiam("login", "--server", desk.url, JUSTIAM_TOKEN="justi-bad")
        assert done.exit_code == 3
        assert done.stderr.startswith("unauthenticated: ")
        assert not desk.home.exists()

    async def test_without_a_terminal_it_names_the_options(self, desk: Desk) -> None:
        done = await desk.justiam("login")
        assert (done.exit_code, "--server" in done.stderr) == (2, True)
        done = await desk.justiam("login", "--server", desk.url)
        assert (done.exit_code, "--token-stdin" in done.stderr) == (2, True)

    async def test_whoami_shows_what_the_groups_bring(self, desk: Desk, scene: Scene) -> None:
        admin = await scene.house.person(f"admin-{scene.mark}", Permission.REQUESTS)
        done = await desk.justiam("whoami", by=admin)
        assert "access_requests.manage" in done.stdout
        me = await desk.json("whoami", by=admin)
        assert me["permissions"] == ["access_requests.manage"]

    async def test_as_is_for_the_commands_that_act(self, desk: Desk) -> None:
        done = await desk.justiam("--as", "alice", "migrate")
        assert (done.exit_code, "--as" in done.stderr) == (2, True)
        done = await desk.justiam("--as", "alice", "whoami")
        assert (done.exit_code, ".justiam/dev.json" in done.stderr) == (3, True)

    async def test_as_acts_as_somebody_of_the_demo(self, desk: Desk, scene: Scene, tmp_path: Path) -> None:
        users = {"alice": {"token": scene.alice.token}}
        file = tmp_path / ".justiam" / "dev.json"
        file.parent.mkdir()
        file.write_text(json.dumps({"api_url": desk.url, "users": users}))
        done = await desk.justiam("--as", "alice", "whoami")
        assert scene.alice.email in done.stdout


class TestTemplates:
    async def test_a_list_says_what_may_be_asked_for(self, desk: Desk, scene: Scene) -> None:
        closed = await Scene(scene.house).set(allowed_group_ids=[(await scene.house.group(f"closed {scene.mark}")).id])
        done = await desk.justiam("template", "list", by=scene.alice)
        line = next(line for line in done.stdout.splitlines() if scene.template.name in line)
        assert "1h, 8h" in line
        assert re.search(r"by approvers\s+yes", line)
        assert re.search(rf"{closed.template.name}.*\sno\s", done.stdout)
        page = await desk.json("template", "list", by=scene.alice)
        assert {str(scene.template.id), str(closed.template.id)} <= {item["id"] for item in page["items"]}

    async def test_one_is_found_by_name_part_slug_or_id(self, desk: Desk, scene: Scene) -> None:
        for wanted in (scene.template.name.upper(), scene.slug, scene.slug[:-1], str(scene.template.id)):
            assert (await desk.json("template", "show", wanted, by=scene.alice))["id"] == str(scene.template.id)
        done = await desk.justiam("template", "show", scene.slug, by=scene.alice)
        assert f"dba_team {scene.mark}" in done.stdout

    async def test_what_is_ambiguous_is_listed(self, desk: Desk, scene: Scene) -> None:
        await scene.house.template(name=f"Read {scene.mark} and write")
        await scene.house.template(name=f"Read {scene.mark}, all")
        done = await desk.justiam("template", "show", f"read {scene.mark[:7]}", by=scene.alice)
        assert done.exit_code == 2
        assert all(f"{name} (" in done.stderr for name in (f"Read {scene.mark} and write", f"Read {scene.mark}, all"))
        done = await desk.justiam("template", "show", "nothing", by=scene.alice)
        assert (done.exit_code, "`justiam template list`" in done.stderr) == (2, True)


class TestSubmitting:
    async def test_everything_on_one_line(self, desk: Desk, house: House) -> None:
        scene = await Scene(house).set(custom_fields=FIELDS)
        given = ["--duration", "8h", "--justification", "an incident", "-a", "ticket=INC-1", "-a", "region=eu-n"]
        given += ["-a", "Tables=users", "-a", "Tables=orders, old", "-a", "careful=yes"]
        done = await desk.justiam("request", "submit", scene.slug, *given, by=scene.alice)
        assert done.exit_code == 0, done.stderr
        identity = re.findall(r"justiam request watch (\w{8})\n", done.stdout)[0]
        assert f"Asked: {scene.bob.email}" in done.stdout
        request = await desk.json("request", "show", identity, by=scene.alice)
        assert (request["requested_duration_mins"], request["justification"]) == (480, "an incident")
        labels = {field["id"]: field["label"] for field in request["custom_fields"]}
        assert {labels[key]: value for key, value in request["custom_answers"].items()} == {
            "Ticket": "INC-1",
            "Region": "eu-north",
            "Tables": ["users", "orders, old"],
            "Careful": True,
        }
        done = await desk.justiam("request", "show", identity, by=scene.alice)
        assert re.search(r"Tables +users \| orders, old", done.stdout)

    async def test_what_is_missing_is_named_by_its_option(self, desk: Desk, house: House) -> None:
        scene = await Scene(house).set(custom_fields=FIELDS)
        done = await desk.justiam("request", "submit", by=scene.alice)
        assert done.exit_code == 2
        assert "Missing: TEMPLATE, --duration, --justification." in done.stderr
        done = await desk.justiam("request", "submit", scene.slug, "-a", "Ticket=1", by=scene.alice)
        options = "--duration (1h, 8h), --justification, --answer 'Region=…', --answer 'Careful=…'"
        assert f"Missing: {options}." in done.stderr

    @pytest.mark.parametrize(
        ("options", "problem"),
        [
            (["-d", "soon", "-j", "x"], "--duration: 'soon' is no duration"),
            (["-d", "2h", "-j", "x"], "--duration: the template allows 1h, 8h."),
            (["-d", "1h", "-j", "x", "-a", "Ticket=1"], "--answer: this template asks no questions"),
        ],
    )
    async def test_what_is_wrong_is_named_by_its_option(
        self, desk: Desk, scene: Scene, options: list[str], problem: str
    ) -> None:
        done = await desk.justiam("request", "submit", scene.slug, *options, by=scene.alice)
        assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
        assert done.stderr.startswith(problem)

    async def test_what_only_the_service_knows_is_told_by_option_too(self, desk: Desk, scene: Scene) -> None:
        done = await desk.justiam("request", "submit", scene.slug, "-d", "1h", "-j", "x" * 10_001, by=scene.alice)
        assert done.exit_code == 1
        assert done.stderr.startswith("validation_error: --justification: ")

    async def test_a_second_one_says_what_to_do_about_the_first(self, desk: Desk, scene: Scene) -> None:
        await scene.request()
        done = await desk.justiam("request", "submit", scene.slug, "-d", "1h", "-j", "x", by=scene.alice)
        assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
        assert done.stderr.startswith("pending_request_exists: ")
        assert "`justiam request revoke` cancels it." in done.stderr


class TestReading:
    async def test_the_lists_show_whose_turn_it_is(self, desk: Desk, scene: Scene) -> None:
        request_id = str(await scene.request())
        mine = await desk.justiam("request", "list", by=scene.alice)
        assert re.search(rf"{request_id[:8]}  Read {scene.mark}\s+1h\s+pending", mine.stdout)
        waiting = await desk.justiam("request", "list", "--pending", by=scene.bob)
        assert re.search(rf"{request_id[:8]}  {scene.alice.email}", waiting.stdout)
        done = await desk.justiam("request", "list", "--pending", by=scene.alice)
        assert (done.exit_code, done.stdout) == (0, "")
        assert done.stderr == "Nothing waits for your decision.\n"

    async def test_everybodys_are_for_administrators(self, desk: Desk, scene: Scene) -> None:
        request_id = str(await scene.granted())
        done = await desk.justiam("request", "list", "--all", by=scene.alice)
        assert (done.exit_code, done.stderr.partition(":")[0]) == (1, "forbidden")
        filters = ["--all", "--status", "approved", "--template", scene.slug, "--requester", scene.alice.email.upper()]
        page = await desk.json("request", "list", *filters, by=scene.house.admin)
        assert [item["id"] for item in page["items"]] == [request_id]
        assert page["next_cursor"] is None
        done = await desk.justiam("request", "list", *filters, by=scene.house.admin)
        assert f"approved by {scene.bob.email}" in done.stdout

    async def test_mine_can_be_filtered_and_bounded(self, desk: Desk, scene: Scene) -> None:
        over = await scene.granted(at=datetime.now(UTC) - timedelta(days=1))
        pending = await scene.request()
        page = await desk.json("request", "list", "--status", "expired", by=scene.alice)
        assert [item["id"] for item in page["items"]] == [str(over)]
        page = await desk.json("request", "list", "--limit", "1", by=scene.alice)
        assert ([item["id"] for item in page["items"]], page["next_cursor"] is None) == ([str(pending)], False)
        done = await desk.justiam("request", "list", "--limit", "1", by=scene.alice)
        assert done.stderr == "There are more: --limit 2\n"

    @pytest.mark.parametrize("options", [["--pending", "--all"], ["--requester", "a"], ["--status", "over"]])
    async def test_filters_that_do_not_fit_are_usage_errors(self, desk: Desk, scene: Scene, options: list[str]) -> None:
        assert (await desk.justiam("request", "list", *options, by=scene.alice)).exit_code == 2

    async def test_one_is_shown_with_its_timeline_and_discussion_in_local_time(self, desk: Desk, scene: Scene) -> None:
        request_id = str(await scene.granted())
        sent = await desk.json("request", "message", request_id, "Which tables?\nAll?", by=scene.bob)
        assert sent["body"] == "Which tables?\nAll?"
        done = await desk.justiam("request", "show", request_id[:8], by=scene.alice)
        assert done.exit_code == 0, done.stderr
        assert "roles: db_readonly" in done.stdout
        assert "submitted by" in done.stdout
        assert f"approved by {scene.bob.email}, until" in done.stdout
        assert "  Which tables?" in done.stdout
        assert re.search(r"Ends\s+\d{4}-\d\d-\d\d \d\d:\d\d CES?T, in 59m", done.stdout)
        done = await desk.justiam("request", "messages", request_id[:8], by=scene.alice)
        assert "  All?" in done.stdout
        page = await desk.json("request", "messages", request_id, by=scene.bob)
        assert page["items"] == [sent]

    async def test_what_others_wrote_cannot_steer_the_terminal(self, desk: Desk, scene: Scene) -> None:
        request_id = str(await scene.request())
        await desk.justiam("request", "message", request_id, "\x1b[2J[bold]gone[/bold]", by=scene.bob)
        done = await desk.justiam("request", "show", request_id, by=scene.alice)
        assert "\x1b" not in done.stdout
        assert "\ufffd[2J[bold]gone[/bold]" in done.stdout

    async def test_ids_that_name_nothing_are_explained(self, desk: Desk, scene: Scene) -> None:
        for wanted, status, words in [
            ("nothing", 2, "is no request's id"),
            ("fff", 2, "is no request's id"),
            ("ffff0000", 2, "None of your requests"),
            (str(uuid4()), 1, "not_found: "),
            (str(await scene.request()), 1, "forbidden: "),
        ]:
            stranger = await scene.house.person(f"stranger-{uuid4().hex}")
            done = await desk.justiam("request", "show", wanted, by=stranger)
            assert (done.exit_code, words in done.stderr) == (status, True), done.stderr

    async def test_an_administrator_finds_the_requests_of_others_by_the_beginning(
        self, desk: Desk, scene: Scene
    ) -> None:
        request_id = str(await scene.granted())
        assert (await desk.json("request", "show", request_id[:8], by=scene.house.admin))["id"] == request_id


class TestHolding:
    async def test_grants_are_shown_with_what_they_bring_and_what_stays(self, desk: Desk, scene: Scene) -> None:
        done = await desk.justiam("access", by=scene.alice)
        assert (done.exit_code, done.stdout) == (0, "")
        assert "`justiam request submit`" in done.stderr
        request_id = str(await scene.granted())
        permanent = await scene.house.mapping(scene.template.app_id, "Reports")
        group = await scene.house.group(f"reporters {scene.mark}", scene.alice)
        values = {"app_id": str(scene.template.app_id), "name": "Reports", "claim": "reports", "value": "all"}
        admin = scene.house.admin
        await scene.house.call("PUT", f"/app-mappings/{permanent.id}", admin, json=values)
        await scene.house.call("PUT", f"/app-mappings/{permanent.id}/groups/{group.id}", admin)
        done = await desk.justiam("access", by=scene.alice)
        assert re.search(rf"Internal DB {scene.mark}\s+roles: db_readonly\s+59m .*CES?T", done.stdout), done.stdout
        assert re.search(rf"Internal DB {scene.mark}\s+reports: all\s+without end", done.stdout), done.stdout
        held = await desk.json("access", by=scene.alice)
        assert [item["id"] for item in held["items"]] == [request_id]
        assert held["mapping_values"] == {str(scene.template.app_id): {"reports": ["all"], "roles": ["db_readonly"]}}

    async def test_what_is_over_is_not_held(self, desk: Desk, scene: Scene) -> None:
        await scene.granted(at=datetime.now(UTC) - timedelta(days=1))
        assert (await desk.json("access", by=scene.alice)) == {"items": [], "mapping_values": {}}


class TestWatching:
    async def test_a_decision_ends_it_when_that_is_waited_for(self, desk: Desk, scene: Scene) -> None:
        request_id = str(await scene.granted())
        done = await desk.justiam("request", "watch", request_id[:8], "--until", "decided", "--json", by=scene.alice)
        assert done.exit_code == 0, done.stderr
        assert [json.loads(line)["kind"] for line in done.stdout.splitlines()] == ["submitted", "approved"]

    async def test_what_was_denied_has_its_own_exit_code(self, desk: Desk, scene: Scene) -> None:
        request_id = await scene.request()
        await scene.house.decide(request_id, Action.DENY, scene.bob)
        done = await desk.justiam("request", "watch", str(request_id), by=scene.alice)
        assert done.exit_code == 5
        assert done.stderr == "Nothing was granted: the request was denied.\n"
        assert f"denied by {scene.bob.email}" in done.stdout

    async def test_an_end_whose_entry_is_late_is_an_end(
        self, desk: Desk, scene: Scene, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(watching, "_LAST_ENTRY_SECS", 0.1)
        request_id = await scene.granted(at=datetime.now(UTC) - timedelta(minutes=60, seconds=-1))
        done = await desk.justiam("request", "watch", str(request_id), by=scene.alice)
        assert done.exit_code == 0, done.stderr
        assert "approved by" in done.stdout

    async def test_ctrl_c_ends_it_without_a_traceback(self, desk: Desk, scene: Scene) -> None:
        async with desk.beside("request", "watch", str(await scene.request()), by=scene.alice) as process:
            assert process.stdout is not None
            assert b"submitted" in await process.stdout.readline()
            process.send_signal(signal.SIGINT)
            _, told = await process.communicate()
        assert (process.returncode, told) == (130, b"")


class TestDeciding:
    async def test_without_a_terminal_it_wants_a_yes(self, desk: Desk, scene: Scene) -> None:
        request_id = str(await scene.request())
        for action in ("approve", "deny", "revoke"):
            done = await desk.justiam("request", action, request_id, by=scene.bob)
            assert (done.exit_code, "--yes" in done.stderr) == (2, True)

    async def test_nobody_decides_their_own(self, desk: Desk, scene: Scene) -> None:
        done = await desk.justiam("request", "approve", str(await scene.request()), "--yes", by=scene.alice)
        assert done.exit_code == 1
        assert done.stderr.startswith("forbidden: Nobody decides their own request.")


class TestCompletion:
    async def completed(self, desk: Desk, words: str, by: Somebody) -> list[str]:
        environment = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
        done = await desk.justiam(by=by, _JUSTIAM_COMPLETE="complete_bash", **environment)
        return done.stdout.split()

    async def test_the_shell_is_offered_templates_and_requests(self, desk: Desk, scene: Scene) -> None:
        request_id = str(await scene.request())
        assert await self.completed(desk, f"justiam request submit {scene.slug[:8]}", scene.alice) == [scene.slug]
        assert await self.completed(desk, "justiam request show ", scene.alice) == [request_id[:8]]
        assert await self.completed(desk, "justiam request approve ", scene.bob) == [request_id[:8]]

    async def test_what_goes_wrong_is_silent(self, desk: Desk, scene: Scene) -> None:
        nobody = Somebody(scene.alice.id, scene.alice.email, "justi-unknown")
        assert await self.completed(desk, "justiam request show ", nobody) == []


class TestDescription:
    def test_what_is_read_is_what_the_api_says(self, house: House) -> None:
        schemas = house.app.openapi()["components"]["schemas"]
        documented: dict[Any, str] = {
            documents.Person: "PersonView",
            documents.HeldGroup: "HeldGroup",
            documents.Me: "Me",
            documents.Field: "CustomField",
            documents.Template: "TemplateView",
            documents.Mapping: "GrantedMapping",
            documents.Request: "RequestView",
            documents.TimelineEntry: "TimelineView",
            documents.Message: "MessageView",
        }
        for document, schema in documented.items():
            assert document.__required_keys__ <= schemas[schema]["properties"].keys(), schema

    async def test_every_command_is_explained_and_takes_json(self, desk: Desk) -> None:
        commands = ["login", "logout", "whoami", "access", "template list", "template show"]
        acts = ("submit", "list", "show", "approve", "deny", "revoke", "watch", "message", "messages")
        commands += [f"request {act}" for act in acts]
        page = _PAGE.read_text()
        for command in commands:
            done = await desk.justiam(*command.split(), "--help", COLUMNS="200")
            assert (done.exit_code, "--json" in done.stdout) == (0, True), command
            assert f"justiam {command}" in page
