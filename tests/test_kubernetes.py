"""deploy/kubernetes as Kustomize renders it: Kubernetes takes it, and no container may do more than it has to."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import kubernetes_validate  # type: ignore[import-untyped]
import pytest

# Comes with pre-commit.
import yaml  # type: ignore[import-untyped]

from tests.documented import ROOT, VARIABLE, command_problem, known_variables

Document = dict[str, Any]

SOURCES: Final = ROOT / "deploy/kubernetes"
KUBECTL: Final = Path(sys.executable).parent / "kubectl"
SCRIPTS: Final = "justiam-script-worker"
OPERATORS: Final = {"justiam"}
"""The Secret that whoever uses the base makes; the example generates it."""
NAME: Final = "app.kubernetes.io/name"


def _render(kustomization: Path) -> list[Document]:
    done = subprocess.run([KUBECTL, "kustomize", kustomization], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def _rendered() -> Iterator[tuple[str, list[Document]]]:
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory) / "kubernetes"
        shutil.copytree(SOURCES, copy)
        # What the example says that its reader has.
        (copy / "example/secret.env").write_text("JUSTIAM_DATABASE_URL=postgresql://u:p@host/justiam\n")
        for name in ("base", "example"):
            yield name, _render(copy / name)


RENDERED: Final = dict(_rendered())
EACH_RENDERED: Final = pytest.mark.parametrize("rendered", RENDERED.values(), ids=RENDERED)
EACH_DOCUMENT: Final = pytest.mark.parametrize(
    "document",
    [
        pytest.param(document, id=f"{name}: {document['kind']} {document['metadata']['name']}")
        for name, documents in RENDERED.items()
        for document in documents
    ],
)


def _of(documents: Iterable[Document], *kinds: str) -> list[Document]:
    return [document for document in documents if document["kind"] in kinds]


def _name(document: Document) -> str:
    return str(document["metadata"]["name"])


def _names(documents: Iterable[Document], kind: str) -> set[str]:
    return {_name(document) for document in _of(documents, kind)}


def _workloads(documents: Iterable[Document]) -> list[Document]:
    return _of(documents, "Deployment", "Job")


def _pod(workload: Document) -> Document:
    pod: Document = workload["spec"]["template"]["spec"]
    return pod


def _each(*kinds: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "workload",
        [
            pytest.param(workload, id=f"{name}: {_name(workload)}")
            for name, documents in RENDERED.items()
            for workload in _of(documents, *kinds)
        ],
    )


EACH_WORKLOAD: Final = _each("Deployment", "Job")
EACH_DEPLOYMENT: Final = _each("Deployment")


def _selected(documents: Iterable[Document], labels: dict[str, str]) -> list[str]:
    """Whose pods have these labels."""
    return [
        _name(workload)
        for workload in _workloads(documents)
        if labels.items() <= workload["spec"]["template"]["metadata"]["labels"].items()
    ]


def _ports(documents: Iterable[Document], workload: str) -> dict[str, int]:
    (found,) = [each for each in _workloads(documents) if _name(each) == workload]
    return {port["name"]: port["containerPort"] for each in _pod(found)["containers"] for port in each["ports"]}


def _referred(workload: Document, kind: str, *, optional: bool = True) -> set[str]:
    """The ConfigMaps or Secrets that the containers of a workload take their environment from."""
    return {
        each[kind]["name"]
        for container in _pod(workload)["containers"]
        for each in container["envFrom"]
        if kind in each and (optional or not each[kind].get("optional"))
    }


def _without_hash(names: Iterable[str]) -> set[str]:
    """As the sources name what Kustomize generates."""
    return {re.sub(r"-[a-z0-9]{10}$", "", name) for name in names}


@EACH_DOCUMENT
def test_each_document_fits_the_schema_of_kubernetes(document: Document) -> None:
    kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def test_a_document_that_does_not_fit_is_noticed() -> None:
    misspelt = {**RENDERED["base"][0], "sepc": {}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(misspelt, kubernetes_validate.latest_version(), strict=True)


def test_every_file_is_rendered_and_every_image_replaced() -> None:
    for folder in ("base", "example"):
        kustomization = yaml.safe_load((SOURCES / folder / "kustomization.yaml").read_text())
        here = {path.name for path in (SOURCES / folder).glob("*.yaml")}
        assert {*kustomization["resources"], "kustomization.yaml"} - {"../base"} == here
    for workload in _workloads(RENDERED["example"]):
        for container in _pod(workload)["containers"]:
            assert re.fullmatch(r"registry\.example\.com/justiam(-script-worker)?:\d[\w.]*", container["image"])


def test_everything_of_the_example_is_in_its_namespace() -> None:
    assert {document["metadata"].get("namespace") for document in RENDERED["example"]} == {"justiam"}


@EACH_RENDERED
def test_each_environment_and_account_that_is_named_is_there(rendered: list[Document]) -> None:
    secrets = _names(rendered, "Secret")
    given = set() if secrets else OPERATORS
    for workload in _workloads(rendered):
        assert _pod(workload)["serviceAccountName"] in _names(rendered, "ServiceAccount")
        assert _referred(workload, "configMapRef") <= _names(rendered, "ConfigMap")
        assert _referred(workload, "secretRef", optional=False) <= secrets | given
    for name in OPERATORS:
        assert f"in the Secret `{name}`" in (SOURCES / "base/kustomization.yaml").read_text()


@EACH_RENDERED
def test_each_service_leads_to_a_port_of_one_deployment_and_each_ingress_to_a_service(
    rendered: list[Document],
) -> None:
    services = {_name(service): service["spec"] for service in _of(rendered, "Service")}
    assert services
    for spec in services.values():
        (workload,) = _selected(rendered, spec["selector"])
        assert {port["targetPort"] for port in spec["ports"]} <= _ports(rendered, workload).keys()
    backends = [
        path["backend"]["service"]
        for ingress in _of(rendered, "Ingress")
        for rule in ingress["spec"]["rules"]
        for path in rule["http"]["paths"]
    ]
    for backend in backends:
        assert backend["port"]["name"] in {port["name"] for port in services[backend["name"]]["ports"]}


@EACH_RENDERED
def test_each_deployment_selects_its_own_pods_alone(rendered: list[Document]) -> None:
    for deployment in _of(rendered, "Deployment"):
        selectors = [deployment["spec"]["selector"]["matchLabels"]] + [
            spread["labelSelector"]["matchLabels"] for spread in _pod(deployment)["topologySpreadConstraints"]
        ]
        for selector in selectors:
            assert _selected(rendered, selector) == [_name(deployment)]


@EACH_RENDERED
def test_each_deployment_has_a_disruption_budget_and_no_budget_is_for_nothing(rendered: list[Document]) -> None:
    budgeted = [
        _selected(rendered, budget["spec"]["selector"]["matchLabels"])
        for budget in _of(rendered, "PodDisruptionBudget")
    ]
    assert sorted(budgeted) == [[name] for name in sorted(_names(rendered, "Deployment"))]


@EACH_RENDERED
def test_what_scales_is_there_and_nothing_else_says_how_many(rendered: list[Document]) -> None:
    deployments = {_name(deployment): deployment for deployment in _of(rendered, "Deployment")}
    scaled = set()
    for scaler in _of(rendered, "HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        deployment = deployments[target["name"]]
        assert (target["apiVersion"], target["kind"]) == (deployment["apiVersion"], deployment["kind"])
        assert scaler["spec"]["minReplicas"] >= 2
        # Utilisation is a share of what was requested.
        assert all("cpu" in container["resources"]["requests"] for container in _pod(deployment)["containers"])
        # Each `kubectl apply` would set back what the autoscaler chose.
        assert "replicas" not in deployment["spec"]
        scaled.add(target["name"])
    assert scaled == {"justiam-api", "justiam-worker"}


@EACH_RENDERED
def test_each_network_policy_is_about_pods_that_there_are(rendered: list[Document]) -> None:
    policies = _of(rendered, "NetworkPolicy")
    assert policies
    for policy in policies:
        spec = policy["spec"]
        peers = [
            peer["podSelector"]["matchLabels"]
            for rule in [*spec.get("ingress", ()), *spec.get("egress", ())]
            for peer in [*rule.get("from", ()), *rule.get("to", ())]
            if "podSelector" in peer
        ]
        for selector in [spec["podSelector"]["matchLabels"], *peers]:
            assert _selected(rendered, selector), (_name(policy), selector)


@EACH_WORKLOAD
def test_no_container_may_do_more_than_it_has_to(workload: Document) -> None:
    pod = _pod(workload)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert re.search(r":\d", container["image"])
        assert {"requests", "limits"} <= container["resources"].keys()


@EACH_WORKLOAD
def test_each_container_runs_a_command_that_exists_with_what_it_needs(workload: Document) -> None:
    (container,) = _pod(workload)["containers"]
    assert command_problem(container["args"]) is None
    assert _name(workload) == f"justiam-{container['args'][0]}"
    secrets = _without_hash(_referred(workload, "secretRef"))
    if _name(workload) == SCRIPTS:
        # Neither the database nor the keys of the service.
        assert secrets == {"justiam-temporal"}
        assert "justiam" not in _without_hash(_referred(workload, "configMapRef"))
    else:
        assert "justiam" in secrets


def test_each_variable_is_a_setting() -> None:
    for path in SOURCES.glob("*/*.yaml"):
        assert set(VARIABLE.findall(path.read_text())) <= known_variables(), path
    for documents in RENDERED.values():
        for configuration in _of(documents, "ConfigMap"):
            assert configuration["data"].keys() <= known_variables()


@EACH_DEPLOYMENT
def test_what_stays_is_looked_after(workload: Document) -> None:
    (container,) = _pod(workload)["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    for probe, path in (("livenessProbe", "/healthz"), ("startupProbe", "/healthz"), ("readinessProbe", "/readyz")):
        assert container[probe]["httpGet"]["path"] == path
        assert container[probe]["httpGet"]["port"] in ports
    assert workload["spec"]["template"]["metadata"]["annotations"]["prometheus.io/port"] == str(ports["metrics"])
    # Ten seconds for what is in hand, five until everybody has heard of it, and some to spare.
    assert _pod(workload)["terminationGracePeriodSeconds"] >= 20


@EACH_RENDERED
def test_scripts_reach_temporal_the_api_and_names_alone(rendered: list[Document]) -> None:
    egress = [
        policy
        for policy in _of(rendered, "NetworkPolicy")
        if SCRIPTS in _selected(rendered, policy["spec"]["podSelector"]["matchLabels"])
        and "Egress" in policy["spec"]["policyTypes"]
    ]
    (policy,) = egress
    assert {port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]} == {53, 7233, 8000}
    assert all(rule.get("to") for rule in policy["spec"]["egress"])
