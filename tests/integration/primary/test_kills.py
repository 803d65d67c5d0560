"""kill -9 of a primary under writing: nothing acknowledged is lost, nothing doubled, no seq used twice.

The child process writes and says on stdout what was acknowledged; the parent kills it at a random moment and
then looks at what the directory holds.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flight_replica.log.source import Op
from flight_replica.primary.engine import Engine
from tests.model import TableModel

WRITER = """
import json, sys, threading
from pathlib import Path
from flight_replica.primary.engine import Engine
from flight_replica.primary.settings import PrimarySettings

directory, round_ = Path(sys.argv[1]), int(sys.argv[2])
engine = Engine.open(directory, PrimarySettings(recent_ops_bytes=1 << 16))
engine.write("CREATE TABLE IF NOT EXISTS t (id VARCHAR PRIMARY KEY, version BIGINT, padding VARCHAR)")
say = threading.Lock()

def acknowledged(**fact):
    with say:
        print(json.dumps(fact), flush=True)

def work(thread):
    for number in range(1_000_000):
        key = f"{round_}-{thread}-{number}"
        values = f"('{key}', 0, repeat('x', 2000)), ('{key}+', 0, '')"
        acknowledged(key=key, version=0, seq=engine.write(f"INSERT INTO t VALUES {values}").seq)
        if number % 3 == 1:
            sql = f"UPDATE t SET version = version + 1 WHERE id = '{key}'"
            acknowledged(key=key, version=1, seq=engine.write(sql).seq)
        if number % 3 == 2:
            acknowledged(key=key, version=None, seq=engine.write(f"DELETE FROM t WHERE id = '{key}'").seq)

acknowledged(started=True)
for thread in range(3):
    threading.Thread(target=work, args=(thread,)).start()
"""


class Acknowledged:
    """What children were told: the newest version per key (None: deleted), and which key had a seq."""

    def __init__(self) -> None:
        self.version_by_key: dict[str, int | None] = {}
        self.key_by_seq: dict[int, str] = {}

    def note(self, fact: dict[str, object]) -> None:
        key, seq, version = str(fact["key"]), int(str(fact["seq"])), fact["version"]
        assert seq not in self.key_by_seq, f"seq {seq} was acknowledged twice"
        # An insert's last op is that of the second row.
        self.key_by_seq[seq] = f"{key}+" if version == 0 else key
        self.version_by_key[key] = None if version is None else int(str(version))


def write_and_kill(directory: Path, round_: int, writes: int, acknowledged: Acknowledged) -> None:
    """Let a child acknowledge `writes` writes, then kill it."""
    command = [sys.executable, "-c", WRITER, str(directory), str(round_)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for count, line in enumerate(child.stdout):
            if count > 0:  # the first line says that it has started
                acknowledged.note(json.loads(line))
            if count == writes:
                break
        child.send_signal(signal.SIGKILL)
        for line in child.stdout.read().splitlines(keepends=True):  # what it said before the kill came
            if line.endswith("\n"):
                acknowledged.note(json.loads(line))
        assert child.wait() == -signal.SIGKILL


def check(directory: Path, acknowledged: Acknowledged) -> None:
    """Reopen, and compare rows, feed and acknowledgements."""
    engine = Engine.open(directory)
    feed, model = engine.feed("t"), TableModel()
    while model.visible_seq < feed.high_water:
        model.apply_batch(feed.read(model.visible_seq, None, 1 << 22))
    record, session = engine.table("t"), engine.session()
    stored = session.sql(f"SELECT id, version FROM {record.rows}").to_arrow_table().to_pylist()
    session.close()
    engine.close()
    by_feed = {str(row["id"]): row["version"] for row in model.rows.values()}
    assert {row["id"]: row["version"] for row in stored} == by_feed
    assert len(stored) == len(by_feed), "a row is there twice"
    assert [op.seq for op in model.ops] == list(range(1, feed.high_water + 1))
    inserts = [op.pk_bytes for op in model.ops if op.op is Op.INSERT]
    assert len(set(inserts)) == len(inserts), "an insert is there twice"
    _check_acknowledged(model, by_feed, acknowledged)


def _check_acknowledged(model: TableModel, rows: dict[str, object], acknowledged: Acknowledged) -> None:
    keys = {op.seq: op.pk_bytes for op in model.ops}
    for seq, key in acknowledged.key_by_seq.items():
        assert keys[seq].startswith(key.encode() + b"\0"), f"seq {seq} is of another key than {key}"
    for key, version in acknowledged.version_by_key.items():
        assert f"{key}+" in rows, f"acknowledged {key} is lost"
        # A later write of the key may have become durable without its acknowledgement.
        found = rows.get(key)
        assert found in ((version, version + 1, None) if version is not None else (None,)), key


def kill_repeatedly(directory: Path, count: int, seed: int) -> None:
    moments, acknowledged = random.Random(seed), Acknowledged()
    for round_ in range(count):
        write_and_kill(directory, round_, moments.randrange(1, 120), acknowledged)
        if round_ % 10 == 9 or round_ == count - 1:
            check(directory, acknowledged)


def test_kills_lose_nothing_acknowledged(tmp_path: Path) -> None:
    kill_repeatedly(tmp_path, count=4, seed=1)


@pytest.mark.long
def test_two_hundred_kills_lose_nothing_acknowledged(tmp_path: Path) -> None:
    kill_repeatedly(tmp_path, count=200, seed=2)
