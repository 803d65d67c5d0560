"""A replica with a data folder, killed at any moment: it goes on where it was, and answers stay right."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import pytest

from flight_replica.client import position_of, query
from tests.counting import CREATE
from tests.processes import Process, Server, end, reports, until

READY_SECONDS = 60.0


class Line:
    """A primary, a writer that never stops, a reader that never stops, and a replica that is killed."""

    def __init__(self, folder: Path) -> None:
        self._data = str(folder / "replica")
        self.primary = Server("primary", "--data", str(folder / "primary"), "--base-seconds", "0.5")
        with (
            flightsql.connect(self.primary.uri, autocommit=True) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(CREATE)
            cursor.fetchall()
        self.replica = self.start("127.0.0.1:0")
        self.writer = Process("tests.counting", "write", self.primary.uri)
        self.reader = self.start_reader()
        self.answers: list[dict[str, int]] = []

    def start(self, listen: str) -> Server:
        return Server("serve", "--primary", self.primary.uri, "--data", self._data, listen=listen)

    def start_reader(self) -> Process:
        return Process("tests.counting", "read", self.replica.uri)

    def start_again(self) -> None:
        self.replica = self.start(self.replica.address)

    def newest_answer(self) -> dict[str, int]:
        self.answers += reports(self.reader)
        return self.answers[-1] if self.answers else {"n": 0, "seq": 0}

    def wait_for_progress(self, commits: int = 10) -> None:
        wanted = self.newest_answer()["n"] + commits
        until(lambda: self.newest_answer()["n"] >= wanted, f"commit {wanted} is read", READY_SECONDS)

    def close(self) -> None:
        end(self.primary, self.replica, self.writer, self.reader)


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    line = Line(tmp_path)
    try:
        yield line
    finally:
        line.close()


def said(server: Server, what: str) -> list[int]:
    """The seqs of the lines in which the server says this of the table."""
    found = (re.search(rf"{what} table=counting visible_seq=(\d+)", text) for text in list(server.errors))
    return [int(match[1]) for match in found if match]


def has_said(server: Server, what: str) -> None:
    until(lambda: bool(said(server, what)), f"{what!r} is logged", READY_SECONDS)


@pytest.mark.parametrize("kills", [2, pytest.param(100, marks=pytest.mark.long, id="100-long")])
def test_a_killed_replica_goes_on_where_it_was_and_reads_no_op_twice(
    kills: int, line: Line, capsys: pytest.CaptureFixture[str]
) -> None:
    random.seed(kills)
    has_said(line.replica, "native state built")
    for done in range(1, kills + 1):
        line.wait_for_progress(random.randint(1, 20))
        line.replica.kill()
        _start_again(line)
        if done % 10 == 0:
            _report(capsys, done, line)
    line.wait_for_progress()
    assert line.replica.terminate() == 0  # one that is stopped goes on too
    _start_again(line)
    _kill_while_ops_wait_in_memory(line)
    line.writer.kill()
    n = max(report["n"] for report in reports(line.writer))
    until(lambda: line.newest_answer()["n"] >= n, f"commit {n} is read", READY_SECONDS)
    assert all(answer["is_right"] for answer in line.answers)
    seqs = [answer["seq"] for answer in line.answers]
    assert seqs == sorted(seqs), "a reader went back"
    _report(capsys, kills, line)


def _report(capsys: pytest.CaptureFixture[str], kills: int, line: Line) -> None:
    """How far it is, for whoever waits for the long one."""
    wrong = sum(not answer["is_right"] for answer in line.answers)
    with capsys.disabled():
        print(
            f"\n{kills} kills, {len(line.answers)} answers, {wrong} wrong, seq {line.newest_answer()['seq']}"
        )


def _kill_while_ops_wait_in_memory(line: Line) -> None:
    """Nobody scans, so that the newest ones aren't in the table; who asks for a key has seen them."""
    line.reader.kill()
    line.newest_answer()
    answer = query(line.replica.uri, "SELECT n FROM counting WHERE id = -1")
    line.replica.kill()
    line.start_again()
    _assert_kept(line, int(str(position_of(answer)[0]["visible_seq"])))
    line.reader = line.start_reader()


def _start_again(line: Line) -> None:
    line.start_again()
    shown = line.newest_answer()["seq"]
    seq = _assert_kept(line, shown)
    line.wait_for_progress(1)
    (listed,) = query(line.replica.uri, "SELECT low_water FROM merutable_tables()").to_pylist()
    assert listed["low_water"] == seq, "ops were read that were there already"
    assert not said(line.replica, "native state built")


def _assert_kept(line: Line, shown: int) -> int:
    """Where the replica, just started, goes on."""
    until(lambda: bool(said(line.replica, "native state reopened")), "the file is reopened", READY_SECONDS)
    (seq,) = said(line.replica, "native state reopened")
    assert seq >= shown, "what had been shown wasn't kept"
    return seq
