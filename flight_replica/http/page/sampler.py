"""`Sampler`: looks at the tables each second, for the page's history and for what it shows now."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flight_replica.control.control import Control
from flight_replica.control.status import TableStatus
from flight_replica.http.page.happenings import Happenings
from flight_replica.http.page.health import Health, health_of
from flight_replica.http.page.samples import SAMPLE_SECONDS, Samples

_log = logging.getLogger(__name__)

REBASES_KEPT = 50  # of each table


@dataclass(frozen=True, slots=True)
class Rebase:
    """A newer base was adopted. `ms` is None where the table only stands on it now, which takes no time."""

    time_ms: int  # since 1970, on this host's clock
    base_seq: int
    ms: float | None


@dataclass(frozen=True, slots=True)
class Moment:
    """The tables as they were at one time, in ms since 1970 on this host's clock."""

    time_ms: int
    tables: Sequence[TableStatus]
    rebases: Mapping[str, Sequence[Rebase]]  # table -> its rebases since the server began, ascending


class Sampler:
    """Owns the thread `page-sampler` and the samples, from creation to `close`."""

    def __init__(self, control: Control, happenings: Happenings) -> None:
        self.samples = Samples()
        self._control = control
        self._happenings = happenings
        self._behind: set[str] = set()  # tables of which it was told that they are behind
        self._rebases: dict[str, deque[Rebase]] = {}
        self._is_failing = False
        self._latest = Moment(0, (), {})
        self._look()
        self._tell_beginning()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="page-sampler", daemon=True)
        self._thread.start()

    @property
    def latest(self) -> Moment:
        return self._latest

    def close(self) -> None:
        """End the thread. Idempotent."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            self._look()

    def _look(self) -> None:
        time_ms = time.time_ns() // 1_000_000
        try:
            tables = self._control.every_table()
        except Exception as error:  # the next look tries again
            if not self._is_failing:
                _log.warning("tables can't be looked at error=%s", error)
            self._is_failing = True
            return
        self._is_failing = False
        self.samples.add(time_ms, tables)
        self._note_rebases(time_ms, tables)
        rebases = {name: tuple(found) for name, found in self._rebases.items()}
        self._tell(time_ms, tables)
        self._latest = Moment(time_ms, tables, rebases)

    def _tell_beginning(self) -> None:
        """Tell how the tables are when the page begins to look: what was logged before it hasn't heard."""
        for table in self._latest.tables:
            level = {Health.OK: "good", Health.BAD: "bad"}.get(health_of(table), "info")
            text = (
                f"{table.state}: {table.reason}"
                if table.reason
                else f"{table.state} at seq {table.visible_seq}"
            )
            self._happenings.add(self._latest.time_ms, level, table.name, text)

    def _note_rebases(self, time_ms: int, tables: Sequence[TableStatus]) -> None:
        before = {table.name: table for table in self._latest.tables}
        for name in self._rebases.keys() - {table.name for table in tables}:
            del self._rebases[name]
        for table in tables:
            rebase = _rebase(before.get(table.name), table, time_ms)
            if rebase is not None:
                self._rebases.setdefault(table.name, deque(maxlen=REBASES_KEPT)).append(rebase)

    def _tell(self, time_ms: int, tables: Sequence[TableStatus]) -> None:
        """Tell of the tables that fell behind, and of those that caught up again."""
        health = {table.name: health_of(table) for table in tables}
        for table in tables:
            is_behind = health[table.name] is Health.BEHIND and table.lag_us >= 0
            if is_behind and table.name not in self._behind:
                self._behind.add(table.name)
                text = f"behind: lag {table.lag_us / 1e6:.1f} s"
                self._happenings.add(time_ms, "warning", table.name, text)
        for name in [name for name in self._behind if health.get(name) is not Health.BEHIND]:
            self._behind.discard(name)
            if health.get(name) is Health.OK:
                self._happenings.add(time_ms, "good", name, "caught up again")


def _rebase(before: TableStatus | None, now: TableStatus, time_ms: int) -> Rebase | None:
    """The rebase that has happened between two looks at a replica's table; None for none."""
    if before is None or before.details is None or now.details is None or before.lineage != now.lineage:
        return None
    if not before.is_readable or not now.is_readable:
        return None
    if now.details.rebase_count > before.details.rebase_count:
        return Rebase(
            now.details.last_rebase_at_us // 1000, now.base_seq, now.details.last_rebase_seconds * 1000
        )
    return Rebase(time_ms, now.base_seq, None) if now.base_seq > before.base_seq else None
