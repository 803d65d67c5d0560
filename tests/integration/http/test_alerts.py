"""Each alert rule is fired by the fault that it is for: real servers, real faults, a real Prometheus.

`make test-alerts`; not in the default run, since it takes some minutes and needs Debian's package prometheus.
The rules' durations are shortened (prometheus.py); what they compare is as it is.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pyarrow as pa
import pytest
import yaml

from flight_replica.client import query
from flight_replica.control.control import Control
from flight_replica.errors import ReplicaError
from flight_replica.flightsql.server import FlightSqlServer
from flight_replica.flightsql.users import ANYBODY
from flight_replica.http.metrics import metrics_routes
from flight_replica.http.server import HttpServer
from flight_replica.log.feed_client import Endpoint
from flight_replica.metrics.metrics import Metrics
from flight_replica.replica.service import ReplicaService
from flight_replica.replica.steering import ReplicaSteering
from flight_replica.replica.upstream import Upstream
from flight_replica.schema import Column, TableSchema
from flight_replica.state.workspace import Workspace
from tests.catalogs import CatalogWriter
from tests.certificates import Authority
from tests.faults import TcpProxy
from tests.integration.http.prometheus import RULES, Prometheus, free_port
from tests.processes import Server, rows, running, status, until

pytestmark = [
    pytest.mark.alerts,
    pytest.mark.skipif(
        shutil.which("prometheus") is None, reason="needs Debian's package prometheus (/usr/bin/prometheus)"
    ),
]

SECONDS = 600.0  # within which everything has fired, also on a machine that is busy
DISK_BYTES = 64 << 20
HTTP = ("--http-listen", "127.0.0.1:0")
SLOW = "SELECT count(*) FROM orders a, orders b, orders c WHERE a.id * b.id % 7 = c.id % 5 AND c.id < 200"
CATALOG = TableSchema((Column("id", pa.int64(), False), Column("v", pa.int64())), ("id",))


class Faults:
    """The servers, by name, and what is done to them. Threads of its own keep up what has to go on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.closing = ExitStack()
        self.targets: dict[str, str] = {}  # name -> HOST:PORT of its HTTP port
        self.is_over = threading.Event()
        self.troubles: list[str] = []  # of what is kept up
        self.authority = Authority(folder)
        self.closing.callback(self.is_over.set)
        retention = ("--retain-ops", "5", "--base-seconds", "0.3")
        self.primary = self.start("primary", "primary", "--data", str(folder / "primary"), *retention)
        self.port = int(self.primary.address.rpartition(":")[2])
        for table in ("orders", "gap", "loop", "broken"):
            self.write(f"CREATE TABLE {table} (id BIGINT PRIMARY KEY, v BIGINT)")
            self.write(f"INSERT INTO {table} SELECT i, i FROM range(2000) t(i)")
        until(lambda: all(self.base_seq(table) == 2000 for table in ("gap", "broken")), "bases are published")
        self.start_servers()

    # --- servers ----------------------------------------------------------------------------------

    def start(self, name: str, *arguments: str) -> Server:
        server = Server(*arguments, *HTTP)
        self.closing.callback(server.kill)
        self.targets[name] = server.line().rpartition("//")[2]
        return server

    def replica_of(self, port: int, name: str, table: str, *more: str) -> Server:
        return self.start(name, "serve", "--primary", f"grpc://127.0.0.1:{port}", "--table", table, *more)

    def proxy(self) -> TcpProxy:
        return self.closing.enter_context(TcpProxy(self.port))

    def start_servers(self) -> None:
        self.replica_of(self.port, "healthy", "orders")
        self.feed_proxy, self.loop_proxy, self.gap_proxy = self.proxy(), self.proxy(), self.proxy()
        self.replica_of(self.feed_proxy.port, "lost", "orders")
        self.replica_of(self.loop_proxy.port, "looping", "loop")
        self.start(
            *("gap", "serve", f"--base=gap=iceberg:{self.base('gap')[0]}"),
            f"--feed=gap=grpc://127.0.0.1:{self.gap_proxy.port}",
        )
        for file in Path(self.base("broken")[0]).parents[1].rglob("*.parquet"):
            os.truncate(file, file.stat().st_size // 2)
        self.replica_of(self.port, "waiting", "broken")
        self.catalog = CatalogWriter(self.folder / "catalog", CATALOG)
        self.commit(1)
        self.damaged = self.start("damaged", "serve", f"--base=t=merutable:{self.catalog.directory}")
        metadata = f"--base=orders=iceberg:{self.base('orders')[0]}"
        fixed = self.start("full", "serve", metadata, "--data", str(self.small_disk() / "replica"))
        limits = ("--limit=queries_max=1", "--limit=query_wait_seconds=0.1")
        fixed_port = int(fixed.address.rpartition(":")[2])
        self.busy = self.replica_of(fixed_port, "unproven", "orders", *limits)
        self.start_paused()
        self.start_prometheus()

    def start_prometheus(self) -> None:
        pair, port = self.authority.signed("server"), free_port()
        at = f"127.0.0.1:{port}"
        self.ending = (
            *("primary", "--data", str(self.folder / "ending"), "--http-listen", at),
            *("--tls-cert", str(pair.certificate), "--tls-key", str(pair.key)),
        )
        self.prometheus = Prometheus(self.folder, self.targets, {"ending": at}, self.authority.ca)
        self.closing.callback(self.prometheus.close)

    def small_disk(self) -> Path:
        """A file system of its own, which is soon full."""
        # Not in pytest's folder: what is left of a run that was killed would be in its way.
        self.disk = disk = Path(self.closing.enter_context(tempfile.TemporaryDirectory(prefix="disk-")))
        size = f"size={DISK_BYTES}"
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", size, "none", str(disk)], capture_output=True)
        if mounted.returncode == 0:
            self.closing.callback(subprocess.run, ["umount", "-l", str(disk)], check=True)
        self.has_disk = mounted.returncode == 0
        return disk

    def start_paused(self) -> None:
        """A replica in this process, whose control is at hand."""
        upstream = Upstream(Endpoint(self.primary.uri), {})
        service = ReplicaService(Workspace(self.folder / "paused"), upstream=upstream, names=["orders"])
        self.closing.callback(service.close)
        server = FlightSqlServer(service, "127.0.0.1", 0)
        self.closing.callback(server.close)
        routes = metrics_routes(Metrics(server, service))
        http = HttpServer(service, service.check, "127.0.0.1", 0, routes=routes)
        self.closing.callback(http.close)
        self.targets["paused"] = http.url.removeprefix("http://")
        self.control = Control(server, service, ReplicaSteering(service))

    def write(self, sql: str) -> None:
        rows(self.primary.uri, sql)

    def base(self, table: str) -> tuple[str, int]:
        """Place and seq of the published base."""
        sql = f"SELECT base_uri, base_seq FROM merutable_tables() WHERE table_name = '{table}'"
        ((uri, seq),) = rows(self.primary.uri, sql)
        return str(uri), int(str(seq or 0))

    def base_seq(self, table: str) -> int:
        return self.base(table)[1]

    def commit(self, seq: int) -> Path:
        """One more snapshot of the catalog, with a file of one row; its place."""
        found = self.catalog.add_file(pa.table({"id": [seq], "v": [seq]}, CATALOG.arrow_schema), [seq])
        self.catalog.commit()
        return self.catalog.directory / found.path

    def value(self, name: str, metric: str) -> float:
        """The sum of a metric's samples at one server."""
        lines = httpx.get(f"http://{self.targets[name]}/metrics", timeout=30).text.splitlines()
        found = [line for line in lines if line.startswith(f"flight_replica_{metric}{{")]
        return sum(float(line.rpartition(" ")[2]) for line in found)

    # --- faults -----------------------------------------------------------------------------------

    def begin(self) -> None:
        """Everything goes wrong that stays wrong; what has to be kept up runs on."""
        for keep_up in (self.lose_primary, self.loop, self.ask_slowly, self.ask_in_vain, self.restart):
            thread = threading.Thread(target=self._kept_up, args=(keep_up,), name=keep_up.__name__)
            thread.start()
            self.closing.callback(thread.join)
        self.open_gap()
        file = self.commit(2)
        os.truncate(file, file.stat().st_size // 2)
        self.catalog.commit()
        until(lambda: status(self.damaged.uri, "t").get("state") == "degraded", "the damage is noticed")
        until(lambda: self.control.table(ANYBODY, "orders").state == "serving", "it is served")
        self.control.pause(ANYBODY, "orders")
        if self.has_disk:
            self.fill_disk()

    def _kept_up(self, do: Callable[[], None]) -> None:
        try:
            do()
        except Exception as error:
            if not self.is_over.is_set():
                self.troubles.append(f"{do.__name__}: {error!r}")

    def lose_primary(self) -> None:
        """First the feed breaks again and again, until that is noticed; then it stands still for good."""
        while ("FlightReplicaFeedFlapping", "lost") not in self.prometheus.firing():
            if self.is_over.is_set():
                return
            failures = self.value("lost", "feed_failures_total")
            self.feed_proxy.cut()
            until(lambda before=failures: self.value("lost", "feed_failures_total") > before, "it broke")
            until(lambda: self.value("lost", "feed_connected") == 1, "it is connected again")
        self.feed_proxy.stall()

    def open_gap(self) -> None:
        """The log goes on, and is trimmed, while the replica is away; its base stays what it is."""
        self._away(self.gap_proxy, "gap")

    def loop(self) -> None:
        """The same again and again, with a newer base at hand."""
        while not self.is_over.is_set():
            self._away(self.loop_proxy, "loop")
            until(lambda: self._is_there("loop"), "the replica is there again", 120)

    def _is_there(self, table: str) -> bool:
        sql = f"SELECT high_water FROM merutable_status() WHERE table_name = '{table}'"
        return self.value("looping", "table_visible_seq") == rows(self.primary.uri, sql)[0][0]

    def _away(self, proxy: TcpProxy, table: str) -> None:
        proxy.lead_to(1)  # nobody listens there
        proxy.cut()
        low_water = self._low_water(table)
        for _ in range(4):
            self.write(f"UPDATE {table} SET v = v + 1 WHERE id < 10")
        until(lambda: self._low_water(table) > low_water, "the log is trimmed", 120)
        until(lambda: self.base_seq(table) >= self._low_water(table), "a newer base is published", 120)
        proxy.lead_to(self.port)

    def _low_water(self, table: str) -> int:
        sql = f"SELECT low_water FROM merutable_tables() WHERE table_name = '{table}'"
        return int(str(rows(self.primary.uri, sql)[0][0]))

    def ask_slowly(self) -> None:
        """Statements of more than a second: more than a tenth of all."""
        while not self.is_over.wait(3.0):
            with contextlib.suppress(ReplicaError):
                query(self.busy.uri, SLOW)

    def ask_in_vain(self) -> None:
        """Others meanwhile, for which there is no place."""
        while not self.is_over.wait(1.0):
            with contextlib.suppress(ReplicaError):
                query(self.busy.uri, "SELECT count(*) FROM orders")

    def fill_disk(self) -> None:
        free = shutil.disk_usage(self.disk).free
        with (self.disk / "ballast").open("wb") as file:
            file.write(b"\0" * (free - DISK_BYTES // 20))

    def restart(self) -> None:
        """A server, with a certificate that ends tomorrow, is killed again and again, then for good."""
        seen = set[float]()
        for _ in range(5):
            server = Server(*self.ending)
            with running(server):
                until(lambda: self._started_at() not in {*seen, None}, "its start is noticed", 120)
                seen.add(self._started_at() or 0.0)

    def _started_at(self) -> float | None:
        return self.prometheus.value('process_start_time_seconds{name="ending"}')


# Which server each alert is about. No other one fires it, and the healthy one fires none.
EXPECTED = {
    "FlightReplicaDown": "ending",
    "FlightReplicaRestarting": "ending",
    "FlightReplicaCertificateEnds": "ending",
    "FlightReplicaPrimaryUnreachable": "lost",
    "FlightReplicaFeedFlapping": "lost",
    "FlightReplicaStale": "lost",
    "FlightReplicaNoProofOfFreshness": "unproven",
    "FlightReplicaSlowQueries": "unproven",
    "FlightReplicaQueriesRefused": "unproven",
    "FlightReplicaTableNotServed": "waiting",
    "FlightReplicaDegraded": "damaged",
    "FlightReplicaRebaseFailing": "damaged",
    "FlightReplicaPaused": "paused",
    "FlightReplicaLogGap": "gap",
    "FlightReplicaRecoveryLoop": "looping",
    "FlightReplicaDiskNearlyFull": "full",
}


@pytest.fixture(scope="module")
def fired(tmp_path_factory: pytest.TempPathFactory) -> Iterator[set[tuple[str, str]]]:
    """(alert, server) of everything that fired, until all that is expected has."""
    faults = Faults(tmp_path_factory.mktemp("faults"))
    with faults.closing:
        faults.begin()
        seen: set[tuple[str, str]] = set()
        wanted = {*EXPECTED.items()}
        if not faults.has_disk:
            wanted.discard(("FlightReplicaDiskNearlyFull", "full"))
        deadline = time.monotonic() + SECONDS
        while not wanted <= seen and time.monotonic() < deadline:
            seen |= faults.prometheus.firing()
            assert not faults.troubles, faults.troubles
            time.sleep(0.5)
        faults.is_over.set()
        yield seen if faults.has_disk else {*seen, ("no disk", "")}


def test_every_rule_has_its_fault() -> None:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    assert {rule["alert"] for rule in group["rules"]} == set(EXPECTED)


@pytest.mark.parametrize(("alert", "server"), list(EXPECTED.items()))
def test_a_fault_fires_its_alert(fired: set[tuple[str, str]], alert: str, server: str) -> None:
    if server == "full" and ("no disk", "") in fired:
        pytest.skip("a small file system can't be mounted by this user")
    assert (alert, server) in fired


def test_a_server_that_is_well_fires_nothing(fired: set[tuple[str, str]]) -> None:
    assert not {alert for alert, server in fired if server == "healthy"}


def test_a_table_without_a_feed_is_not_asked_for_freshness(fired: set[tuple[str, str]]) -> None:
    assert {alert for alert, server in fired if server == "full"} <= {"FlightReplicaDiskNearlyFull"}
