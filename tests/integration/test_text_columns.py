"""`serve --text`: byte columns of a catalog as strings over Flight SQL."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from flight_replica.client import query
from flight_replica.schema import Column, TableSchema
from tests.catalogs import CatalogWriter
from tests.processes import Process, Server, is_answered, rows, running, status, until

SCHEMA = TableSchema((Column("k", pa.binary(), False), Column("v", pa.binary())), ("k",))


def catalog(directory: Path, values: list[bytes]) -> CatalogWriter:
    writer = CatalogWriter(directory, SCHEMA)
    keys = [b"k%d" % number for number in range(len(values))]
    table = pa.table({"k": pa.array(keys), "v": pa.array(values)}, SCHEMA.arrow_schema)
    writer.add_file(table, np.arange(len(values)) + 1)
    writer.commit()
    return writer


def test_text_columns_are_strings_for_clients_and_in_sql(tmp_path: Path) -> None:
    catalog(tmp_path / "c", [b"x", "é".encode()])
    server = Server(
        "serve", f"--base=t=merutable:{tmp_path}/c", "--text=t=*", "--data", str(tmp_path / "data")
    )
    with running(server):
        until(is_answered(server.uri, "SELECT v FROM t WHERE k = 'k1'", [("é",)]), "a string compares")
        assert query(server.uri, "SELECT * FROM t").schema.types == [pa.string(), pa.string()]


def test_without_the_setting_they_are_bytes(tmp_path: Path) -> None:
    catalog(tmp_path / "c", [b"x"])
    server = Server("serve", f"--base=t=merutable:{tmp_path}/c")
    with running(server):
        until(is_answered(server.uri, "SELECT k, v FROM t", [(b"k0", b"x")]), "bytes are served")


def test_an_invalid_value_is_one_clear_line_before_anything_is_served(tmp_path: Path) -> None:
    catalog(tmp_path / "c", [b"x", b"\xff"])
    strict = Process("flight_replica", "serve", f"--base=t=merutable:{tmp_path}/c", "--text=t=k,v")
    assert strict.wait() == 1
    assert strict.errors == ["flight-replica: table 't': text column 'v', key 6b310000: ff isn't UTF-8"]
    lenient = Server("serve", f"--base=t=merutable:{tmp_path}/c", "--text=t=k,v?")
    with running(lenient):
        expected = [("k0", b"x"), ("k1", b"\xff")]
        until(is_answered(lenient.uri, "SELECT k, v FROM t ORDER BY k", expected), "v stays bytes")


def test_text_columns_of_a_table_that_follows_a_feed(tmp_path: Path) -> None:
    """Base and ops alike; an op that is no text stops the table where it stands, and says which."""
    primary = Server("primary", "--data", str(tmp_path / "primary"), "--base-seconds", "0.2")
    with running(primary):
        rows(primary.uri, "CREATE TABLE t (id BIGINT PRIMARY KEY, v BLOB, w BLOB)")
        rows(primary.uri, "INSERT INTO t VALUES (1, 'base'::BLOB, 'base'::BLOB)")
        published = "SELECT base_seq FROM merutable_tables()"
        until(is_answered(primary.uri, published, [(1,)]), "the base is published")
        ((metadata,),) = rows(primary.uri, "SELECT base_uri FROM merutable_tables()")
        replica = Server("serve", f"--base=t=iceberg:{metadata}", f"--feed=t={primary.uri}", "--text=t=v,w?")
        with running(replica):
            until(is_answered(replica.uri, "SELECT v, w FROM t", [("base", "base")]), "the base is text")
            rows(primary.uri, "INSERT INTO t VALUES (2, 'op'::BLOB, 'op'::BLOB)")
            until(is_answered(replica.uri, "SELECT v, w FROM t WHERE id = 2", [("op", "op")]), "ops are too")

            rows(primary.uri, "INSERT INTO t VALUES (3, 'op'::BLOB, '\\xFF'::BLOB)")
            found = [("op", b"\xff")]
            until(
                is_answered(replica.uri, "SELECT v, w FROM t WHERE id = 3", found), "w is bytes from now on"
            )

            rows(primary.uri, "INSERT INTO t VALUES (4, '\\xFE'::BLOB, NULL)")
            until(lambda: status(replica.uri, "t")["state"] == "degraded", "the invalid value shows")
            key = "8000000000000004"
            assert f"text column 'v', key {key}: fe isn't UTF-8" in str(status(replica.uri, "t")["reason"])
            assert rows(replica.uri, "SELECT count(*) FROM t") == [(3,)]


def test_text_columns_of_a_table_that_a_primary_lists(tmp_path: Path) -> None:
    primary = Server("primary", "--data", str(tmp_path / "primary"), "--base-seconds", "0.2")
    with running(primary):
        rows(primary.uri, "CREATE TABLE t (k BLOB PRIMARY KEY, v BLOB)")
        rows(primary.uri, "INSERT INTO t VALUES ('a'::BLOB, 'base'::BLOB)")
        until(is_answered(primary.uri, "SELECT base_seq FROM merutable_tables()", [(1,)]), "a base")
        replica = Server("serve", "--primary", primary.uri, "--text=t=k,v?")
        with running(replica):
            until(is_answered(replica.uri, "SELECT k, v FROM t", [("a", "base")]), "the base is text")
            rows(primary.uri, "INSERT INTO t VALUES ('b'::BLOB, 'op'::BLOB)")
            until(is_answered(replica.uri, "SELECT v FROM t WHERE k = 'b'", [("op",)]), "ops are too")
            rows(primary.uri, "INSERT INTO t VALUES ('c'::BLOB, '\\xFF'::BLOB)")
            found = [("a", b"base"), ("b", b"op"), ("c", b"\xff")]
            until(is_answered(replica.uri, "SELECT k, v FROM t ORDER BY k", found), "v is bytes from now on")
            rows(primary.uri, "DELETE FROM t WHERE k = 'a'::BLOB")
            until(is_answered(replica.uri, "SELECT k, v FROM t ORDER BY k", found[1:]), "keys still meet")
