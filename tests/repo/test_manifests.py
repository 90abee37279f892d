"""The manifests under deploy/ are what Kubernetes takes, and name what this server has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from jaxserve.api.metrics import Metrics
from jaxserve.cli.parameters import OPTIONS
from jaxserve.engine.engine import EngineStats
from jaxserve.options import Declared

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "deploy" / "kubernetes").glob("*.yaml"))
KUBERNETES = ("v1", "apps/v1", "autoscaling/v2", "policy/v1", "networking.k8s.io/v1")
"""API versions whose schemas are Kubernetes' own; the others come with their controllers."""


def documents() -> list[dict[str, Any]]:
    return [each for path in FILES for each in yaml.safe_load_all(path.read_text())]


def templates(value: Any) -> list[dict[str, Any]]:
    """Everything that holds containers."""
    if isinstance(value, dict):
        own = [value] if "containers" in value else []
        return own + [found for each in value.values() for found in templates(each)]
    return [found for each in value for found in templates(each)] if isinstance(value, list) else []


def found(kind: str) -> list[dict[str, Any]]:
    return [each for each in documents() if each["kind"] == kind]


def named(kind: str) -> list[str]:
    return [each["metadata"]["name"] for each in found(kind)]


def check(document: dict[str, Any]) -> None:
    validator = pytest.importorskip("kubernetes_validate")
    validator.validate(document, validator.latest_version(), strict=True)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_documents_fit_the_schemas(path):
    checked = [each for each in yaml.safe_load_all(path.read_text()) if each["apiVersion"] in KUBERNETES]
    for each in checked:
        check(each)
    assert checked or path.name == "inference-gateway.yaml"


def test_the_pods_of_a_group_fit_the_schema():
    (group,) = found("LeaderWorkerSet")
    assert group["apiVersion"] == "leaderworkerset.x-k8s.io/v1"
    template = group["spec"]["leaderWorkerTemplate"]
    for part in ("leaderTemplate", "workerTemplate"):
        check({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, **template[part]})
    leader, worker = (template[part]["spec"] for part in ("leaderTemplate", "workerTemplate"))
    assert leader["nodeSelector"] == worker["nodeSelector"]
    assert "readinessProbe" not in worker["containers"][0]
    chips = int(leader["containers"][0]["resources"]["limits"]["google.com/tpu"])
    wide, high = map(int, leader["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x"))
    assert template["size"] * chips == wide * high
    assert template["restartPolicy"] == "RecreateGroupOnPodRestart"


def test_a_broken_manifest_is_noticed():
    validator = pytest.importorskip("kubernetes_validate")
    (deployment,) = found("Deployment")
    deployment["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(validator.ValidationError):
        check(deployment)


def flags() -> dict[str, Declared]:
    return {each.flag: each for each in OPTIONS if "serve" in each.option.commands}


def test_containers_give_flags_and_variables_that_there_are():
    variables = {name for each in OPTIONS for name in each.variables} | {"JAXSERVE_HOST_SECRET"}
    for pod in templates(documents()):
        (container,) = pod["containers"]
        command, model, *rest = container["args"]
        assert (command, model) == ("serve", "MODEL")
        assert set(rest[::2]) <= set(flags())
        assert {each["name"] for each in container["env"]} >= {"JAX_PLATFORMS"}
        assert all(each["name"].startswith(("JAX_", "XDG_", "HF_")) for each in container["env"])
    assert {key for secret in found("Secret") for key in secret["stringData"]} <= variables


def test_probes_ask_for_endpoints_that_there_are():
    probes = [
        container[name]
        for pod in templates(documents())
        for container in pod["containers"]
        for name in ("startupProbe", "readinessProbe", "livenessProbe")
        if name in container
    ]
    told = (ROOT / "README.md").read_text()
    assert {probe["httpGet"]["path"] for probe in probes} == {"/ready", "/health"}
    assert all(f"`GET {probe['httpGet']['path']}`" in told for probe in probes)


def test_selectors_and_references_meet():
    (deployment,), labels = found("Deployment"), [{"app": "jaxserve"}]
    assert deployment["spec"]["template"]["metadata"]["labels"] in labels
    (scaler,), (monitoring,), (pool,) = (
        found(kind) for kind in ("HorizontalPodAutoscaler", "PodMonitoring", "InferencePool")
    )
    assert scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert monitoring["spec"]["selector"]["matchLabels"] in labels
    assert pool["spec"]["selector"]["matchLabels"] in labels
    (port,) = [each["number"] for each in pool["spec"]["targetPorts"]]
    for pod in templates(documents()):
        ports = {each["name"]: each["containerPort"] for each in pod["containers"][0].get("ports", [])}
        assert ports.get("http", port) == port == flags()["--port"].default
        assert ports.get("commands", 1) == ports.get("coordinator", 0) + 1, "commands take the port after"
    (route,) = found("HTTPRoute")
    assert [ref["name"] for rule in route["spec"]["rules"] for ref in rule["backendRefs"]] == named("InferencePool")
    volumes = [volume for pod in templates(documents()) for volume in pod["volumes"]]
    claims = {v["persistentVolumeClaim"]["claimName"] for v in volumes if "persistentVolumeClaim" in v}
    assert claims == set(named("PersistentVolumeClaim"))


def test_autoscaling_and_routing_read_metrics_that_there_are(metrics):
    (scaler,) = found("HorizontalPodAutoscaler")
    wanted = {metric["pods"]["metric"]["name"] for metric in scaler["spec"]["metrics"]}
    gateway = (ROOT / "deploy" / "kubernetes" / "inference-gateway.yaml").read_text()
    pickers = set(re.findall(r"vllm:[a-z_]+", gateway))
    assert len(pickers) == 3
    assert wanted | pickers <= metrics


@pytest.fixture
def metrics() -> set[str]:
    """Names that `/metrics` shows."""

    class Idle:
        healthy = ready = True

        def stats(self) -> EngineStats:
            return EngineStats(**dict.fromkeys(EngineStats.__dataclass_fields__, 0))

    engine: Any = Idle()
    text = generate_latest(Metrics(engine, "m").registry).decode()
    return {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}


def test_nothing_is_served_on_the_cpu_by_accident():
    platforms = [
        variable["value"]
        for pod in templates(documents())
        for container in pod["containers"]
        for variable in container["env"]
        if variable["name"] == "JAX_PLATFORMS"
    ]
    assert len(platforms) == len(templates(documents())) == 3
    assert all(re.match(r"(tpu|cuda),cpu$", value) for value in platforms)
