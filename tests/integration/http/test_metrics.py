"""`/metrics` of a replica that follows a real primary, read by Prometheus's own parsers."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from flight_replica.errors import ReplicaError
from flight_replica.flightsql.auth import BasicLogins, OpenLogins
from flight_replica.flightsql.observing import Phase
from flight_replica.flightsql.server import FlightSqlServer
from flight_replica.flightsql.tls import read_server_tls
from flight_replica.flightsql.tokens import Tokens
from flight_replica.flightsql.users import UsersFile
from flight_replica.http.metrics import metrics_routes
from flight_replica.http.server import HttpServer
from flight_replica.log.feed_client import Endpoint
from flight_replica.metrics.metrics import Metrics
from flight_replica.replica.service import ReplicaService
from flight_replica.replica.upstream import Upstream
from flight_replica.state.workspace import Workspace
from tests.accounts import write_users
from tests.certificates import Authority
from tests.processes import Server, position, rows, running, until

OPENMETRICS = {"accept": "application/openmetrics-text; version=1.0.0; charset=utf-8"}
# What a name may end in (base units), and the few counts that have no unit.
UNITS = ("_seconds", "_bytes", "_ratio", "_info", "_seq", "_seqs", "_ops", "_rows")
COUNTS = {
    *("draining", "calls", "follows", "query_places", "planned_statements", "prepared_statements"),
    *("transactions", "transactions_holding", "pins", "sessions", "queries_running", "database_up"),
    *("table_state", "table_state_kind", "table_waiters", "table_old_states", "feed_connected"),
}
LABELS = {"table", "state", "kind", "outcome", "phase", "version", "product", "le"}
PASSWORDS = {"root": "root's pass phrase", "carol": "carol's pass phrase"}


class Site:
    """A primary in a process of its own, and a replica of it in this one, with Flight and HTTP ports."""

    def __init__(self, folder: Path, **logins: object) -> None:
        self._closing = ExitStack()
        self.primary = Server("primary", "--data", str(folder / "primary"), "--base-seconds", "0.3")
        self._closing.callback(self.primary.kill)
        rows(self.primary.uri, "CREATE TABLE orders (id BIGINT PRIMARY KEY, price DOUBLE)")
        rows(self.primary.uri, "CREATE TABLE items (id BIGINT PRIMARY KEY)")
        rows(self.primary.uri, "INSERT INTO orders SELECT i, i FROM range(100) t(i)")
        upstream = Upstream(Endpoint(self.primary.uri), {})
        self.service = ReplicaService(Workspace(folder / "replica"), upstream=upstream)
        self._closing.callback(self.service.close)
        self.flight = FlightSqlServer(self.service, "127.0.0.1", 0)
        self._closing.callback(self.flight.close)
        self.metrics = Metrics(self.flight, self.service)
        self.http = self.serve()
        self.uri = f"grpc://127.0.0.1:{self.flight.port}"

    def serve(self, logins: BasicLogins | None = None) -> HttpServer:
        """One more HTTP port."""
        http = HttpServer(
            self.service,
            self.service.check,
            "127.0.0.1",
            0,
            logins=logins or OpenLogins(),
            routes=metrics_routes(self.metrics),
        )
        self._closing.callback(http.close)
        return http

    def scrape(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        """(name, labels) -> value."""
        families = parse_text(httpx.get(f"{self.http.url}/metrics", timeout=30).text)
        return {
            (sample.name.removeprefix("flight_replica_"), tuple(sorted(sample.labels.items()))): sample.value
            for family in families
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float:
        """One sample; NaN where there is none."""
        return self.scrape().get((name, tuple(sorted(labels.items()))), math.nan)

    def reach(self, seq: int) -> None:
        until(lambda: _visible(self.uri) >= seq, f"seq {seq} is visible")

    def close(self) -> None:
        self._closing.close()


def _visible(uri: str) -> int:
    try:
        return position(uri, "orders")["visible_seq"]
    except ReplicaError:
        return -1


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    found = Site(tmp_path_factory.mktemp("site"))
    try:
        found.reach(100)
        until(lambda: found.value("table_state", table="items", state="serving") == 1, "items is served")
        yield found
    finally:
        found.close()


# --- form ---------------------------------------------------------------------------------------------


@pytest.fixture
def families(site: Site) -> list[Metric]:
    answer = httpx.get(f"{site.http.url}/metrics", headers=OPENMETRICS)
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    return list(parse_openmetrics(answer.text))


def test_both_parsers_of_prometheus_read_the_same(site: Site, families: list[Metric]) -> None:
    for accept in ("*/*", 'application/openmetrics-text; version="1.0.0"', "text/plain; version=new"):
        answer = httpx.get(f"{site.http.url}/metrics", headers={"accept": accept})
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    names = {family.name for family in parse_text(answer.text)}
    assert names == {family.name for family in families}


def test_names_end_in_base_units_and_every_family_is_explained(families: list[Metric]) -> None:
    names = [family.name for family in families]
    assert len(names) == len(set(names))
    for family in families:
        assert family.documentation, family.name
        if family.name.startswith("process_"):  # the client library's own
            continue
        name = family.name.removeprefix("flight_replica_")
        assert name != family.name
        assert re.fullmatch(r"[a-z][a-z_]*[a-z]", name), name
        if family.type != "counter":
            assert name.endswith(UNITS) or name in COUNTS, name


def test_types_are_what_their_samples_are(families: list[Metric]) -> None:
    for family in families:
        names = {sample.name for sample in family.samples}
        match family.type:
            case "counter":
                assert names <= {f"{family.name}_total"}
            case "histogram":
                assert names == {f"{family.name}_{part}" for part in ("bucket", "count", "sum")}
            case "gauge":
                assert names <= {family.name}
            case other:
                pytest.fail(f"{family.name} is a {other}")


def test_labels_are_few_and_never_a_user_or_a_statement(site: Site, families: list[Metric]) -> None:
    labels = {name for family in families for sample in family.samples for name in sample.labels}
    assert labels <= LABELS
    count = _statement_samples(families)
    rows(site.uri, "SELECT count(*) FROM orders WHERE price > 17 -- some text")
    with pytest.raises(ReplicaError):
        rows(site.uri, "SELECT nothing FROM orders")
    text = httpx.get(f"{site.http.url}/metrics").text
    assert _statement_samples(parse_text(text)) == count
    assert "some text" not in text


def _statement_samples(families: Iterable[Metric]) -> int:
    """How many there are about statements. Those of tables come and go, as while a native state is made."""
    return sum(len(family.samples) for family in families if family.name.startswith("flight_replica_quer"))


# --- truth --------------------------------------------------------------------------------------------


def test_positions_and_freshness_are_the_table_s(site: Site) -> None:
    before = site.scrape()
    ((_, seq),) = rows(site.primary.uri, "INSERT INTO orders VALUES (1000, 1), (1001, 2)")
    assert isinstance(seq, int)
    site.reach(seq)
    until(lambda: site.value("table_lag_seqs", table="orders") == 0, "nothing is missing")
    found = site.scrape()
    orders = (("table", "orders"),)
    assert found["table_visible_seq", orders] == seq
    assert found["table_high_water_seq", orders] == seq
    assert found["table_base_seq", orders] <= seq
    assert found["table_commit_timestamp_seconds", orders] >= before["table_commit_timestamp_seconds", orders]
    assert 0 <= found["table_lag_seconds", orders] < 30
    assert abs(time.time() - found["table_fresh_timestamp_seconds", orders]) < 30
    assert found["feed_connected", orders] == 1
    assert found["table_state", (("state", "serving"), *orders)] == 1
    applied = found["ops_applied_total", orders] - before["ops_applied_total", orders]
    assert applied == 2
    assert found["bytes_applied_total", orders] > before["bytes_applied_total", orders]
    for name in ("apply_ops", "apply_bytes", "apply_seconds"):
        assert found[f"{name}_count", orders] > before[f"{name}_count", orders]


def test_statements_are_counted_by_kind_and_outcome(site: Site) -> None:
    def counted() -> dict[str, float]:
        return {
            outcome: site.value("queries_total", kind="query", outcome=outcome)
            for outcome in ("done", "failed")
        }

    until(lambda: sum(site.value("queries_running", phase=phase) for phase in Phase) == 0, "all have ended")
    before, timed = counted(), site.value("query_seconds_count", kind="query")
    read = site.value("query_rows_sum", kind="query")
    rows(site.uri, "SELECT * FROM orders ORDER BY id LIMIT 7")
    for wrong in ("SELECT nothing FROM orders", "SELECT CAST(price || 'x' AS BIGINT) FROM orders"):
        with pytest.raises(ReplicaError):
            rows(site.uri, wrong)
    until(lambda: site.value("query_seconds_count", kind="query") == timed + 3, "all three have ended")
    assert {outcome: count - before[outcome] for outcome, count in counted().items()} == {
        "done": 1,
        "failed": 2,
    }
    assert site.value("query_rows_sum", kind="query") == read + 7
    assert site.value("query_lag_seconds_count") > 0
    assert site.value("query_phase_seconds_count", phase="execute") >= timed + 2


def test_the_process_tells_what_it_is_and_what_it_uses(site: Site) -> None:
    found = {name: value for (name, labels), value in site.scrape().items() if not labels}
    assert found["database_up"] == 1
    assert 0 < found["database_memory_bytes"] < found["database_memory_limit_bytes"]
    assert 0 < found["data_free_bytes"] < found["data_size_bytes"]
    assert found["process_resident_memory_bytes"] > 1 << 20
    assert found["process_start_time_seconds"] <= time.time()
    assert found["draining"] == 0
    builds = [labels for name, labels in site.scrape() if name == "build_info"]
    assert [dict(labels)["product"] for labels in builds] == ["replica"]


def test_a_certificate_tells_when_it_ends(site: Site, tmp_path: Path) -> None:
    pair = Authority(tmp_path).signed("server")
    metrics = Metrics(site.flight, site.service, read_server_tls(pair.certificate, pair.key))
    text = metrics.exposition("", OpenLogins().login({}, False).user)[0].decode()
    (family,) = [found for found in parse_text(text) if found.name.endswith("_expiry_timestamp_seconds")]
    assert 0 < family.samples[0].value - time.time() <= 86_400


def test_with_logins_each_user_sees_the_tables_that_he_may_read(site: Site, tmp_path: Path) -> None:
    users = write_users(
        tmp_path / "users.json",
        root={"password": PASSWORDS["root"]},
        carol={"password": PASSWORDS["carol"], "read": ["items"]},
    )
    url = f"{site.serve(BasicLogins(UsersFile(users), Tokens())).url}/metrics"
    assert httpx.get(url).status_code == 401
    assert httpx.get(url, auth=("root", "wrong")).status_code == 401
    every = httpx.get(url, auth=("root", PASSWORDS["root"])).text
    some = httpx.get(url, auth=("carol", PASSWORDS["carol"])).text
    assert 'table="orders"' in every
    assert 'table="items"' in some
    assert "orders" not in some
    assert not [name for name in PASSWORDS if name in every + some]


def test_a_primary_tells_its_own(tmp_path: Path) -> None:
    from flight_replica.primary.service import PrimaryService

    service = PrimaryService.open(tmp_path / "primary")
    with ExitStack() as closing:
        closing.callback(service.close)
        server = FlightSqlServer(service, "127.0.0.1", 0)
        closing.callback(server.close)
        metrics = Metrics(server, service)
        rows(f"grpc://127.0.0.1:{server.port}", "CREATE TABLE t (id BIGINT PRIMARY KEY)")
        rows(f"grpc://127.0.0.1:{server.port}", "INSERT INTO t VALUES (1)")
        text = metrics.exposition("", OpenLogins().login({}, False).user)[0].decode()
        # Tidied up by somebody else: what is told of the disk is missing, and nothing else.
        (tmp_path / "primary").rename(tmp_path / "away")
        without = metrics.exposition("", OpenLogins().login({}, False).user)[0].decode()
        assert "flight_replica_data_free_bytes" in text
        assert "flight_replica_data_free_bytes" not in without
        assert "flight_replica_table_visible_seq" in without
    values = {
        (sample.name, sample.labels.get("kind")): sample.value
        for family in parse_text(text)
        for sample in family.samples
    }
    assert values["flight_replica_table_visible_seq", None] == 1
    assert values["flight_replica_query_rows_sum", "write"] == 1
    assert ("flight_replica_feed_connected", None) not in values


def test_a_primary_that_is_gone_shows_at_the_feed_and_in_the_lag(tmp_path: Path) -> None:
    site = Site(tmp_path)
    try:
        site.reach(100)
        until(lambda: site.value("feed_connected", table="orders") == 1, "the feed flows")
        until(lambda: site.value("table_lag_seconds", table="orders") >= 0, "the lag is proven")
        with running(site.primary):
            site.primary.kill()
        until(lambda: site.value("feed_connected", table="orders") == 0, "the feed is interrupted")
        failures = site.value("feed_failures_total", table="orders")
        assert failures >= 1
        proven_at = site.value("table_fresh_timestamp_seconds", table="orders")
        until(lambda: site.value("table_lag_seconds", table="orders") > 1, "the lag grows")
        assert abs(site.value("table_fresh_timestamp_seconds", table="orders") - proven_at) < 0.5
        # However often it has tried to connect meanwhile.
        assert site.value("feed_failures_total", table="orders") == failures
    finally:
        site.close()
