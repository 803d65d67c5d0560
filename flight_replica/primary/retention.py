"""Retention of ops: how far a table's history may be forgotten, and forgetting it in the right order.

low_water is raised durably, then in the feed, and only then ops go: a stream below it ends with a gap.
It only ever moves to the end of a commit. Where nothing was written for a while, the store takes in its log.
"""

from __future__ import annotations

import logging
import threading

from flight_replica.errors import Closed
from flight_replica.primary import store
from flight_replica.primary.engine import Engine
from flight_replica.primary.store import TableRecord
from flight_replica.primary.transaction import WriteTransaction

logger = logging.getLogger(__name__)


class Retention:
    """The thread that trims an engine's ops. Owned by the service; `close` ends it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._closing = threading.Event()
        self.failures_total = 0
        self._thread = threading.Thread(target=self._run, name="primary-retention", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        is_failing = False  # logged once, until it works again
        writes_total = 0
        while not self._closing.wait(self._engine.settings.retention_interval_seconds):
            try:
                trim_all(self._engine)
                if self._engine.writes_total == writes_total:
                    self._engine.checkpoint()
                writes_total = self._engine.writes_total
                is_failing = False
            except Closed:
                return
            except Exception as error:
                self.failures_total += 1
                if not is_failing:
                    logger.warning("retention failed, it goes on error=%s", error)
                is_failing = True


def trim_all(engine: Engine) -> None:
    """Trim every table to its retention once."""
    for record in engine.tables:
        low_water = target_low_water(engine, record)
        if low_water > record.low_water:
            _trim(engine, record, low_water)


def target_low_water(engine: Engine, record: TableRecord) -> int:
    """The newest end of a commit that count or age let go."""
    oldest_kept = record.high_water - engine.settings.retention_ops
    oldest_time_us = engine.clock_us() - int(engine.settings.retention_seconds * 1e6)
    query = f"SELECT max(through) FROM {record.commit_ends} WHERE through <= ? OR commit_time_us < ?"
    session = engine.session()
    try:
        ((target,),) = session.execute(query, [max(oldest_kept, 0), oldest_time_us]).fetchall()
    finally:
        session.close()
    return int(target or 0)


def _trim(engine: Engine, record: TableRecord, low_water: int) -> None:
    def current(tx: WriteTransaction) -> TableRecord | None:
        found = tx.find(record.name)
        return found if found is not None and found.id == record.id else None

    def raise_low_water(tx: WriteTransaction) -> None:
        if (found := current(tx)) is not None:
            tx.raise_low_water(found, low_water)

    def forget(tx: WriteTransaction) -> None:
        if (found := current(tx)) is not None:
            store.clear_ops(tx.connection, found, low_water)

    engine.submit(raise_low_water)
    engine.raise_low_water(record.id, low_water)
    engine.submit(forget)
    logger.info("ops trimmed table=%s low_water=%d", record.name, low_water)
