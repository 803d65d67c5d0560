"""`EngineLog`: the write batches of a running engine's log directory, as they become whole.

It starts with the oldest file there is, reads each to its end, and goes on to the next when a later file
holds data: only then the engine can have left the one before (an empty later file proves nothing, since
any opening of the table leaves one). It never writes there and takes no lock. What it gives is in the log,
not necessarily acknowledged: a power cut may take back the end, and then the engine gives those seqs
out again, so a seq may come a second time with other bytes.

What a file's end means:

- **cut off** (less bytes than its header says, or a first fragment without its last): in the file that is
  being written, not yet there. In an older file it is what a crash leaves: that op was never
  acknowledged, or is lost for the engine too, which then gives its seq out again. Anything more that is
  missing there shows as a jump.
- **bad** (wrong checksum, unknown type, fragments out of order, a record that is no batch): in the newest
  file with no right record behind it, nothing is given and `pending` says so: the engine drops it too
  when it restarts. With a right record behind it, or a later file: `DamagedLog`, since
  acknowledged ops may be gone. Bytes are read twice before they count as bad.
- **a jump** in seqs: inside a file, between records that touch, a failed append explains it, and nothing
  can be missing. From one file to the next, or across a rest of a block of zeros, ops are missing (or
  their append failed just there, which looks the same): `DamagedLog` (the end of a file is gone, or a
  whole one), `MissedLog` where no file is there for a number between.

Files that were removed before they could be opened: `MissedLog`, told by the numbers as soon as the next
file is there (`before_seq` is None until that file holds data); at the start only by the seqs, since the
engine removes files in the middle too. Their ops were flushed first, so they are in the table's files. A
directory that holds another log than the one that was read (the table was made anew) is a `DamagedLog` too.

Bytes of a file that were read and are others by the time a later file appears, or this one goes:
`ChangedLog`. An engine that starts again reads its logs anew, so what it goes on with may be less than was
read here. What is right only reading from the oldest file on tells, which `pass_over` makes it do; it is
never accepted unread.

Each of these stays until `pass_over` is called. With `accept_damage` a `DamagedLog` is passed over at once,
as the engine itself recovers: the rest of that file is skipped and the next one read; `accepted` has what
was. A `MissedLog` never is, because the caller can find those ops.
Source: merutable format, section 13; samples s11.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path

from flight_replica.beside.log_directory import LogDirectory, OpenLog
from flight_replica.beside.log_file import BLOCK_BYTES, HEADER_BYTES, EndKind, WriteBatch, find_record
from flight_replica.beside.log_watch import LogWatch
from flight_replica.errors import ChangedLog, Closed, DamagedLog, MissedLog

__all__ = ["EngineLog"]

READ_BYTES = 32 * BLOCK_BYTES  # of one read, 1 MiB
CALL_BYTES_MAX = 8 * READ_BYTES  # of one `read_new`; a larger batch is still given whole

_log = logging.getLogger(__name__)


class EngineLog:
    """One reader of one log directory. `read_new` and `wait` for one thread, the others for any.

    `close()` lets go of the files and ends the watch; a call after it raises `Closed`.
    """

    def __init__(self, directory: Path, *, accept_damage: bool = False) -> None:
        self._path = directory
        self._accept_damage = accept_damage
        self._files = LogDirectory(directory)
        self._watch = LogWatch(directory, self._files.look, self._mark)
        self._is_closed = False
        self._reading = (
            threading.Lock()
        )  # a descriptor isn't closed, and its number used again, during a read
        self._decoded: deque[WriteBatch] = deque()  # read, but not given yet
        self._last_seq: int | None = None  # of the last batch given; None: the next may have any
        self._touches = False  # the next batch stands right behind the last one in the same file
        self._left: list[str] = []  # the files between the last batch and the file being read, how each ended
        self._absent: list[range] = []  # numbers without a file among them
        self._searched: tuple[str, int] | None = None  # file and size of the last search behind a bad end
        self._problem: tuple[DamagedLog, Callable[[], None]] | None = None  # and how to go on behind it
        self.oldest_first_seq: int | None = None  # of the first batch that was ever given
        self.newest_seq = 0  # of the last batch given
        self.pending: str | None = None  # what stands unread at the end of the log: cut off, or bad
        self.accepted: list[DamagedLog] = []  # what was passed over

    @property
    def has_files(self) -> bool:
        """Whether the last look found a log."""
        return self._files.has_files

    def read_new(self) -> list[WriteBatch]:
        """What has become whole since the last call, in log order, about 8 MiB at most; [] for nothing.

        Raises `DamagedLog` and `MissedLog` as the module says, after what stands before the damage was
        given, again and again until `pass_over`. `FeedError` when a file can't be read, `Closed`.
        """
        with self._reading:
            return self._read_new()

    def _read_new(self) -> list[WriteBatch]:
        if self._is_closed:
            raise Closed(f"log {self._path} was closed")
        if self._problem is not None:
            if self._problem[0].before_seq is not None or not isinstance(self._problem[0], MissedLog):
                raise self._problem[0]
            self._problem = None  # by now the next file may tell what is missing
        self._watch.clear()
        self._files.look()
        if (changed := self._files.changed()) is not None:
            reason = f"of the {changed.decoder.position} bytes that were read some are others now"
            self._problem = (
                ChangedLog(changed.name, None, reason, after_seq=self._last_seq),
                self._start_over,
            )
            raise self._problem[0]
        given: list[WriteBatch] = []
        if self._read_on(given) >= CALL_BYTES_MAX:
            self._watch.wake()  # there may be more
        if given:
            self.oldest_first_seq = self.oldest_first_seq or given[0].first_seq
            self.newest_seq = given[-1].last_seq
        elif self._problem is not None:
            raise self._problem[0]
        return given

    def pass_over(self, *, covered_through: int | None = None) -> None:
        """Go on behind the problem that `read_new` raised, as the engine would.

        `covered_through` is the seq up to which the caller has the missing ops from elsewhere: the log
        has to go on with the next one. Without it any seq will do.
        """
        if self._problem is None:
            return
        problem, go_on = self._problem
        if covered_through is None:
            _log.warning("log damage passed over path=%s reason=%s", self._path, problem)
        else:
            _log.info(
                "log read on behind files that were removed path=%s after_seq=%s covered_through=%d",
                self._path,
                problem.after_seq,
                covered_through,
            )
        self.accepted.append(problem)
        self._problem = None
        self._last_seq = covered_through
        self._touches = False
        go_on()

    def wait(self, timeout_seconds: float) -> bool:
        """Wait until there may be something to read, or `wake`; False when the time is up."""
        return self._watch.wait(timeout_seconds)

    def wake(self) -> None:
        self._watch.wake()

    def close(self) -> None:
        self._is_closed = True
        self._watch.close()
        with self._reading:
            self._files.close()

    def _mark(self) -> object:
        """Differs when files appeared, went or grew."""
        try:
            changed = os.stat(self._path).st_mtime_ns
        except OSError:
            changed = None
        return changed, [log.size() for log in self._files.held()]

    def _read_on(self, given: list[WriteBatch]) -> int:
        """Append what is whole to `given`, up to a problem; the bytes that were read."""
        byte_count = 0
        while byte_count < CALL_BYTES_MAX or not given:
            self._give(given)
            if self._problem is not None:
                break
            step = self._step()
            if step is None:
                break
            byte_count += step
        return byte_count

    def _give(self, given: list[WriteBatch]) -> None:
        """Move what was decoded to `given`, up to a jump that nothing explains."""
        while self._decoded:
            batch = self._decoded[0]
            if not self._touches and self._last_seq is not None and batch.first_seq > self._last_seq + 1:
                self._report(self._jump(batch), lambda: None)
                if self._problem is not None:
                    return
            given.append(self._decoded.popleft())
            is_restart = bool(self._left) and not self._touches
            # Seqs that the engine lost with the end of its log come again after a restart; inside a file a
            # smaller seq is a record that is there twice.
            self._last_seq = batch.last_seq if is_restart else max(self._last_seq or 0, batch.last_seq)
            self._touches = True
            self._left, self._absent = [], []

    def _step(self) -> int | None:
        """Read on in the oldest file; the bytes that were gained, None when there is nothing now."""
        if self._files.replaced is not None:
            self._report(DamagedLog(str(self._path), None, self._files.replaced), self._start_over)
            return None if self._problem else 0
        held = self._files.held()
        if not held:
            return None
        log, *later = held
        has_later_data = any(other.size() for other in later)  # asked before this file is read to its end
        if log.decoder.zeros_at is not None:
            self._touches = False
        if not log.is_given_up:
            position = log.decoder.position
            data = log.read(position, READ_BYTES)
            self._decoded.extend(log.decode(data))
            if log.decoder.position > position:
                self.pending = None
                return log.decoder.position - position
            problem = self._problem_at_end(log, data, has_later=bool(later), is_left=has_later_data)
            if problem is not None:
                self._report(problem, lambda: self._give_up(log))
                return None if self._problem else 0
            if len(data) < READ_BYTES and log.size() > position + len(data):
                return 0  # it grew meanwhile
        if has_later_data:
            self._leave(log)
            return 0
        # Its seqs can't tell yet whether anything was in the files that came and went before it.
        if (missed := next((other for other in later if other.is_missed), None)) is not None:
            self._report(self._missed(missed), lambda: self._found(missed))
        return None

    def _problem_at_end(
        self, log: OpenLog, data: bytes, *, has_later: bool, is_left: bool
    ) -> DamagedLog | None:
        """What is wrong with the end of `log`, which is `data`; sets `pending`."""
        end, position = log.decoder.end, log.decoder.position
        if not data and (size := log.size()) < position:
            return DamagedLog(log.name, size, f"{size} bytes are there, {position} were read before")
        if end.kind is EndKind.WHOLE:
            self.pending = None
            return None
        is_new = self.pending != (pending := f"log {log.name}, offset {end.offset}: {end.reason}")
        self.pending = pending
        if log.read(position, len(data)) != data:
            return None  # it was being written: the next look sees it whole
        if end.kind is EndKind.BAD and has_later:
            return self._damage(log, f"{end.reason}, in a log that isn't the newest")
        # A cut-off end is usual while it is written; whether it stays is seen at the next look.
        if (end.kind is EndKind.BAD or is_left or not is_new) and (found := self._record_behind(log)):
            if len(data) < READ_BYTES and found >= position + len(data):
                self._searched = None  # the file grew: by now there is more of the end than was decoded
                return None
            return self._damage(log, f"{end.reason}, and a right record behind it, at {found}")
        if end.kind is EndKind.BAD and is_new:
            _log.warning("log ends with a bad record path=%s reason=%s", self._path, pending)
        return None

    def _record_behind(self, log: OpenLog) -> int | None:
        """Where a record newer than the last one stands behind the bad end of `log`; asked once a size."""
        if self._searched == (log.name, size := log.size()):
            return None
        self._searched = (log.name, size)
        position = log.decoder.position + (not log.decoder.is_inside_record)
        near_bytes = 2 * BLOCK_BYTES
        while data := log.read(position, READ_BYTES + BLOCK_BYTES - position % BLOCK_BYTES):
            found = find_record(data, position, self._last_seq or 0, near_bytes)
            if found is not None:
                return found
            position, near_bytes = position + len(data), 0
        return None

    def _damage(self, log: OpenLog, reason: str) -> DamagedLog:
        return DamagedLog(log.name, log.decoder.end.offset, reason, after_seq=self._last_seq)

    def _jump(self, batch: WriteBatch) -> DamagedLog:
        """Ops are missing in front of `batch`."""
        assert self._last_seq is not None, "only behind a batch"
        first, last = self._last_seq + 1, batch.first_seq - 1
        gone = f"seq {batch.first_seq} follows seq {self._last_seq}: ops {first} to {last} are gone"
        what = {"after_seq": self._last_seq, "before_seq": batch.first_seq}
        name = f"{batch.file_number:06}.wal"
        if not self._left:
            return DamagedLog(name, batch.offset, f"behind a block that ends with zeros, {gone}", **what)
        if any(self._absent):
            return MissedLog(name, batch.offset, f"{gone} with {_names(self._absent)}", **what)
        return DamagedLog(name, batch.offset, f"{gone} ({'; '.join(self._left)})", **what)

    def _missed(self, log: OpenLog) -> MissedLog:
        reason = f"{_names([log.absent])} came and went unread after seq {self._last_seq}"
        return MissedLog(log.name, None, reason, after_seq=self._last_seq)

    def _report(self, problem: DamagedLog, go_on: Callable[[], None]) -> None:
        self._problem = (problem, go_on)
        if self._accept_damage and not isinstance(problem, MissedLog):
            self.pass_over()

    def _give_up(self, log: OpenLog) -> None:
        """As the engine recovers: behind zeros it goes on with the next block, else with the next file."""
        decoder = log.decoder
        head = log.read(decoder.position, HEADER_BYTES)
        next_block = decoder.position + BLOCK_BYTES - decoder.position % BLOCK_BYTES
        if head == bytes(HEADER_BYTES) and not decoder.is_inside_record and log.size() > next_block:
            log.skip_block()
        else:
            log.is_given_up = True
        self._touches, self.pending = False, None

    def _found(self, log: OpenLog) -> None:
        log.is_missed = False

    def _leave(self, log: OpenLog) -> None:
        end = log.decoder.end
        state = f"{log.name} ends at {end.offset}" if log.decoder.position else f"{log.name} is empty"
        if end.kind is not EndKind.WHOLE:
            state = f"{log.name} ends at {end.offset} with {end.reason}"
        self._left.append(state)
        self._files.drop_first()
        self._touches, self.pending = False, None
        self._absent += [other.absent for other in self._files.held()[:1]]

    def _start_over(self) -> None:
        self._files.start_over()
        self._decoded.clear()
        self._left, self._absent, self.pending = [], [], None


def _names(numbers: list[range]) -> str:
    runs = [run for run in numbers if run]
    return ", ".join(
        f"{run[0]:06}.wal" if len(run) == 1 else f"{run[0]:06}.wal to {run[-1]:06}.wal" for run in runs
    )
