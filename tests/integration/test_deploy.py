"""The image's own settings and health check, on real processes: tests have no container engine."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import ROOT, Process, Server, is_answered, rows, running, until

DOCKERFILE = (ROOT / "deploy" / "docker" / "Dockerfile").read_text()
SETTINGS = dict(re.findall(r"(FLIGHT_REPLICA_\w+)=(\S+)", DOCKERFILE))


def is_healthy(port: int) -> bool:
    """What the image's HEALTHCHECK says of the server whose HTTP port it is."""
    found = re.search(r"HEALTHCHECK.*\\\n\s*CMD (\[.*\])", DOCKERFILE)
    assert found is not None
    _, *arguments = json.loads(found[1])
    asked = SETTINGS["FLIGHT_REPLICA_HTTP_LISTEN"]
    command = [argument.replace(asked, f"127.0.0.1:{port}") for argument in arguments]
    assert command != arguments, "it asks another port than the one that is served"
    return subprocess.run([sys.executable, *command], capture_output=True, timeout=60).returncode == 0


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The image's, with ports and a folder of this test."""
    assert SETTINGS["FLIGHT_REPLICA_LISTEN"].startswith("0.0.0.0:")
    return {
        **SETTINGS,
        "FLIGHT_REPLICA_DATA": str(tmp_path / "data"),
        "FLIGHT_REPLICA_LISTEN": "127.0.0.1:0",
        "FLIGHT_REPLICA_HTTP_LISTEN": "127.0.0.1:0",
    }


def test_the_image_s_health_check_tells_whether_it_is_ready(
    environment: dict[str, str], tmp_path: Path
) -> None:
    primary = Server("primary", "--data", str(tmp_path / "primary"))
    with running(primary):
        rows(primary.uri, "CREATE TABLE t (id BIGINT PRIMARY KEY)")
        replica = Server("serve", "--primary", primary.uri, env=environment)
        with running(replica):
            port = int(replica.line().rpartition(":")[2])
            until(is_answered(replica.uri, "SELECT count(*) FROM t", [(0,)]), "the table is there")
            until(lambda: is_healthy(port), "it is ready")
            assert replica.terminate() == 0
            assert not is_healthy(port)
            assert all(json.loads(line)["ts"] for line in replica.errors)


def test_the_image_is_open_to_nobody_by_accident(environment: dict[str, str]) -> None:
    refused = Process(
        "flight_replica",
        *("serve", "--primary", "grpc://127.0.0.1:1"),
        env={**environment, "FLIGHT_REPLICA_LISTEN": SETTINGS["FLIGHT_REPLICA_LISTEN"]},
    )
    with running(refused):
        assert refused.wait() == 1
    assert "everybody there could read everything" in refused.errors[0]
