"""Random lives of a real engine, its feed server and a replica: each is killed at random.

Select with `-m engine`. `FLIGHT_REPLICA_ENGINE_SEEDS` says which seeds are run, such as `0-2,7`; a seed gives
the same settings, writes and order of kills again, though not the same instants.
"""

from __future__ import annotations

import os
import random
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import pytest

from tests.engine.driver import Engine, Truth, schema, until_true
from tests.engine.watching import TableWatcher
from tests.integration.test_real_engine_live import assert_same, feed_arguments
from tests.processes import Server, is_answered, until

pytestmark = pytest.mark.engine

TURNS = 12
CATCH_UP_SECONDS = 90.0


def _seeds(text: str) -> list[int]:
    """`0-2,7` is 0, 1, 2, 7."""
    ranges = [part.partition("-") for part in text.split(",")]
    return [seed for first, _, last in ranges for seed in range(int(first), int(last or first) + 1)]


SEEDS = _seeds(os.environ.get("FLIGHT_REPLICA_ENGINE_SEEDS", "0-2"))


_Process = TypeVar("_Process", Engine, Server)


class Lives:
    """The three processes over one table. Each can be killed and started again on what it left."""

    def __init__(self, directory: Path, draw: random.Random) -> None:
        self.directory = directory / "t"
        self.options = {
            "kind": draw.choice(["id", "composite", "types"]),
            "memtable_mb": 1,
            "l0_compaction_trigger": draw.choice([1, 2, 4]),
            "gc_grace_seconds": draw.choice([0, 1, 300]),
            "level_target_bytes": draw.choice([[], [4096], [4096, 16384], [1 << 28] * 4]),
            "dual_format_max_level": draw.choice([None, 0, 2]),
        }
        self.writes = {
            "rate": draw.choice([300, 1000]),
            "keys": draw.choice([40, 400, 3000]),
            "deletes": draw.choice([0.05, 0.3, 0.6]),
            "batch_max": draw.choice([5, 30]),
            "flush_every": draw.choice([400, 1500]),
        }
        self.truth = Truth(schema(self.options["kind"]))
        self._feed_arguments = feed_arguments(self.directory, "--data", str(directory / "feed"))
        self._replica_data = str(directory / "replica")
        self._seen_seq = 0
        self.lineages: set[object] = set()
        self._watching = ExitStack()
        self._processes: list[Engine | Server] = []

    def start(self) -> None:
        self.engine = self._new(Engine(self.directory, truth=self.truth, **self.options))
        self.engine.write(300, **{**self.writes, "rate": 0})
        self.engine.do("flush")
        self.feed = self._new(Server(*self._feed_arguments))
        self._serve_arguments = ["serve", "--primary", self.feed.uri, "--data", self._replica_data]
        self.replica = self._new(Server(*self._serve_arguments))

    def _new(self, process: _Process) -> _Process:
        self._processes.append(process)
        return process

    def watch(self) -> None:
        """Look at the replica from here on; what it shows may not be older than what was seen before."""
        served = is_answered(self.replica.uri, "SELECT count(*) >= 0 FROM events", [(True,)])
        until(served, "the replica serves the table", CATCH_UP_SECONDS)
        self.watcher = TableWatcher(self.replica.uri, "events", self.truth, self._seen_seq)
        self._watching = ExitStack()
        self._watching.enter_context(self.watcher)

    def unwatch(self) -> None:
        self._watching.close()
        self.watcher.check()
        self._seen_seq = self.watcher.seq
        self.lineages |= self.watcher.lineages

    def write(self, seed: int) -> None:
        self.engine.start_writing(**self.writes, seed=seed)

    def until_grown(self, count: int) -> None:
        """Wait for more commits."""
        try:
            until_true(self.truth.has_grown(count), f"{count} more commits")
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.engine.errors} {self.engine.do('stats')}") from error

    def restart_engine(self) -> None:
        self.engine.kill()
        self.engine = self._new(Engine(self.directory, truth=self.truth, **self.options))

    def restart_feed(self) -> None:
        self.feed.kill()
        self.feed = self._new(Server(*self._feed_arguments, listen=self.feed.address))

    def restart_replica(self) -> None:
        self.unwatch()
        self.replica.kill()
        self.replica = self._new(Server(*self._serve_arguments, listen=self.replica.address))
        self.watch()

    def close(self) -> None:
        self._watching.close()
        for process in reversed(self._processes):
            process.kill()
            print("\n".join(process.errors[-20:]))  # shown where the test fails


@pytest.mark.parametrize("seed", SEEDS)
def test_random_kills_of_engine_feed_server_and_replica_never_show_a_wrong_table(
    seed: int, tmp_path: Path
) -> None:
    draw = random.Random(seed)
    lives = Lives(tmp_path, draw)
    print(f"seed={seed} options={lives.options} writes={lives.writes}")
    with ExitStack() as parts:
        parts.callback(lives.close)
        lives.start()
        lives.watch()
        lives.write(seed)
        for turn in range(TURNS):
            lives.until_grown(draw.randrange(20, 200))
            match draw.choice(["engine", "engine", "feed", "replica", "compact", "stand still"]):
                case "engine":
                    lives.restart_engine()
                    lives.write(seed * 100 + turn)
                case "feed":
                    lives.restart_feed()
                case "replica":
                    lives.restart_replica()
                case "compact":
                    lives.engine.do("compact")
                case _:
                    with lives.replica.stopped():
                        lives.until_grown(100)
            lives.watcher.check()
        last_seq = lives.engine.stop()
        until_true(lives.watcher.has_seen(last_seq), f"seq {last_seq}", CATCH_UP_SECONDS)
        lives.unwatch()
        for server in (lives.feed, lives.replica):
            assert_same(server.uri, lives.engine, tmp_path / "scan")
        assert len(lives.lineages) == 1
