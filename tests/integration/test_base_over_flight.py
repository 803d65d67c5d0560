"""Replicas whose base comes over Flight, between processes: nothing but a port is shared."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.far_primary import ELSEWHERE
from tests.processes import Server, is_answered, position, rows, running, status, until

DIGEST = "SELECT lineage, seq, row_count, digest FROM merutable_digest('t')"
ROWS = 20_000


def write(server: Server, sql: str) -> int:
    """The seq of the commit."""
    ((_, seq),) = rows(server.uri, sql)
    assert isinstance(seq, int)
    return seq


def fill(server: Server) -> int:
    rows(server.uri, "CREATE TABLE t (id BIGINT PRIMARY KEY, v VARCHAR, x DOUBLE)")
    write(server, f"INSERT INTO t SELECT i, 'v' || i, i / 7 FROM range({ROWS}) r(i)")
    return write(server, "DELETE FROM t WHERE id < 100")


def same(server: Server, primary: Server) -> None:
    """Wait until both have the very same table at the same seq."""
    expected = rows(primary.uri, DIGEST)
    until(is_answered(server.uri, DIGEST, expected), f"{server.uri} has {expected}")


def is_published(server: Server, seq: int) -> None:
    sql = f"SELECT base_seq >= {seq} FROM merutable_tables() WHERE table_name = 't'"
    until(is_answered(server.uri, sql, [(True,)]), f"a base at seq {seq} is published")


@pytest.fixture
def primary(tmp_path: Path) -> Iterator[Server]:
    server = Server("--data", str(tmp_path / "primary"), module="tests.far_primary")
    with running(server):
        is_published(server, fill(server))
        yield server


# --- a published place that is out of reach -----------------------------------------------------------


def test_a_base_out_of_reach_comes_over_flight_and_the_replica_says_so(primary: Server) -> None:
    replica = Server("serve", "--primary", primary.uri)
    with running(replica):
        same(replica, primary)
        found = status(replica.uri, "t")
        assert found["state"] == "serving"
        reason = str(found["reason"])
        assert reason.startswith(f"base taken over Flight from {primary.uri}/t: {ELSEWHERE}")
        assert reason.endswith("isn't on this host")
        assert any("base over Flight table=t" in line and ELSEWHERE in line for line in replica.errors)

        for _ in range(3):  # newer bases are published, none of them is fetched
            is_published(primary, write(primary, "UPDATE t SET x = x + 1 WHERE id < 1000"))
            same(replica, primary)
        assert sum("base fetched" in line for line in replica.errors) == 1


def test_each_hop_of_a_cascade_takes_the_base_from_the_one_before(primary: Server) -> None:
    with ExitStack() as held:
        above = primary
        for _ in range(3):
            server = Server("serve", "--primary", above.uri)
            held.enter_context(running(server))
            same(server, primary)
            assert str(status(server.uri, "t")["reason"]).startswith(
                f"base taken over Flight from {above.uri}/t"
            )
            above = server
        write(primary, "DELETE FROM t WHERE id < 200")
        rows(primary.uri, "ALTER TABLE t ADD COLUMN w INTEGER DEFAULT 7")
        write(primary, "INSERT INTO t VALUES (-1, 'new', 0, 8)")
        same(above, primary)


def test_a_gap_in_the_log_is_mended_by_a_newer_base_over_flight(tmp_path: Path) -> None:
    primary = Server("--data", str(tmp_path / "primary"), "--retain-ops", "50", module="tests.far_primary")
    replica = None
    with ExitStack() as held:
        held.enter_context(running(primary))
        rows(primary.uri, "CREATE TABLE t (id BIGINT PRIMARY KEY, v BIGINT, padding VARCHAR)")
        is_published(primary, write(primary, "INSERT INTO t SELECT i, 0, '' FROM range(100) r(i)"))
        replica = Server("serve", "--primary", primary.uri)
        held.enter_context(running(replica))
        same(replica, primary)
        before = position(replica.uri, "t")
        with replica.stopped():
            for version in range(1, 21):  # far more than the buffers of the connection hold
                seq = write(
                    primary, f"UPDATE t SET v = {version}, padding = repeat(chr(64 + {version}), 10000)"
                )
            trimmed = f"SELECT low_water >= {seq - 100} FROM merutable_tables()"
            until(is_answered(primary.uri, trimmed, [(True,)]), "old ops are trimmed")
        same(replica, primary)
        until(lambda: any("from a log gap" in line for line in replica.errors), "there was a gap")
        assert sum("base fetched" in line for line in replica.errors) == 2
        after = position(replica.uri, "t")
        assert after["lineage"] == before["lineage"]
        assert after["base_seq"] > before["base_seq"]
        write(primary, "INSERT INTO t VALUES (100, 0, '')")
        same(replica, primary)
        until(lambda: status(replica.uri, "t")["state"] == "serving", "the table is well again")


def test_a_table_that_is_created_anew_is_taken_afresh(primary: Server) -> None:
    replica = Server("serve", "--primary", primary.uri)
    with running(replica):
        same(replica, primary)
        rows(primary.uri, "DROP TABLE t")
        fill(primary)
        write(primary, "DELETE FROM t WHERE id > 1000")
        same(replica, primary)


def test_a_replica_ends_while_its_base_is_on_its_way(primary: Server) -> None:
    replica = Server("serve", "--primary", primary.uri)
    with running(replica):
        until(lambda: any("base over Flight" in line for line in replica.errors), "the base is on its way")
        assert replica.terminate() == 0
        assert replica.left == []


def test_damage_of_a_base_that_can_be_read_is_no_reason_to_take_it_over_flight(tmp_path: Path) -> None:
    primary = Server("primary", "--data", str(tmp_path / "primary"), "--base-seconds", "0.2")
    with running(primary):
        is_published(primary, fill(primary))
        ((uri,),) = rows(primary.uri, "SELECT base_uri FROM merutable_tables()")
        Path(str(uri).removeprefix("file://")).write_text("{")
        replica = Server("serve", "--primary", primary.uri)
        with running(replica):
            until(lambda: "half written" in str(status(replica.uri, "t").get("reason")), "the damage is told")
            assert status(replica.uri, "t")["state"] != "serving"
            assert not any("over Flight" in line for line in replica.errors)


def _can_unshare() -> bool:
    command = ["unshare", "--user", "--map-root-user", "--mount", "true"]
    return (
        shutil.which("unshare") is not None and subprocess.run(command, capture_output=True).returncode == 0
    )


@pytest.mark.skipif(not _can_unshare(), reason="needs mount namespaces for unprivileged users (Linux)")
def test_a_replica_that_does_not_see_the_primary_s_disk_needs_nothing_but_its_port(tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    enter = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    mount = [f'mount -t tmpfs none "{hidden}" && exec "$0" "$@"']
    primary = Server(
        "primary", "--data", str(hidden / "primary"), "--base-seconds", "0.2", inside=[*enter, *mount]
    )
    with running(primary):
        is_published(primary, fill(primary))
        assert os.listdir(hidden) == []
        replica = Server("serve", "--primary", primary.uri)
        with running(replica):
            same(replica, primary)
            assert "isn't on this host" in str(status(replica.uri, "t")["reason"])


@pytest.mark.skipif(
    os.name != "posix" or os.geteuid() != 0, reason="needs another user to run the replica as"
)
def test_a_base_that_this_user_may_not_read_comes_over_flight(tmp_path: Path) -> None:
    primary = Server("primary", "--data", str(tmp_path / "primary"), "--base-seconds", "0.2")
    with running(primary):
        is_published(primary, fill(primary))
        nobody = ["setpriv", "--reuid=65534", "--clear-groups"]
        replica = Server("serve", "--primary", primary.uri, inside=nobody)
        with running(replica):
            same(replica, primary)
            assert "can't be read: Permission denied" in str(status(replica.uri, "t")["reason"])


# --- by hand ------------------------------------------------------------------------------------------


def test_a_copy_of_a_table_stands_still_at_its_seq(primary: Server) -> None:
    expected = rows(primary.uri, DIGEST)
    replica = Server("serve", "--base", f"copy=flight:{primary.uri}/t")
    with running(replica):
        copied = DIGEST.replace("'t'", "'copy'")
        until(is_answered(replica.uri, copied, expected), "the copy is there")
        write(primary, "DELETE FROM t")
        assert rows(replica.uri, copied) == expected
        published = "SELECT base_kind, base_seq = high_water, low_water > 0 FROM merutable_tables()"
        assert rows(replica.uri, published) == [("flight", True, True)]
        below = Server("serve", "--primary", replica.uri)
        with running(below):
            until(is_answered(below.uri, copied, expected), "copies are copied")


def test_a_base_and_a_feed_of_two_servers_are_joined(primary: Server) -> None:
    middle = Server("serve", "--primary", primary.uri)
    with running(middle):
        same(middle, primary)
        replica = Server("serve", "--base", f"t=flight:{middle.uri}", "--feed", f"t={primary.uri}/t")
        with running(replica):
            same(replica, primary)
            write(primary, "DELETE FROM t WHERE id < 300")
            same(replica, primary)
            assert position(replica.uri, "t")["lag_us"] >= 0
