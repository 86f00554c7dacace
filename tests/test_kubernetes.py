"""deploy/kubernetes is what Kubernetes takes, and lets no container do more than it has to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import kubernetes_validate  # type: ignore[import-untyped]
import pytest

# Comes with pre-commit.
import yaml  # type: ignore[import-untyped]

from tests.documented import ROOT, VARIABLE, command_problem, known_variables

BASE: Final = ROOT / "deploy/kubernetes/base"
EXAMPLE: Final = ROOT / "deploy/kubernetes/example"
KUSTOMIZATION: Final[dict[str, Any]] = yaml.safe_load((BASE / "kustomization.yaml").read_text())
DOCUMENTS: Final[list[dict[str, Any]]] = [
    document
    for path in sorted((*BASE.glob("*.yaml"), *EXAMPLE.glob("*.yaml")))
    if path.name != "kustomization.yaml"
    for document in yaml.safe_load_all(path.read_text())
]
WORKLOADS: Final = [document for document in DOCUMENTS if document["kind"] in {"Deployment", "Job"}]
SCRIPTS: Final = "justiam-script-worker"


def _name(document: dict[str, Any]) -> str:
    return f"{document['kind']} {document['metadata']['name']}"


def _pod(workload: dict[str, Any]) -> dict[str, Any]:
    pod: dict[str, Any] = workload["spec"]["template"]["spec"]
    return pod


def _containers() -> Iterator[tuple[str, dict[str, Any]]]:
    for workload in WORKLOADS:
        for container in _pod(workload)["containers"]:
            yield workload["metadata"]["name"], container


EACH_CONTAINER: Final = pytest.mark.parametrize(
    ("name", "container"), list(_containers()), ids=lambda value: value if isinstance(value, str) else ""
)


def _referred(container: dict[str, Any], kind: str) -> set[str]:
    return {each[kind]["name"] for each in container["envFrom"] if kind in each}


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_each_document_fits_the_schema_of_kubernetes(document: dict[str, Any]) -> None:
    kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def test_a_document_that_does_not_fit_is_noticed() -> None:
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**WORKLOADS[0], "sepc": {}}, kubernetes_validate.latest_version(), strict=True)


def test_the_base_has_every_file_of_it() -> None:
    assert {*KUSTOMIZATION["resources"], "kustomization.yaml"} == {path.name for path in BASE.glob("*.yaml")}
    example = yaml.safe_load((EXAMPLE / "kustomization.yaml").read_text())
    assert {*example["resources"], "kustomization.yaml"} == {"../base", *(path.name for path in EXAMPLE.glob("*.yaml"))}
    assert {image["name"] for image in example["images"]} == {
        container["image"].partition(":")[0] for _, container in _containers()
    }


@pytest.mark.parametrize(
    ("name", "container"), list(_containers()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_no_container_may_do_more_than_it_has_to(name: str, container: dict[str, Any]) -> None:
    pod = next(_pod(workload) for workload in WORKLOADS if workload["metadata"]["name"] == name)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert re.search(r":\d", container["image"])
    assert {"requests", "limits"} <= container["resources"].keys()


@pytest.mark.parametrize(
    ("name", "container"), list(_containers()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_each_container_runs_a_command_that_exists_with_what_it_needs(name: str, container: dict[str, Any]) -> None:
    assert command_problem(container["args"]) is None
    assert name == f"justiam-{container['args'][0]}"
    generated = {generator["name"] for generator in KUSTOMIZATION["configMapGenerator"]}
    assert _referred(container, "configMapRef") <= generated
    if name == SCRIPTS:
        # Neither the database nor the keys of the service.
        assert _referred(container, "secretRef") == {"justiam-temporal"}
        assert "justiam" not in _referred(container, "configMapRef")
    else:
        assert "justiam" in _referred(container, "secretRef")


def test_each_variable_is_a_setting() -> None:
    for path in (*BASE.glob("*.yaml"), *EXAMPLE.glob("*.yaml")):
        assert set(VARIABLE.findall(path.read_text())) <= known_variables(), path


def test_whoever_is_selected_is_there() -> None:
    labels = {workload["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/name"] for workload in WORKLOADS}
    by_name = re.compile(r"app\.kubernetes\.io/name: ([\w-]+)")
    for path in BASE.glob("*.yaml"):
        assert set(by_name.findall(path.read_text())) <= labels


@pytest.mark.parametrize("workload", [each for each in WORKLOADS if each["kind"] == "Deployment"], ids=_name)
def test_what_stays_is_looked_after(workload: dict[str, Any]) -> None:
    (container,) = _pod(workload)["containers"]
    assert {"livenessProbe", "readinessProbe", "startupProbe"} <= container.keys()
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert container["livenessProbe"]["httpGet"]["port"] in ports
    assert workload["spec"]["template"]["metadata"]["annotations"]["prometheus.io/port"] == str(ports["metrics"])
    # Ten seconds for what is in hand, five until everybody has heard of it, and some to spare.
    assert _pod(workload)["terminationGracePeriodSeconds"] >= 20
    name = workload["metadata"]["name"]
    budgets = [document for document in DOCUMENTS if document["kind"] == "PodDisruptionBudget"]
    assert name in {budget["spec"]["selector"]["matchLabels"]["app.kubernetes.io/name"] for budget in budgets}


def test_scripts_reach_temporal_the_api_and_names_alone() -> None:
    (policy,) = [
        document
        for document in DOCUMENTS
        if document["kind"] == "NetworkPolicy" and document["metadata"]["name"] == SCRIPTS
    ]
    assert policy["spec"]["policyTypes"] == ["Egress"]
    assert {port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]} == {53, 7233, 8000}
    assert all(rule.get("to") for rule in policy["spec"]["egress"])
