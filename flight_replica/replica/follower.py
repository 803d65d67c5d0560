"""`Follower`: keeps one replica fresh. Applies the feed as it comes, adopts newer bases, recovers from gaps.

Three threads, so that neither loading a base nor writing stops the feed: `follow-TABLE`, `rebase-TABLE`, and
`fold-TABLE`, which writes what waits in memory now and then. What can't be
mended within the replica's lineage (the table was dropped, or created anew) ends the follower; its owner
looks at `ended`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import closing

from flight_replica.errors import (
    BaseError,
    Closed,
    LineageChanged,
    LogGap,
    NotCaughtUp,
    Paused,
    ReplicaError,
    SchemaMismatch,
    TableNotFound,
)
from flight_replica.log.backoff import Backoff, BackoffConfig
from flight_replica.replica.replica import Replica

_log = logging.getLogger(__name__)

FOLD_SECONDS = 1.0  # a fold costs about the same for 1000 ops as for 10 000, so they wait, unless many do


class Follower:
    """Owns its threads from `start` to `close`. `on_trouble` hears each change: a reason, or "" when well."""

    def __init__(self, replica: Replica, on_trouble: Callable[[str], None]) -> None:
        self._replica = replica
        self._on_trouble = on_trouble
        self._lock = threading.Lock()
        self._troubles = {
            "feed": "",
            "base": "",
            "state": "",
            "fold": "",
        }  # what is wrong with each, empty: nothing
        self._base_backoff = Backoff(BackoffConfig(first_seconds=1.0, max_seconds=60.0))
        self._stop = threading.Event()
        self._rebase_wanted = threading.Event()
        self._fold_wanted = threading.Event()
        self._resumed = threading.Event()  # by an operator, or it is to end
        self.ended = threading.Event()  # following is over, for the reason in `end_reason`
        self.end_reason: ReplicaError | None = None
        self._threads = [
            threading.Thread(target=self._follow, name=f"follow-{replica.table}", daemon=True),
            threading.Thread(target=self._rebase, name=f"rebase-{replica.table}", daemon=True),
            threading.Thread(target=self._fold, name=f"fold-{replica.table}", daemon=True),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End the threads; the replica's sources are ended with them."""
        self._stop.set()
        self._resumed.set()
        self._rebase_wanted.set()
        self._fold_wanted.set()
        self._replica.end_sources()
        for thread in self._threads:
            thread.join()

    def pause(self) -> None:
        """From its return on nothing becomes visible, and soon nothing is read, until `resume`."""
        self._resumed.clear()
        self._replica.hold()

    def resume(self) -> None:
        """Follow again. Idempotent."""
        self._replica.let_go()
        self._resumed.set()

    def raise_if_ended(self) -> None:
        """Raise why following is over, if it is."""
        if self.ended.is_set():
            assert self.end_reason is not None, "a follower ended without a reason"
            raise self.end_reason

    def _say(self, trouble: str, about: str = "feed") -> None:
        with self._lock:  # while it is told too, so that what is told last is how things are
            if trouble == self._troubles[about]:
                return
            self._troubles[about] = trouble
            self._on_trouble("; ".join(filter(None, self._troubles.values())))

    # --- following --------------------------------------------------------------------------------

    def _follow(self) -> None:
        backoff = Backoff(BackoffConfig(max_seconds=5.0))
        try:
            while not self._stop.is_set():
                self._follow_or_mend(backoff)
        except ReplicaError as error:
            self._end(error)
        else:
            self._end(Closed("the follower is closed"))

    def _end(self, reason: ReplicaError) -> None:
        self.end_reason = self.end_reason or reason
        self.ended.set()

    def _follow_or_mend(self, backoff: Backoff) -> None:
        """Follow until something happens, and deal with it. Raises what ends the follower."""
        try:
            self._follow_once(backoff)
        except Paused:
            self._resumed.wait()
        except (Closed, LineageChanged, TableNotFound):
            raise
        except LogGap as gap:
            if gap.lineage not in (None, self._replica.lineage) or not self._replica.is_loaded:
                raise
            self._recover(gap, backoff)
        except Exception as error:  # the feed is read again from what is visible
            _log.warning("following failed table=%s error=%s", self._replica.table, error)
            self._say(f"following failed: {error}")
            if self._replica.is_loaded and self._replica.swaps.wants_examining:
                self._rebase_wanted.set()
            self._stop.wait(backoff.next_seconds())

    def _follow_once(self, backoff: Backoff) -> None:
        replica = self._replica
        with closing(replica.log.follow(replica.begin_following())) as stream:
            replica.change_schema(replica.log.schema)
            for batch in stream:
                seen = _newest(replica)
                replica.receive(batch)
                if _newest(replica) > seen:  # parts come in also where whole commits can't be written
                    backoff.reset()
                self._say("")
                if replica.is_loaded:
                    if replica.state.is_settling_due:
                        self._fold_wanted.set()
                    if replica.state.tail_bytes > replica.settings.tail_bytes_max:
                        self._rebase_wanted.set()
        if not self._stop.is_set():
            replica.change_schema(replica.log.schema)

    def _recover(self, gap: LogGap, backoff: Backoff) -> None:
        """Adopt a newer base; without one keep serving what there is, and say so."""
        seen, trouble = self._replica.visible_seq, f"{gap}; no newer base yet"
        self._replica.measures.log_gaps.add()
        try:
            base_seq = self._replica.swaps.recover_from_log_gap(gap)
            _log.info("recovered from a log gap table=%s base_seq=%d", self._replica.table, base_seq)
            if self._replica.visible_seq > seen:
                self._replica.measures.gap_recoveries.add()
                return
        except Paused:
            self._resumed.wait()
            return
        except (Closed, LineageChanged, TableNotFound):
            raise
        except NotCaughtUp as error:
            trouble = str(error)
        except Exception as error:  # whatever the base's reader raises: the old state serves on
            trouble = f"{gap}; recovery failed: {error}"
        self._say(trouble)
        self._stop.wait(backoff.next_seconds())

    # --- what waits in memory ---------------------------------------------------------------------

    def _fold(self) -> None:
        was_worn = False
        while not self._stop.is_set():
            self._fold_wanted.wait(FOLD_SECONDS)
            if self._stop.is_set():
                return
            try:
                self._replica.settle()
            except Closed:
                return
            except Exception as error:  # the next turn tries again, and what comes is refused when much waits
                _log.warning("folding failed table=%s error=%s", self._replica.table, error)
                self._say(str(error), "fold")
                if self._replica.swaps.wants_examining:
                    self._rebase_wanted.set()
                self._stop.wait(FOLD_SECONDS)
            else:
                self._say("", "fold")
                is_worn = self._replica.swaps.is_worn
                if is_worn and not was_worn:  # its log grows fast; where that fails there is no hurry
                    self._rebase_wanted.set()
                was_worn = is_worn
            self._fold_wanted.clear()  # what came meanwhile isn't much

    # --- newer bases ------------------------------------------------------------------------------

    def _rebase(self) -> None:
        wait_seconds = self._replica.settings.base_poll_seconds
        while not self._stop.is_set():
            self._rebase_wanted.wait(wait_seconds)
            self._rebase_wanted.clear()
            wait_seconds = self._replica.settings.base_poll_seconds
            if self._replica.is_loaded and not self._stop.is_set():
                if not self._replica.is_held:
                    if self._rebase_if_newer() and self._keep_within_budget():
                        self._base_backoff.reset()
                    else:
                        wait_seconds += self._base_backoff.next_seconds()
                if self._examine():
                    self._improve()

    def look_now(self) -> None:
        """See at once whether there is a newer base, or a better state to be made."""
        self._rebase_wanted.set()

    def _keep_within_budget(self) -> bool:
        """Whether the disk budget is kept."""
        replica = self._replica
        try:
            replica.swaps.keep_within_budget()
        except (Closed, Paused):
            return True
        except Exception as error:  # the native state serves on; the next look tries again
            _log.warning("native state beyond its budget kept table=%s error=%s", replica.table, error)
            return False
        return True

    def _examine(self) -> bool:
        """Whether the state is sound, or another one has taken its place."""
        try:
            self._replica.swaps.examine()
        except Closed:
            return False
        except Exception as error:  # the next look tries again
            _log.warning("damaged state not replaced table=%s error=%s", self._replica.table, error)
            self._say(f"the native state is damaged, and no base takes its place: {error}", "state")
            return False
        self._say("", "state")
        return True

    def _improve(self) -> None:
        replica = self._replica
        try:
            if not replica.swaps.wants_merge_on_apply:
                return
            began = time.monotonic()
            replica.swaps.merge_on_apply()
        except Closed as error:
            _log.info("native state given up table=%s reason=%s", replica.table, error)
            return
        except Exception as error:  # the present state serves on; the next look tries again
            replica.measures.native_build_failures.add()
            _log.warning("native state failed table=%s error=%s", replica.table, error)
            return
        seconds, seq = time.monotonic() - began, replica.visible_seq
        replica.measures.native_build_seconds.observe(seconds)
        _log.info("native state built table=%s visible_seq=%d seconds=%.3f", replica.table, seq, seconds)

    def _rebase_if_newer(self) -> bool:
        """Whether there is nothing wrong with the newest base."""
        replica = self._replica
        try:
            replica.swaps.outgrow_base()
            version = replica.base.poll()
            is_newer = version is not None and version != replica.base_version
            if is_newer:
                replica.swaps.stand_on_newer_base()
        except (Closed, Paused):
            return True
        except LineageChanged as error:
            self._end(error)
            return True
        except Exception as error:  # the old state serves on; the next poll tries again
            replica.measures.rebase_failures.add()
            _log.warning("rebase failed table=%s error=%s", replica.table, error)
            if isinstance(error, BaseError | SchemaMismatch):
                self._say(f"the newest base can't be taken: {error}", "base")
            return False
        self._say("", "base")
        if is_newer:
            _log.info(
                "rebased table=%s base_seq=%d visible_seq=%d millis=%d",
                replica.table,
                replica.base_seq,
                replica.visible_seq,
                replica.stats.last_rebase_warmup_millis,
            )
        return True


def _newest(replica: Replica) -> int:
    """The newest seq that is visible, or received where nothing is yet."""
    return replica.visible_seq if replica.is_loaded else replica.history.newest_seq
