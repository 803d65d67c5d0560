"""Primary, replica, writer and reader as real processes, killed in turn; what readers see stays right."""

from __future__ import annotations

from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import pytest

from tests.counting import CREATE
from tests.processes import Process, Server, reports, until


class Line:
    """The whole line, and everything that its clients have reported."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.primary = self._primary("127.0.0.1:0")
        with (
            flightsql.connect(self.primary.uri, autocommit=True) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(CREATE)
            cursor.fetchall()
        self.replica = self._replica("127.0.0.1:0")
        self.writer = Process("tests.counting", "write", self.primary.uri)
        self.reader = Process("tests.counting", "read", self.replica.uri)
        self.acknowledged: list[dict[str, int]] = []
        self.answers: list[dict[str, int]] = []

    def _primary(self, listen: str) -> Server:
        data = str(self._folder / "primary")
        return Server("primary", "--data", data, "--base-seconds", "0.5", listen=listen)

    def _replica(self, listen: str) -> Server:
        return Server("serve", "--primary", self.primary.uri, listen=listen)

    def kill(self, victim: str) -> None:
        """kill -9 one of the four, and start it again in its place."""
        getattr(self, victim).kill()
        if victim == "primary":
            self.primary = self._primary(self.primary.address)
        elif victim == "replica":
            self.replica = self._replica(self.replica.address)
        elif victim == "writer":
            self.acknowledged += reports(self.writer)
            self.writer = Process("tests.counting", "write", self.primary.uri)
        else:
            self.answers += reports(self.reader)
            self.reader = Process("tests.counting", "read", self.replica.uri)

    def collect(self) -> None:
        self.acknowledged += reports(self.writer)
        self.answers += reports(self.reader)

    def newest_answer(self) -> int:
        self.collect()
        return max((answer["n"] for answer in self.answers), default=0)

    def close(self) -> None:
        for process in (self.reader, self.writer, self.replica, self.primary):
            if process.code is None:
                process.kill()


@pytest.mark.parametrize("rounds", [1, pytest.param(25, marks=pytest.mark.long, id="25-long")])
def test_killing_each_process_in_turn_never_shows_a_wrong_or_older_answer(
    tmp_path: Path, rounds: int
) -> None:
    line = Line(tmp_path)
    try:
        for _ in range(rounds):
            for victim in ("reader", "writer", "replica", "primary"):
                _wait_for_progress(line)
                line.kill(victim)
        _wait_for_progress(line)
        line.writer.kill()
        line.collect()
        newest = max(report["n"] for report in line.acknowledged)
        until(lambda: line.newest_answer() >= newest, f"the replica shows commit {newest}")
    finally:
        line.close()
    _check(line)


def _wait_for_progress(line: Line) -> None:
    wanted = line.newest_answer() + 30
    until(lambda: line.newest_answer() >= wanted, f"a reader sees commit {wanted}", 60.0)


def _check(line: Line) -> None:
    assert all(answer["is_right"] for answer in line.answers)
    seqs = [answer["seq"] for answer in line.answers]
    assert seqs == sorted(seqs), "a reader went back"
    assert len({(answer["seq"], answer["n"]) for answer in line.answers}) == len(set(seqs)), (
        "one seq, two answers"
    )
    acknowledged = {report["n"]: report["seq"] for report in line.acknowledged}
    assert len(acknowledged) == len(line.acknowledged), "a commit was made twice"
    for answer in line.answers:
        if answer["n"] in acknowledged:
            assert answer["seq"] == acknowledged[answer["n"]], "an answer at another seq than its commit's"
