"""A real Prometheus over the alert rules of this project, with their durations shortened."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

import httpx
import yaml

from tests.processes import ROOT, until

RULES = ROOT / "deploy/alerts/flight-replica.rules.yml"
SCALE = 10  # a minute of the rules takes so much less here; what is compared stays as it is
SCRAPE_SECONDS = 2  # enough for a scrape on a machine that is busy, and for a few within the shortest range


class Prometheus:
    """One process, from creation to `close`. It scrapes by HTTP `targets`, and `tls_targets` by HTTPS."""

    def __init__(
        self, folder: Path, targets: Mapping[str, str], tls_targets: Mapping[str, str], ca: Path
    ) -> None:
        """Targets: name -> HOST:PORT; the name is the label `name` of everything that comes from there."""
        (folder / "rules.yml").write_text(shortened(RULES.read_text()))
        jobs = [_job("flight-replica", targets), _job("flight-replica-tls", tls_targets)]
        jobs[1] |= {"scheme": "https", "tls_config": {"ca_file": str(ca)}}
        seconds = f"{SCRAPE_SECONDS}s"
        config = {
            "global": {"scrape_interval": seconds, "scrape_timeout": seconds, "evaluation_interval": "1s"},
            "rule_files": ["rules.yml"],
            "scrape_configs": jobs,
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        self.url = f"http://127.0.0.1:{free_port()}"
        self._log = (folder / "prometheus.log").open("w")
        self._process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={self.url.removeprefix('http://')}",
            ],
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        try:
            until(self._is_ready, "Prometheus is ready")
        except BaseException:
            self.close()
            raise

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    def firing(self) -> set[tuple[str, str]]:
        """(alert, name of its server) that fire now."""
        alerts = httpx.get(f"{self.url}/api/v1/alerts", timeout=30).json()["data"]["alerts"]
        return {
            (alert["labels"]["alertname"], alert["labels"]["name"])
            for alert in alerts
            if alert["state"] == "firing"
        }

    def value(self, expression: str) -> float | None:
        """The only sample of an expression now; None where there is none."""
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": expression}, timeout=30).json()
        found = answer["data"]["result"]
        return float(found[0]["value"][1]) if found else None

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(30)
        self._log.close()


def shortened(rules: str) -> str:
    """The rules with each duration divided by SCALE."""

    def seconds(match: re.Match[str]) -> str:
        return f"{match[1]}{int(match[2]) * 60 // SCALE}s{match[3]}"

    return re.sub(r"(for: |\[)(\d+)m(\]|$)", seconds, rules, flags=re.MULTILINE)


def _job(name: str, targets: Mapping[str, str]) -> dict[str, object]:
    return {
        "job_name": name,
        "static_configs": [{"targets": [at], "labels": {"name": given}} for given, at in targets.items()],
        "relabel_configs": [{"target_label": "job", "replacement": "flight-replica"}],
    }


def free_port() -> int:
    """One that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port
