"""A replica of a replica: rows, seqs and freshness proven across both, also when the middle one is killed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flight_replica.client import query
from flight_replica.errors import ReplicaError
from tests.processes import Server, end, is_answered, position, rows, until

LAG_US_MAX = 5_000_000  # heartbeats come twice a second; a busy machine takes its time


class Chain:
    """primary <- middle <- end."""

    def __init__(self, folder: Path) -> None:
        self._servers: list[Server] = []
        self.primary = self._start("primary", "--data", str(folder / "primary"), "--base-seconds", "0.3")
        self.middle = self._start("serve", "--primary", self.primary.uri)
        self.end = self._start("serve", "--primary", self.middle.uri)

    def _start(self, *arguments: str, listen: str = "127.0.0.1:0") -> Server:
        try:
            self._servers.append(Server(*arguments, listen=listen))
        except BaseException:
            self.close()
            raise
        return self._servers[-1]

    def restart_middle(self) -> None:
        self.middle = self._start("serve", "--primary", self.primary.uri, listen=self.middle.address)

    def write(self, sql: str) -> int:
        """The seq of the commit."""
        ((_, seq),) = rows(self.primary.uri, sql)
        assert isinstance(seq, int)
        return seq

    def reach(self, seq: int) -> None:
        """Wait until both replicas show `seq`."""
        for server in (self.middle, self.end):
            until(lambda server=server: _seq(server) >= seq, f"{server.uri} shows seq {seq}")

    def digests(self) -> list[tuple[object, ...]]:
        """Lineage, seq, row count and digest of `t` on each server."""
        sql = "SELECT lineage, seq, row_count, digest FROM merutable_digest('t')"
        return [rows(server.uri, sql)[0] for server in (self.primary, self.middle, self.end)]

    def close(self) -> None:
        end(*self._servers)


def _seq(server: Server) -> int:
    try:
        return position(server.uri, "t")["visible_seq"]
    except ReplicaError:
        return -1


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Chain]:
    found = Chain(tmp_path)
    try:
        found.write("CREATE TABLE t (id BIGINT PRIMARY KEY, v VARCHAR)")
        found.reach(found.write("INSERT INTO t SELECT i, 'v' || i FROM range(1000) r(i)"))
        yield found
    finally:
        found.close()


def test_rows_and_seqs_are_the_same_at_both_ends(chain: Chain) -> None:
    chain.write("UPDATE t SET v = 'new' WHERE id < 100")
    chain.reach(chain.write("DELETE FROM t WHERE id >= 900"))
    at_primary, in_the_middle, at_the_end = chain.digests()
    assert at_primary == in_the_middle == at_the_end
    assert at_primary[1:3] == (1200, 900)
    until(
        is_answered(chain.end.uri, "SELECT table_name, high_water FROM merutable_tables()", [("t", 1200)]),
        "the end tells the tables on",
    )


def test_freshness_is_proven_across_both(chain: Chain) -> None:
    seq = chain.write("INSERT INTO t VALUES (-1, 'x')")
    chain.reach(seq)
    for server in (chain.middle, chain.end):
        until(lambda server=server: 0 <= position(server.uri, "t")["lag_us"] < LAG_US_MAX, "a proven lag")
        at = position(server.uri, "t")
        assert (at["visible_seq"], at["high_water"]) == (seq, seq)
        assert at["commit_time_us"] == position(chain.primary.uri, "t")["commit_time_us"]
    with chain.primary.stopped():
        for server in (chain.middle, chain.end):
            lag = position(server.uri, "t")["lag_us"]
            until(
                lambda server=server, lag=lag: position(server.uri, "t")["lag_us"] > lag + 1_500_000,
                "lag grows while nothing is proven",
            )


def test_an_added_column_and_a_new_table_pass_through_both(chain: Chain) -> None:
    chain.write("ALTER TABLE t ADD COLUMN rank INTEGER DEFAULT 7")
    chain.write("INSERT INTO t VALUES (-1, 'x', 8)")
    chain.write("CREATE TABLE u (id BIGINT PRIMARY KEY)")
    chain.write("INSERT INTO u VALUES (5)")
    ranks = "SELECT rank, count(*) FROM t GROUP BY rank ORDER BY rank"
    until(is_answered(chain.end.uri, ranks, [(7, 1000), (8, 1)]), "the column is there")
    until(is_answered(chain.end.uri, "SELECT * FROM u", [(5,)]), "the table is there")


def test_a_table_created_anew_starts_afresh_at_the_end(chain: Chain) -> None:
    chain.write("DROP TABLE t")
    chain.write("CREATE TABLE t (id BIGINT PRIMARY KEY, v VARCHAR)")
    chain.write("INSERT INTO t VALUES (1, 'anew')")
    until(is_answered(chain.end.uri, "SELECT * FROM t", [(1, "anew")]), "the new table alone")
    lineages = {position(server.uri, "t")["lineage"] for server in (chain.primary, chain.middle, chain.end)}
    assert len(lineages) == 1


def test_the_end_goes_on_after_the_middle_was_killed(chain: Chain) -> None:
    lineage = position(chain.end.uri, "t")["lineage"]
    seen = _seq(chain.end)
    chain.middle.kill()
    assert query(chain.end.uri, "SELECT * FROM t").num_rows == 1000
    seq = chain.write("INSERT INTO t VALUES (-1, 'while it was away')")
    chain.restart_middle()

    chain.reach(seq)
    at = position(chain.end.uri, "t")
    assert (at["lineage"], at["visible_seq"]) == (lineage, seq)
    assert seq > seen
    at_primary, _, at_the_end = chain.digests()
    assert at_primary == at_the_end
