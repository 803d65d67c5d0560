"""The examples in deploy/, as those want them who read them, and our command line and settings."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from flight_replica.cli import _parser
from flight_replica.config import ServeConfig, load
from flight_replica.config.sections import Lifecycle
from flight_replica.config.settings import settings_of
from flight_replica.flightsql.doors import CLOSE_SECONDS
from flight_replica.http.probes import probe_routes

DEPLOY = Path(__file__).resolve().parents[3] / "deploy"
UNIT = DEPLOY / "systemd" / "flight-replica.service"
DOCKERFILE = DEPLOY / "docker" / "Dockerfile"
KUBERNETES = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
UID = 10001
STOP_SECONDS = Lifecycle().drain_seconds + CLOSE_SECONDS
VARIABLES = {setting.variable for setting in settings_of(ServeConfig)}


def is_command(arguments: list[str]) -> bool:
    """Whether our command line takes them. Exits with its own text where it doesn't."""
    _parser().parse_args(arguments)
    return True


# --- systemd ----------------------------------------------------------------------------------------


def directives() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def test_the_unit_starts_us_as_our_command_line_wants_it() -> None:
    (command,) = directives()["ExecStart"]
    program, *arguments = shlex.split(command)
    assert program.endswith("/flight-replica") and is_command(arguments)
    assert directives()["Type"] == ["notify"]


def test_the_unit_gives_time_to_drain() -> None:
    (seconds,) = directives()["TimeoutStopSec"]
    assert float(seconds) > STOP_SECONDS


def test_the_unit_is_started_again_however_long_its_primary_is_down() -> None:
    assert directives()["Restart"] == ["on-failure"]
    assert directives()["StartLimitIntervalSec"] == ["0"]


def test_the_unit_s_settings_are_right(tmp_path: Path) -> None:
    assert load(ServeConfig, {}, {}, DEPLOY / "systemd" / "replica.toml").config.lifecycle == Lifecycle()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_finds_nothing_wrong_with_the_unit_and_little_exposed(tmp_path: Path) -> None:
    (command,) = directives()["ExecStart"]
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace(shlex.split(command)[0], "/bin/true"))  # which is there
    verified = subprocess.run(
        ["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, timeout=60
    )
    about_us = [line for line in verified.stderr.splitlines() if UNIT.name in line]
    assert about_us == []  # it may complain of units of the host
    rated = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(copy)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    score = re.search(r"exposure level for \S+: ([\d.]+)", rated.stdout)
    assert score is not None, rated.stderr
    assert float(score[1]) < 2.5, rated.stdout


# --- Docker -----------------------------------------------------------------------------------------


def instructions() -> list[tuple[str, str]]:
    """Instruction and its arguments, with continued lines joined."""
    text = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE))
    return [
        (name, rest.strip()) for name, _, rest in (line.partition(" ") for line in text.splitlines() if line)
    ]


def last_stage() -> list[tuple[str, str]]:
    found = instructions()
    begin = max(place for place, (name, _) in enumerate(found) if name == "FROM")
    return found[begin:]


def test_the_image_runs_as_nobody_and_hears_signals() -> None:
    of = dict(last_stage())
    assert of["USER"] == f"{UID}:{UID}"
    program = json.loads(of["ENTRYPOINT"])  # as a list: no shell stands between it and signals
    assert program == ["/opt/flight-replica/bin/flight-replica"]
    assert json.loads(of["CMD"]) == ["--help"]
    assert of["STOPSIGNAL"] == "SIGTERM"
    assert "/data" in of["VOLUME"] and of["WORKDIR"] == "/data"


def test_the_image_is_built_of_stages_that_are_named_by_version() -> None:
    bases = [rest.split()[0] for name, rest in instructions() if name == "FROM"]
    assert len(bases) == 2
    assert all(re.fullmatch(r"python:3\.11[\w.-]+", base) for base in bases)
    assert not any(name == "ADD" for name, _ in instructions())
    copied = [rest.split()[:-1] for name, rest in instructions() if name == "COPY" and "--from" not in rest]
    assert all((DEPLOY.parent / source).exists() for sources in copied for source in sources)
    allowed = (DOCKERFILE.parent / "Dockerfile.dockerignore").read_text().splitlines()
    assert {source for sources in copied for source in sources} == {
        line.removeprefix("!") for line in allowed if line.startswith("!")
    }


def test_the_image_s_variables_are_settings() -> None:
    names = set(re.findall(r"(FLIGHT_REPLICA_\w+)=", dict(last_stage())["ENV"]))
    assert len(names) == 4 and names <= VARIABLES
    (port,) = re.findall(r"FLIGHT_REPLICA_LISTEN=\S+:(\d+)", dict(last_stage())["ENV"])
    assert dict(last_stage())["EXPOSE"] == port


# --- Kubernetes -------------------------------------------------------------------------------------


def manifests() -> Iterator[tuple[str, dict[str, Any]]]:
    for file in KUBERNETES:
        for document in yaml.safe_load_all(file.read_text()):
            yield file.name, document


def manifest(kind: str) -> dict[str, Any]:
    (found,) = [document for _, document in manifests() if document["kind"] == kind]
    return found


def pod() -> dict[str, Any]:
    found: dict[str, Any] = manifest("StatefulSet")["spec"]["template"]
    return found


def container() -> dict[str, Any]:
    (found,) = pod()["spec"]["containers"]
    assert isinstance(found, dict)
    return found


def test_every_manifest_is_as_kubernetes_wants_it() -> None:
    for name, document in manifests():
        try:
            kubernetes_validate.validate(document, "1.34", strict=True)
        except kubernetes_validate.ValidationError as error:
            raise AssertionError(
                f"{name}, {document['kind']}: {error.message} at {list(error.path)}"
            ) from error


def test_manifests_fit_each_other() -> None:
    labels = pod()["metadata"]["labels"]
    assert manifest("StatefulSet")["spec"]["selector"]["matchLabels"] == labels
    assert manifest("Service")["spec"]["selector"] == labels
    assert manifest("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
    assert manifest("StatefulSet")["spec"]["serviceName"] == manifest("Service")["metadata"]["name"]
    ports = {port["name"]: port["containerPort"] for port in container()["ports"]}
    assert {port["targetPort"]: port["port"] for port in manifest("Service")["spec"]["ports"]} == ports
    volumes = {volume["name"] for volume in pod()["spec"]["volumes"]}
    volumes |= {
        claim["metadata"]["name"] for claim in manifest("StatefulSet")["spec"]["volumeClaimTemplates"]
    }
    assert {mount["name"] for mount in container()["volumeMounts"]} == volumes


def test_the_settings_of_the_pods_are_right_and_fit_the_manifests(tmp_path: Path) -> None:
    assert is_command(container()["args"])
    file = tmp_path / "replica.toml"
    file.write_text(manifest("ConfigMap")["data"]["replica.toml"])
    config = load(ServeConfig, {}, {}, file).config
    ports = {port["name"]: port["containerPort"] for port in container()["ports"]}
    assert config.http.listen is not None
    assert {"flight": config.listen[1], "http": config.http.listen[1]} == ports
    assert manifest("Service")["metadata"]["name"] in config.http.hosts
    mounts = {mount["name"]: mount["mountPath"] for mount in container()["volumeMounts"]}
    assert str(config.data) == mounts["data"] and mounts["config"] in container()["args"]
    for secret in (config.access.users, config.primary.password_file):
        assert str(secret).startswith(mounts["secrets"])
    stop = container()["lifecycle"]["preStop"]["sleep"]["seconds"]
    grace = pod()["spec"]["terminationGracePeriodSeconds"]
    assert grace > stop + config.lifecycle.drain_seconds + CLOSE_SECONDS


def test_probes_ask_what_is_served() -> None:
    paths = {route.path for route in probe_routes()}
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        asked = container()[probe]["httpGet"]
        assert asked["path"].partition("?")[0] in paths and asked["port"] == "http"


def test_pods_may_do_nothing_that_they_need_not() -> None:
    spec, own = pod()["spec"], container()["securityContext"]
    assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] == UID
    assert own["readOnlyRootFilesystem"] and not own["allowPrivilegeEscalation"]
    assert own["capabilities"] == {"drop": ["ALL"]}
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not spec["automountServiceAccountToken"]
    assert {"requests", "limits"} <= container()["resources"].keys()
