"""The programs as they run tell what they do: one scrape, one trace, one log."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

# Comes with pre-commit.
import yaml  # type: ignore[import-untyped]
from prometheus_client.parser import text_string_to_metric_families
from temporalio.client import Client

from cli.dev import TemporalDevServer
from db import tokens
from db.database import Database
from tests.conftest import Databases
from tests.programs import Program, Programs, until
from tests.record import Cast, Record
from tests.telemetry.collector import Collector, collecting

ROOT: Final = Path(__file__).parents[2]
JUSTIFICATION: Final = "Looking into the incident of last night"


@dataclass
class Running:
    """The service, and two people with tokens."""

    api: Program
    worker: Program
    script_worker: Program
    collected: Collector
    cast: Cast
    requester: str
    approver: str

    def call(self, method: str, path: str, token: str, **more: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}", **more.pop("headers", {})}
        return httpx.request(
            method, f"{self.api.url}/api/v1{path}", headers=headers, trust_env=False, timeout=30, **more
        )

    def submit(self, **headers: str) -> str:
        """A pending request; one that another test left is withdrawn."""
        for left in self.call("GET", "/access-requests", self.requester).json()["items"]:
            if left["status"] == "pending":
                self.call("POST", f"/access-requests/{left['id']}/revoke", self.requester)
        sent = {
            "template_id": str(self.cast.template.id),
            "requested_duration_mins": 60,
            "justification": JUSTIFICATION,
        }
        answer = self.call("POST", "/access-requests", self.requester, json=sent, headers=headers)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])


@pytest.fixture(scope="module")
def own_temporal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TemporalDevServer]:
    with TemporalDevServer(log_file=tmp_path_factory.mktemp("temporal") / "log", ui_port=None) as server:
        yield server


@pytest.fixture(scope="module")
async def running(
    new_database: Databases, own_temporal: TemporalDevServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Running]:
    with new_database() as url, collecting() as collected:
        async with Database(url) as db:
            record = Record(db)
            cast = await record.cast()
            requester, approver = [
                (await tokens.create_token(db, person.id, "test", None)).token
                for person in (cast.requester, cast.approver)
            ]
        traced = {"OTEL_EXPORTER_OTLP_ENDPOINT": collected.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
        directory = tmp_path_factory.mktemp("programs")
        with Programs(directory, url, own_temporal.address, traced) as programs:
            worker, api = programs.start_all_ready("worker", "api")
            script_worker = programs.start_ready("script-worker", JUSTIAM_SCRIPT_API_URL=api.url)
            yield Running(api, worker, script_worker, collected, cast, requester, approver)


def scrape(program: Program) -> dict[str, list[Any]]:
    text = httpx.get(f"{program.watched_at}/metrics", trust_env=False).text
    return {family.name: family.samples for family in text_string_to_metric_families(text)}


def value(program: Program, name: str, **labels: str) -> float:
    return float(
        sum(
            sample.value
            for samples in scrape(program).values()
            for sample in samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )
    )


def test_a_life_is_counted_where_it_happens(running: Running) -> None:
    decided = value(running.worker, "justiam_transitions_total", action="approve", by="person")
    request_id = running.submit()
    assert value(running.worker, "justiam_pending_requests") >= 1
    assert running.call("POST", f"/access-requests/{request_id}/approve", running.approver).is_success
    assert value(running.worker, "justiam_transitions_total", action="approve", by="person") == decided + 1
    assert value(running.worker, "justiam_time_to_decision_seconds_count", action="approve") >= 1
    assert value(running.worker, "justiam_open_grants") >= 1
    assert running.call("POST", f"/access-requests/{request_id}/revoke", running.approver).is_success
    assert value(running.worker, "justiam_transitions_total", action="revoke") >= 1
    assert value(running.api, "justiam_submissions_total") >= 1
    route = "/api/v1/access-requests/{request_id}/approve"
    served = value(running.api, "justiam_http_request_duration_seconds_count", route=route, method="POST", status="200")
    assert served >= 1
    assert value(running.api, "justiam_database_pool_connections") >= 1


def test_only_workers_say_what_the_record_holds(running: Running) -> None:
    """By its absence, `JustIAMNoWorker` knows that there is none."""
    assert "justiam_open_grants" in scrape(running.worker)
    for program in (running.api, running.script_worker):
        assert (
            not {"justiam_open_grants", "justiam_overdue_grants", "justiam_waiting_deliveries"} & scrape(program).keys()
        )


def test_labels_are_not_up_to_callers(running: Running) -> None:
    for path in ("/api/v1/nowhere-at-all", "/nowhere-either"):
        httpx.request("BREW", f"{running.api.url}{path}", trust_env=False)
        httpx.get(f"{running.api.url}{path}", trust_env=False)
    running.call("GET", f"/access-requests/{'0' * 8}-0000-0000-0000-{'0' * 12}", running.requester)
    samples = scrape(running.api)["justiam_http_request_duration_seconds"]
    labels = " ".join(str(sample.labels) for sample in samples)
    assert "nowhere" not in labels
    assert "BREW" not in labels
    assert "0000-0000" not in labels


@pytest.mark.parametrize("program", ["api", "worker", "script_worker"])
def test_a_scrape_has_what_the_temporal_client_says(running: Running, program: str) -> None:
    running.submit()
    names = scrape(getattr(running, program))
    assert "temporal_request" in {name.removesuffix("_total") for name in names}


def test_one_trace_goes_from_the_call_through_the_workflow_into_its_activities(running: Running) -> None:
    """The trace of a request is that of its submission; a decision is in it, with a link to the call that made it."""
    submission, decision = "4bf92f3577b34da6a3ce929d0e0e4736", "5cf92f3577b34da6a3ce929d0e0e4737"
    request_id = running.submit(traceparent=f"00-{submission}-00f067aa0ba902b7-01")
    answer = running.call(
        "POST",
        f"/access-requests/{request_id}/approve",
        running.approver,
        headers={"traceparent": f"00-{decision}-00f067aa0ba902b7-01", "X-Request-Id": "call-4711"},
    )
    assert answer.is_success
    assert answer.headers["X-Request-Id"] == "call-4711"

    def names(trace_id: str) -> set[str]:
        return {span.name for span in running.collected.trace(trace_id)}

    called = {
        "POST /api/v1/access-requests",
        "StartWorkflow:AccessRequestWorkflow",
        "RunWorkflow:AccessRequestWorkflow",
    }
    carried_out = {"HandleUpdate:approve", "RunActivity:apply_transition"}
    until(lambda: called | carried_out <= names(submission), "the request's trace is whole")
    until(lambda: "POST /api/v1/access-requests/{request_id}/approve" in names(decision), "the decision's is there")
    (handled,) = [span for span in running.collected.trace(submission) if span.name == "HandleUpdate:approve"]
    assert [link.trace_id.hex() for link in handled.links] == [decision]
    spans = " ".join(str(span) for span in running.collected.spans)
    assert "somebody" not in spans
    assert JUSTIFICATION not in spans

    (call,) = [line for line in running.api.logged() if line.get("request_id") == "call-4711"]
    assert call["trace_id"] == decision
    assert call["event"] == "call"
    assert call["status"] == 200
    assert call["path"] == f"/api/v1/access-requests/{request_id}/approve"
    # What is asked for can be a secret: the code that an issuer sends somebody back with. No query is logged.
    refused = running.call("POST", f"/access-requests/{request_id}/approve?as=somebody", running.approver)
    assert refused.status_code == 422
    assert "somebody" not in running.api.log.read_text()


async def test_what_a_proxy_says_of_people_along_with_a_trace_is_kept_nowhere(
    running: Running, own_temporal: TemporalDevServer
) -> None:
    trace = "7cf92f3577b34da6a3ce929d0e0e4739"
    headers = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01", "baggage": "user.name=hushhush"}
    request_id = running.submit(**headers)
    answer = running.call("POST", f"/access-requests/{request_id}/approve", running.approver, headers=headers)
    assert answer.is_success, answer.text
    client = await Client.connect(own_temporal.address)
    history = await client.get_workflow_handle(f"access-request-{request_id}").fetch_history()
    carried = base64.b64decode(
        history.to_json_dict()["events"][0]["workflowExecutionStartedEventAttributes"]["header"]["fields"][
            "_tracer-data"
        ]["data"]
    ).decode()
    assert trace in carried
    assert "baggage" not in carried


def test_a_name_that_could_forge_the_log_is_not_taken(running: Running) -> None:
    answer = running.call("GET", "/me", running.requester, headers={"X-Request-Id": 'x" "event": "fine'})
    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["X-Request-Id"])


def _used(text: str) -> set[str]:
    return set(re.findall(r"\b((?:justiam|temporal)_[a-z_]+[a-z])\b", text))


def test_the_dashboard_and_the_alerts_name_metrics_that_there_are(running: Running) -> None:
    """A metric appears with its first event; those that have none yet are declared in `telemetry.metrics`."""
    request_id = running.submit()
    running.call("POST", f"/access-requests/{request_id}/approve", running.approver)
    dashboard = (ROOT / "deploy/grafana/justiam.json").read_text()
    rules = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yaml").read_text())
    queries = [target["expr"] for panel in json.loads(dashboard)["panels"] for target in panel.get("targets", [])]
    queries += [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    used = set().union(*map(_used, queries))
    there: set[str] = set()
    for program in (running.api, running.worker, running.script_worker):
        text = httpx.get(f"{program.watched_at}/metrics", trust_env=False).text
        there |= set(re.findall(r"^(?:# TYPE )?([a-z_]+)[ {]", text, re.MULTILINE))
        there |= {f"{name}_{end}" for name in set(there) for end in ("bucket", "count", "sum")}
    assert len(used) > 15
    assert used <= there, used - there
    for rule in (rule for group in rules["groups"] for rule in group["rules"]):
        assert {"summary", "description"} <= rule["annotations"].keys(), rule["alert"]


def test_a_worker_is_not_ready_while_temporal_is_away(database_url: str, tmp_path: Path) -> None:
    with Programs(tmp_path, database_url, "") as programs:
        with TemporalDevServer(log_file=tmp_path / "temporal.log", ui_port=None) as server:
            worker = programs.start_ready("worker", JUSTIAM_TEMPORAL_ADDRESS=server.address)
        until(
            lambda: httpx.get(f"{worker.watched_at}/readyz", trust_env=False, timeout=30).status_code == 503,
            "it says so",
        )
        assert httpx.get(f"{worker.watched_at}/readyz", trust_env=False).json()["missing"] == ["temporal"]
        assert httpx.get(f"{worker.watched_at}/healthz", trust_env=False).is_success
        assert worker.stop() == 0
