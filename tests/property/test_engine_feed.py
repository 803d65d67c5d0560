"""A feed beside a modelled engine, through random histories of writes, flushes, compactions and restarts.

At every moment, from every `since`: the newest op of each key that changed after it, in order and once, or a
`LogGap` that tells a low_water above it. low_water never goes back, and the lineage stays.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from flight_replica.beside.history import EngineTableSettings, History
from flight_replica.errors import LogGap, Unavailable
from tests.engine_directory import changes
from tests.engine_model import ModelEngine
from tests.log_writing import int_key

KEYS = 6

_writes = st.lists(
    st.tuples(st.integers(0, KEYS - 1), st.one_of(st.none(), st.integers(0, 9))), min_size=1, max_size=4
)
_engine_steps = st.one_of(
    st.tuples(st.just("write"), _writes),
    st.tuples(st.just("write"), _writes),
    st.tuples(st.sampled_from(["flush", "flush, logs stay", "remove files", "restart the engine"])),
    st.tuples(st.just("compact"), st.integers(0, 2)),
)
_steps = st.one_of(
    _engine_steps,
    _engine_steps,
    st.tuples(st.just("no feed meanwhile"), st.lists(_engine_steps, max_size=8)),
    st.tuples(st.sampled_from(["look", "step", "look and step", "restart the feed"])),
)


class Beside:
    """The feed server of one table, driven by hand: each look at log and files when the test says so."""

    def __init__(self, engine: ModelEngine, level_targets: int | None, retain_bytes: int) -> None:
        self._engine = engine
        self._settings = EngineTableSettings(
            engine.catalog_directory,
            engine.log_directory,
            engine.schema,
            level_targets=level_targets,
            retain_bytes=retain_bytes,
        )
        self._data = engine.root / "data"
        self._data.mkdir(exist_ok=True)
        self.low_water = 0
        self.history = self._open()

    def _open(self) -> History:
        history = History("t", self._settings, self._data, lambda: 1)
        history.look()
        while not history.is_served.is_set():
            history.step()
        return history

    def restart(self, *, is_clean: bool, meanwhile: Callable[[], object] = lambda: None) -> None:
        lineage = self.history.feed.lineage
        if is_clean:
            self.history.end()
        self.history.close()
        meanwhile()
        self.history = self._open()
        assert self.history.feed.lineage == lineage

    def catch_up(self) -> None:
        self.history.look()
        while self.history.step():
            pass

    def check(self, *, may_be_gone: bool) -> None:
        """From every seq, what the feed gives now is right. Files may be gone that it hasn't looked at."""
        feed = self.history.feed
        high_water = feed.high_water
        assert high_water <= self._engine.read_seq
        assert feed.low_water >= self.low_water, "low_water went back"
        self.low_water = feed.low_water
        newest = {version.key: version for version in self._engine.truth if version.seq <= high_water}
        for since in range(high_water + 1):
            try:
                found = changes(feed, since)
            except LogGap as gap:
                assert since < feed.low_water == gap.earliest_available
                continue
            except Unavailable as error:
                assert may_be_gone and "is gone" in str(error)
                continue
            assert since >= feed.low_water
            seqs = found.column("seq").to_pylist()
            assert seqs == sorted(set(seqs))
            expected = {int_key(k): v for k, v in newest.items() if v.seq > since}
            last = {op["pk_bytes"]: op for op in found.to_pylist()}
            assert {key: op["seq"] for key, op in last.items()} == {k: v.seq for k, v in expected.items()}
            for key, op in last.items():
                assert (op["op"] == "DELETE") == (expected[key].value is None)
                assert op["op"] == "DELETE" or op["v"] == expected[key].value


def run(engine: ModelEngine, beside: Beside, step: tuple[str, object]) -> None:
    name, *rest = step
    acts: dict[str, Callable[[], object]] = {
        "flush": engine.flush,
        "flush, logs stay": lambda: engine.flush(removes_logs=False),
        "remove files": engine.remove_files,
        "restart the engine": engine.restart,
        "look": lambda: beside.history.look(),
        "step": lambda: beside.history.step(),
        "look and step": beside.catch_up,
        "restart the feed": lambda: beside.restart(is_clean=len(engine.truth) % 2 == 0),
    }
    if name == "no feed meanwhile":
        beside.restart(
            is_clean=len(engine.truth) % 2 == 0,
            meanwhile=lambda: [run(engine, beside, inner) for inner in rest[0]],  # type: ignore[attr-defined]
        )
    elif name == "write":
        engine.write(rest[0])  # type: ignore[arg-type]
    elif name == "compact":
        engine.compact(rest[0])  # type: ignore[arg-type]
    else:
        acts[name]()


@pytest.mark.parametrize("stated", [False, True], ids=["level targets unknown", "level targets stated"])
@pytest.mark.parametrize("retain_bytes", [4_000, 1 << 30], ids=["keeps little", "keeps all"])
@pytest.mark.parametrize("level_targets", [0, 1, 4])
@settings(
    max_examples=20,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(steps=st.lists(_steps, min_size=10, max_size=40))
def test_a_feed_beside_an_engine_never_lies(
    level_targets: int, retain_bytes: int, stated: bool, steps: list[tuple[str, object]]
) -> None:
    root = Path(tempfile.mkdtemp())
    engine = ModelEngine(root, level_targets)
    beside = Beside(engine, level_targets if stated else None, retain_bytes)
    try:
        for step in steps:
            run(engine, beside, step)
        beside.check(may_be_gone=True)
        beside.catch_up()
        beside.check(may_be_gone=False)
        assert beside.history.feed.high_water == engine.read_seq
    finally:
        beside.history.close()
        engine.close()
        shutil.rmtree(root)
