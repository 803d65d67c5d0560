"""The engine's own change-feed cursor (sample s12), call by call, against the feed beside the same history.

The cursor loses what was compacted and masked; ours has every op that it saw, so the cursor's rows are among
them, and equal in everything but the label of a put: our feed calls each one an INSERT.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from flight_replica.beside.engine_table import EngineTable
from flight_replica.errors import LogGap
from flight_replica.keys import KeyCodec
from flight_replica.log.in_process import InProcessLogSource
from flight_replica.log.source import Op, OpRecord
from tests import samples
from tests.bases import ID_V, Change
from tests.engine_directory import engine_table, feed_of
from tests.scripted_engine import ScriptedEngine

WHOLE = {"c", "g"}  # cursors behind which nothing was compacted or masked: they give every op
WITHOUT_UPDATES = {"d"}  # one that calls every put an INSERT, as our feed does
# A flush costs the engine the pre-image of a delete whose put was in the same batch; ours had read it.
FLUSHED = {"f": {29: [True, "8000000000000032", 50, 1]}}


class Player:
    """Plays the history to an engine in miniature and keeps where each cursor is."""

    def __init__(self, engine: ScriptedEngine, table: EngineTable) -> None:
        self.engine = engine
        self.table = table
        self.since_by_cursor: dict[str, int] = {}
        self._ops = samples.ops(samples.scenario("s12_")).to_pylist()
        self._flushed = 0

    def play(self, step: dict[str, Any]) -> None:
        match step["event"]:
            case "ops":
                for seq in range(step["from_seq"], step["to_seq"] + 1):
                    self.engine.write(self._change(seq))
            case "batch":
                self.engine.write(*map(self._change, range(step["from_seq"], step["to_seq"] + 1)))
            case "flush" if self.engine.seq > self._flushed:
                feed_of(self.table, self.engine.seq)  # so that every op is read from the log
                self.engine.flush()
                self._flushed = self.engine.seq
            case "compact":
                self.engine.compact()

    def _change(self, seq: int) -> Change:
        op = self._ops[seq - 1]
        (ids,) = KeyCodec(ID_V).decode(pa.array([op["pk_bytes"]], pa.binary()))
        key = ids[0].as_py()
        return (Op.DELETE if op["op"] == "DELETE" else Op.INSERT, {"id": key, "v": op["v"]})

    def next_batch(self, cursor: str, row_count: int) -> list[OpRecord]:
        """What comes next, at most so many ops."""
        since = self.since_by_cursor[cursor]
        source = InProcessLogSource(feed_of(self.table, self.engine.seq))
        return [record for batch in source.stream(since) for record in batch.records()][:row_count]


@pytest.fixture
def player(tmp_path: Path) -> Iterator[Player]:
    with (
        closing(ScriptedEngine(tmp_path / "engine")) as engine,
        engine_table(engine, tmp_path / "data", ID_V) as table,
    ):
        yield Player(engine, table)


@pytest.mark.statement(82, 83, 90, 92, 94, 98, 99)
@samples.needs_samples
def test_what_the_engine_s_cursor_gives_is_in_the_feed_beside_it(player: Player) -> None:
    steps = json.loads((samples.scenario("s12_") / "steps.json").read_text())
    calls = 0
    for step in steps:
        if step["event"] != "cursor":
            player.play(step)
        elif step["call"] == "new":
            player.since_by_cursor[step["id"]] = step["since"]
        elif "error" in step:
            with pytest.raises(LogGap, match=f"requested since {step['since_seq']}"):
                player.next_batch(step["id"], step["max_rows"])
            calls += 1
        else:
            check(step, player)
            player.since_by_cursor[step["id"]] = step["since_seq"]
            calls += 1
    assert calls == 15


def check(step: dict[str, Any], player: Player) -> None:
    """The engine's batch of this call against what our feed has there."""
    cursor = step["id"]
    theirs = {seq: [op == "DELETE", key, *row] for seq, op, key, row in step["rows"]}
    if cursor in FLUSHED:
        theirs |= FLUSHED[cursor]
    is_whole = cursor in WHOLE
    # A cursor's batch ends where its buffer does; ours would go on.
    records = player.next_batch(cursor, (len(theirs) or step["max_rows"]) if is_whole else 1 << 20)
    ours = {r.seq: [r.op is Op.DELETE, r.pk_bytes.hex(), *(r.row or {}).values()] for r in records}
    if is_whole:
        assert list(ours.items()) == list(theirs.items())
    else:
        assert list(ours) == list(range(player.since_by_cursor[cursor] + 1, player.engine.seq + 1))
        assert {seq: ours[seq] for seq in theirs} == theirs
    if cursor in WITHOUT_UPDATES:
        label_by_seq = {record.seq: record.op for record in records}
        assert all(label_by_seq[seq] == op for seq, op, *_ in step["rows"])
