"""Transactions of clients: BeginTransaction, EndTransaction, and what their statements see and change.

Read-committed unless isolation=snapshot was asked for at the first statement. At a primary a transaction
collects writes, which become one commit at its end; at a replica it only reads. Where rows are seen of one
moment: pins.py. How writes are collected: the service.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa

from flight_replica.errors import (
    Conflict,
    InvalidStatement,
    LimitExceeded,
    ReplicaError,
    TransactionFailed,
    TransactionNotFound,
    Unavailable,
)
from flight_replica.flightsql.limits import ServerLimits
from flight_replica.flightsql.options import Isolation
from flight_replica.flightsql.pins import OpenViews, PinnedViews, Pins, open_all
from flight_replica.flightsql.secret_names import secret_name
from flight_replica.flightsql.service import Ending, PendingWrites, Service, WriteResult
from flight_replica.sql.view import View

if TYPE_CHECKING:
    from flight_replica.flightsql.call import Call

__all__ = ["Transaction", "Transactions"]


class Transaction:
    """One transaction of a user. Thread-safe; one write at a time. Owned by `Transactions`."""

    def __init__(self, owner: str, origin: str, pins: Pins, limits: ServerLimits, now: float) -> None:
        """`origin` is the session or connection that began it."""
        self.owner = owner
        self.origin = origin
        self._pins = pins
        self._limits = limits
        self._lock = threading.RLock()
        self._isolation: Isolation | None = None  # None until the first statement
        self._snapshot: PinnedViews | None = None
        self._writes: PendingWrites | None = None
        self._failure: ReplicaError | None = None  # why it can only be rolled back
        self.began_at = self.used_at = now  # monotonic seconds

    @property
    def holds_something(self) -> bool:
        """Whether its end loses anything: writes, or the moment that it sees."""
        return self._snapshot is not None or self._has_writes

    @property
    def _has_writes(self) -> bool:
        return self._writes is not None and not self._writes.is_empty

    # --- statements -------------------------------------------------------------------------------

    def pinned(self, open_views: OpenViews, isolation: Isolation) -> PinnedViews | None:
        """The one moment that the next statement reads, None for the newest one.

        Raises `InvalidStatement` for a snapshot that is asked for too late, `LimitExceeded`, `Unavailable`.
        """
        with self._lock:
            self._check()
            if self._isolation is None:
                if isolation is Isolation.SNAPSHOT:
                    self._snapshot = self._pins.for_transaction(open_views)
                self._isolation = isolation
            elif isolation is Isolation.SNAPSHOT and self._snapshot is None:
                raise InvalidStatement(
                    "isolation=snapshot has to be there at the first statement of a transaction; "
                    "this one began as read-committed"
                )
            return self._snapshot

    def cover(self, view: View) -> None:
        """Let a view show this transaction's own writes. Raises `Conflict`."""
        with self._lock:
            self._check()
            if self._writes is not None and self._has_writes:
                with self._ending_with_conflict():
                    self._writes.cover(view)

    def write(
        self,
        service: Service,
        sql: str,
        bound: pa.Table | None,
        isolation: Isolation,
        ending: Ending,
        *,
        is_ddl: bool,
    ) -> WriteResult:
        """Run a write in here; DDL commits by itself, at once, and only where no writes wait.

        Raises `Conflict`, after which the transaction can only be rolled back, and as `Service.write`.
        """
        with self._lock:
            snapshot = self.pinned(lambda: open_all(service, self._limits), isolation)
            if is_ddl:
                return self._change_tables(service, sql, bound, ending)
            if self._writes is None:
                self._writes = service.begin(snapshot.positions if snapshot is not None else None)
            with self._ending_with_conflict():
                return self._writes.write(sql, bound, ending)

    def _change_tables(
        self, service: Service, sql: str, bound: pa.Table | None, ending: Ending
    ) -> WriteResult:
        if self._has_writes:
            raise InvalidStatement(
                "CREATE, DROP and ALTER commit by themselves, and this transaction has writes that "
                "aren't committed; commit or roll back first"
            )
        return service.write(sql, bound, ending)

    @contextmanager
    def _ending_with_conflict(self) -> Iterator[None]:
        """After a `Conflict` in the block the transaction can only be rolled back."""
        try:
            yield
        except Conflict as conflict:
            self.fail(conflict)
            raise

    def _check(self) -> None:
        if isinstance(self._failure, Conflict):  # the same call can't succeed later, so no other one of these
            raise TransactionFailed(f"the transaction has failed, roll it back: {self._failure}")
        if self._failure is not None:
            raise type(self._failure)(f"the transaction has ended: {self._failure}")

    # --- its end ----------------------------------------------------------------------------------

    def commit(self) -> Mapping[str, int]:
        """Make its writes visible; table -> last seq. Raises `Conflict`, then it can only be rolled back."""
        with self._lock:
            self._check()
            seqs: Mapping[str, int] = {}
            if self._writes is not None and self._has_writes:
                with self._ending_with_conflict():
                    seqs = self._writes.commit()
            self.fail(TransactionNotFound("it was committed"))
            return seqs

    def fail(self, reason: ReplicaError) -> None:
        """Undo it and let go of what it holds; the first reason counts."""
        with self._lock:
            self._failure = self._failure or reason
            self._writes = None
            snapshot, self._snapshot = self._snapshot, None
        if snapshot is not None:
            self._pins.let_go(snapshot)

    def expire(self, now: float) -> None:
        """Undo it where it holds something for too long. One that is at work isn't looked at."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            if not self.holds_something:
                return
            idle_seconds = now - self.used_at
            if self._snapshot is not None:
                idle_seconds = min(idle_seconds, self._snapshot.idle_seconds)
            limits = self._limits
            if now - self.began_at >= limits.transaction_seconds:
                self.fail(Unavailable(f"older than transaction_seconds, {limits.transaction_seconds:g} s"))
            elif idle_seconds >= limits.transaction_idle_seconds:
                self.fail(
                    Unavailable(f"idle for transaction_idle_seconds, {limits.transaction_idle_seconds:g} s")
                )
        finally:
            self._lock.release()


class Transactions:
    """The open transactions of one server. Thread-safe."""

    def __init__(self, limits: ServerLimits, pins: Pins, now: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._pins = pins
        self._now = now
        self._lock = threading.Lock()
        self._open: OrderedDict[bytes, Transaction] = OrderedDict()  # the one used longest ago first

    @property
    def count(self) -> int:
        return len(self._open)

    def count_by_origin(self) -> dict[tuple[str, str], int]:
        """(session or connection, user) -> transactions open now."""
        with self._lock:
            return dict(Counter((found.origin, found.owner) for found in self._open.values()))

    @property
    def holding_count(self) -> int:
        """Those whose end would lose something."""
        with self._lock:
            return sum(transaction.holds_something for transaction in self._open.values())

    def begin(self, owner: str, origin: str) -> bytes:
        """The id of a new transaction; nobody can guess it. Raises `LimitExceeded`."""
        transaction = Transaction(owner, origin, self._pins, self._limits, self._now())
        transaction_id = secret_name()
        with self._lock:
            if len(self._open) >= self._limits.transactions_max:
                self._make_room()
            self._open[transaction_id] = transaction
        return transaction_id

    def _make_room(self) -> None:
        for transaction_id, transaction in self._open.items():
            if not transaction.holds_something:
                del self._open[transaction_id]
                return
        raise LimitExceeded(
            f"{self._limits.transactions_max} transactions are open (transactions_max), and each holds "
            "writes or a snapshot; end some"
        )

    def find(self, transaction_id: bytes, owner: str) -> Transaction:
        """The user's open transaction. Raises `TransactionNotFound`."""
        with self._lock:
            found = self._found(transaction_id, owner)
        if found is None:
            raise TransactionNotFound("the transaction is unknown or has ended; begin a new one")
        return found

    def _found(self, transaction_id: bytes, owner: str) -> Transaction | None:
        found = self._open.get(transaction_id)
        if found is None or found.owner != owner:
            return None
        found.used_at = self._now()
        self._open.move_to_end(transaction_id)
        return found

    def of_prepared(self, transaction_id: bytes, owner: str, origin: str) -> Transaction:
        """The transaction of a statement that was prepared in `transaction_id`.

        Drivers keep a prepared statement over COMMIT and send its handle alone: it then belongs to the
        transaction that the same session or connection has open now. Raises `TransactionNotFound` where
        that isn't exactly one.
        """
        with self._lock:
            found = self._found(transaction_id, owner)
            if found is not None:
                return found
            later = [
                key for key, other in self._open.items() if (other.owner, other.origin) == (owner, origin)
            ]
            found = self._found(later[0], owner) if len(later) == 1 else None
        if found is None:
            raise TransactionNotFound(
                "the transaction in which the statement was prepared has ended; prepare it again"
            )
        return found

    def join(self, call: Call, transaction_id: bytes) -> None:
        """Make the call's statement part of a transaction; empty: of none. Raises `TransactionNotFound`."""
        if transaction_id:
            call.transaction = self.find(transaction_id, call.user.name)

    def join_as(self, call: Call, transaction_id: bytes) -> None:
        """As `join`, of a prepared statement that belongs to that transaction."""
        if transaction_id:
            call.transaction = self.of_prepared(transaction_id, call.user.name, call.origin)

    def commit(self, transaction_id: bytes, owner: str) -> Mapping[str, int]:
        """table -> last seq. After a `Conflict` the transaction is still there, to be rolled back."""
        seqs = self.find(transaction_id, owner).commit()
        self._forget([transaction_id])
        return seqs

    def roll_back(self, transaction_id: bytes, owner: str) -> None:
        """Undo it. Raises `TransactionNotFound`."""
        transaction = self.find(transaction_id, owner)
        self._forget([transaction_id])
        transaction.fail(Unavailable("it was rolled back"))

    def close_origin(self, origin: str, owner: str) -> None:
        """Roll back what a user's session has left open at its end."""
        with self._lock:
            left = [
                (key, other)
                for key, other in self._open.items()
                if (other.origin, other.owner) == (origin, owner)
            ]
        self._forget([key for key, _ in left])
        for _, transaction in left:
            transaction.fail(Unavailable("its session was closed"))

    def _forget(self, transaction_ids: Sequence[bytes]) -> None:
        with self._lock:
            for transaction_id in transaction_ids:
                self._open.pop(transaction_id, None)

    def expire(self) -> None:
        """Undo the transactions that hold something for too long; their clients can still roll back."""
        now = self._now()
        with self._lock:
            transactions = list(self._open.values())
        for transaction in transactions:
            transaction.expire(now)

    def close(self) -> None:
        """Undo all; at the server's end."""
        with self._lock:
            transactions, self._open = list(self._open.values()), OrderedDict()
        for transaction in transactions:
            transaction.fail(Unavailable("the server is shutting down"))
