"""The Kubernetes example agrees with the code: settings, commands, paths, metric and grace periods."""

import importlib
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from overload_demo.api import routes
from overload_demo.api.api_metrics import QUEUE_GAUGES
from overload_demo.config import Settings, load_settings

FILE = Path(__file__).parents[2] / "overload_demo" / "kubernetes.yaml"
OBJECTS: dict[str, dict[str, Any]] = {
    f"{one['kind']}/{one['metadata']['name']}": one for one in yaml.safe_load_all(FILE.read_text())
}
DEPLOYMENTS = [name for name in OBJECTS if name.startswith("Deployment/")]


def pod_of(name: str) -> dict[str, Any]:
    pod: dict[str, Any] = OBJECTS[name]["spec"]["template"]["spec"]
    return pod


def container_of(name: str) -> dict[str, Any]:
    (container,) = pod_of(name)["containers"]
    return dict(container)


def test_its_variables_are_valid_settings() -> None:
    given = {name.lower(): value for name, value in OBJECTS["ConfigMap/overload"]["data"].items()}
    assert given.keys() <= Settings.model_fields.keys()
    assert load_settings(**given).overload_min_replicas == 1


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_its_commands_and_their_options_exist(name: str) -> None:
    python, dash_m, module, *options = container_of(name)["command"]
    assert (python, dash_m) == ("python", "-m")
    app = typer.Typer()
    app.command()(getattr(importlib.import_module(f"{module}.__main__"), module.rpartition(".")[2]))
    typer.main.get_command(app).make_context("it", options)


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_its_data_directory_lies_below_a_mount(name: str) -> None:
    (mount,) = container_of(name)["volumeMounts"]
    assert Path(OBJECTS["ConfigMap/overload"]["data"]["OVERLOAD_DATA_DIR"]).parent == Path(mount["mountPath"])
    assert [volume["name"] for volume in pod_of(name)["volumes"]] == [mount["name"]]


def test_its_probes_have_routes() -> None:
    api = container_of("Deployment/overload-api")
    paths = {api[probe]["httpGet"]["path"] for probe in ("livenessProbe", "readinessProbe")}
    assert paths <= {route.path for route in routes.reading.routes}
    assert api["command"][-1] == str(api["ports"][0]["containerPort"])


def test_its_pods_may_stop_in_order() -> None:
    settings = load_settings()
    grace_s = {name: pod_of(name)["terminationGracePeriodSeconds"] for name in DEPLOYMENTS}
    assert grace_s["Deployment/overload-api"] > 2 * settings.overload_grace_s
    assert grace_s["Deployment/overload-worker"] > settings.worker_grace_s


def test_the_workers_scale_by_a_metric_of_the_api() -> None:
    spec = OBJECTS["ScaledObject/overload-worker"]["spec"]
    assert f"Deployment/{spec['scaleTargetRef']['name']}" in DEPLOYMENTS
    (trigger,) = spec["triggers"]
    metric = trigger["metadata"]["query"].removeprefix("max(").removesuffix(")")
    assert metric in {name for name, *_ in QUEUE_GAUGES}
    assert all(isinstance(value, str) for value in trigger["metadata"].values())


def test_labels_and_selectors_match() -> None:
    for name in DEPLOYMENTS:
        labels = OBJECTS[name]["spec"]["template"]["metadata"]["labels"]
        assert OBJECTS[name]["spec"]["selector"]["matchLabels"] == labels
    api = OBJECTS["Deployment/overload-api"]["spec"]["template"]["metadata"]["labels"]
    assert OBJECTS["Service/overload-api"]["spec"]["selector"] == api
