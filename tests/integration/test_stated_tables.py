"""`serve` with base and feed by hand: what fits is served, what doesn't is one clear line and exit code 1."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import pyarrow as pa
import pytest
from pyiceberg import types as ice
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.schema import Schema

from tests import samples
from tests.accounts import write_users
from tests.certificates import Authority
from tests.feed_server import Publication
from tests.processes import Process, Server, is_answered, position, rows, running, status, until

DIGEST = "SELECT lineage, seq, row_count, digest FROM merutable_digest('t')"
NEVER = UUID("00000000-0000-4000-8000-000000000000")


@dataclass(frozen=True, slots=True)
class Primary:
    """A primary of `t`, its lineage, and an Iceberg table of somebody else that is `t` at seq 3."""

    server: Server
    lineage: str
    metadata: str

    @property
    def uri(self) -> str:
        return self.server.uri


@pytest.fixture(scope="module")
def primary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Primary]:
    folder = tmp_path_factory.mktemp("stated")
    server = Server("primary", "--data", str(folder / "primary"), "--base-seconds", "0.2")
    with running(server):
        rows(server.uri, "CREATE TABLE t (id INTEGER PRIMARY KEY, v VARCHAR, small TINYINT)")
        rows(server.uri, "INSERT INTO t VALUES (1, 'a', 10), (2, 'b', NULL), (3, NULL, -128)")
        metadata = iceberg_table(
            folder / "lake", [{"id": 1, "v": "a", "small": 10}, {"id": 2, "v": "b"}, {"id": 3, "small": -128}]
        )
        rows(server.uri, "UPDATE t SET v = 'new' WHERE id = 2")
        rows(server.uri, "INSERT INTO t VALUES (4, 'd', 1)")
        lineage = str(rows(server.uri, "SELECT lineage FROM merutable_tables()")[0][0])
        yield Primary(server, lineage, metadata)


def iceberg_table(folder: Path, values: Sequence[dict[str, object]], *, small: bool = True) -> str:
    """The metadata file of an Iceberg table that says nothing of merutable, and has no type of one byte."""
    folder.mkdir()
    columns = [
        ice.NestedField(1, "id", ice.IntegerType(), required=True),
        ice.NestedField(2, "v", ice.StringType()),
    ]
    if small:
        columns.append(ice.NestedField(3, "small", ice.IntegerType()))
    with closing(SqlCatalog("c", uri=f"sqlite:///{folder}/catalog.db", warehouse=str(folder))) as catalog:
        catalog.create_namespace("n")
        table = catalog.create_table("n.t", Schema(*columns))
        table.append(pa.Table.from_pylist(list(values), table.schema().as_arrow()))
        return str(table.metadata_location)


def refused(*arguments: str) -> str:
    """The one line that `serve` ends with."""
    process = Process("flight_replica", "--log-level", "error", "serve", *arguments)
    with running(process):
        assert process.wait(30) == 1
        assert list(process.lines()) == []
        (line,) = process.errors
    assert line.startswith("flight-replica: ")
    return line


def same(server: Server, primary: Primary) -> None:
    until(is_answered(server.uri, DIGEST, rows(primary.uri, DIGEST)), "the replica has the primary's table")


def by_hand(primary: Primary, **other: str) -> list[str]:
    """All that is to be said of that Iceberg table, but for `other`; an empty text leaves an option out."""
    said = {"key": "id", "base-seq": "3", "lineage": primary.lineage, "feed": primary.uri} | other
    options = [f"--{name}=t={text}" for name, text in said.items() if text]
    return [f"--base=t=iceberg:{primary.metadata}", *options]


# --- what fits ----------------------------------------------------------------------------------------


def test_an_iceberg_table_that_says_nothing_joins_a_feed_by_what_is_said_of_it(primary: Primary) -> None:
    replica = Server("serve", *by_hand(primary))
    with running(replica):
        same(replica, primary)
        assert position(replica.uri, "t")["base_seq"] == 3
        rows(primary.uri, "UPDATE t SET small = 7 WHERE id = 4")
        same(replica, primary)


def test_an_iceberg_table_that_says_all_joins_a_feed(primary: Primary) -> None:
    until(
        is_answered(primary.uri, "SELECT base_seq = high_water FROM merutable_tables()", [(True,)]),
        "published",
    )
    ((uri,),) = rows(primary.uri, "SELECT base_uri FROM merutable_tables()")
    replica = Server("serve", f"--base=t=iceberg:{uri}", f"--feed=t={primary.uri}")
    with running(replica):
        same(replica, primary)
        rows(primary.uri, "UPDATE t SET small = 8 WHERE id = 4")
        same(replica, primary)


@samples.needs_samples
def test_a_catalog_of_the_engine_joins_the_feed_that_knows_its_uuid(tmp_path: Path) -> None:
    directory = samples.scenario("s01")
    checkpoint = directory / "checkpoints" / "c4_flushed_again"
    place = samples.catalog(directory / "checkpoints" / "c1_one_file", tmp_path / "catalog")
    feed = Server(module="tests.feed_server")
    with running(feed):
        feed.say(Publication(str(checkpoint), str(tmp_path / "not here"), 20).to_line())
        feed.line()
        replica = Server("serve", f"--base=events=merutable:{place}", f"--feed=events={feed.uri}")
        with running(replica):
            expected = len(samples.expected(checkpoint))
            until(
                is_answered(replica.uri, "SELECT count(*) FROM events", [(expected,)]),
                "base and feed are joined",
            )
        shutil.rmtree(place)
        other = samples.catalog(samples.scenario("s04") / "checkpoints" / _first("s04"), place)
        assert "UUID" in refused(f"--base=events=merutable:{other}", f"--feed=events={feed.uri}")


def _first(scenario: str) -> str:
    """The first checkpoint of a scenario that has a manifest."""
    found = sorted(samples.scenario(scenario).glob("checkpoints/*/manifest.json"))
    return found[0].parent.name


def test_a_copy_over_tls_by_a_user_with_a_password(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.signed("server")
    users = write_users(
        tmp_path / "users.json",
        root={"password": "root's pass phrase", "write": ["*"], "ddl": True},
        copy={"password": "copy's pass phrase", "read": ["t"]},
    )
    tls = ["--tls-cert", str(pair.certificate), "--tls-key", str(pair.key)]
    primary = Server(
        "primary", "--data", str(tmp_path / "data"), "--auth", "basic", "--users", str(users), *tls
    )
    with running(primary):
        root = {"FLIGHT_REPLICA_PASSWORD": "root's pass phrase"}
        for sql in ("CREATE TABLE t (id BIGINT PRIMARY KEY)", "INSERT INTO t SELECT * FROM range(1000)"):
            process = Process(
                *("flight_replica", "sql", primary.uri, sql, "--ca", str(authority.ca), "--user", "root"),
                env=root,
            )
            with running(process):
                assert process.wait() == 0, process.errors
        replica = Server(
            *("serve", f"--base=t=flight:{primary.uri}", f"--feed=t={primary.uri}"),
            *("--primary-ca", str(authority.ca), "--primary-user", "copy"),
            env={"FLIGHT_REPLICA_PRIMARY_PASSWORD": "copy's pass phrase"},
        )
        with running(replica):
            until(is_answered(replica.uri, "SELECT count(*) FROM t", [(1000,)]), "the copy is there")
            assert not any("pass phrase" in line for line in replica.errors)
        assert "log in with user and password" in refused(
            f"--base=t=flight:{primary.uri}", "--primary-ca", str(authority.ca)
        )


# --- what doesn't -------------------------------------------------------------------------------------


def test_another_lineage_is_refused(primary: Primary) -> None:
    line = refused(*by_hand(primary, lineage=""))
    assert "table 't': the base is of lineage" in line
    assert f"say --lineage t={primary.lineage}" in line
    line = refused(*by_hand(primary, lineage=str(NEVER)))
    assert (
        f"table 't': --lineage says {NEVER}, the feed at {primary.uri} is of lineage {primary.lineage}"
        in line
    )
    line = refused(f"--base=t=flight:{primary.uri}", f"--lineage=t={uuid4()}")
    assert f"is of lineage {primary.lineage}, expected " in line


def test_a_base_beyond_the_feed_or_before_its_beginning_is_refused(primary: Primary, tmp_path: Path) -> None:
    line = refused(*by_hand(primary, **{"base-seq": "4000"}))
    assert f"table 't': the base is at seq 4000, the feed at {primary.uri} has come to " in line
    young = Server("serve", f"--base=t=flight:{primary.uri}", f"--feed=t={primary.uri}")
    with running(young):
        same(young, primary)
        low_water = status(young.uri, "t")["low_water"]
        line = refused(*by_hand(primary, feed=young.uri))
    assert (
        f"table 't': the base is at seq 3, the feed at {young.uri} begins at {low_water}: a newer base"
        in line
    )


def test_another_key_or_other_columns_are_refused(primary: Primary, tmp_path: Path) -> None:
    assert "the key of the base is ['v'], of the feed ['id']" in refused(*by_hand(primary, key="v"))
    rows(primary.uri, "CREATE TABLE other (id INTEGER PRIMARY KEY, w VARCHAR)")
    line = refused(*by_hand(primary, feed=f"{primary.uri}/other", lineage=""))
    assert "the base has the columns ['id', 'v', 'small'], the feed ['id', 'w']" in line
    rows(primary.uri, "CREATE TABLE third (id INTEGER PRIMARY KEY, v BIGINT, small TINYINT)")
    line = refused(*by_hand(primary, feed=f"{primary.uri}/third", lineage=""))
    assert "column 'v' is string in the base, int64 in the feed" in line


def test_a_server_that_is_not_there_or_has_no_such_table_is_refused_at_once(primary: Primary) -> None:
    assert "has no table 'nope'" in refused(*by_hand(primary, feed=f"{primary.uri}/nope"))
    assert "nope" in refused(f"--base=t=flight:{primary.uri}/nope")
    nobody = "grpc://127.0.0.1:1"
    assert nobody in refused(*by_hand(primary, feed=nobody))
    assert nobody in refused(f"--base=t=flight:{nobody}")
