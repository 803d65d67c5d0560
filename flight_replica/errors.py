"""The one exception tree. Only `flightsql/status.py` turns these into Flight errors."""

from __future__ import annotations

from uuid import UUID


def without_table(name: str, text: str) -> str:
    """`text` without the name of the table in front, for one that says it already."""
    return text.removeprefix(f"table {name!r}: ")


class ReplicaError(Exception):
    """Base of every error raised on purpose. `retryable`: the same call may succeed later."""

    retryable = False


class ConfigError(ReplicaError):
    """A setting, path or option is wrong; correct it and start again."""

    @property
    def lines(self) -> list[str]:
        """What to tell people, a line each."""
        return [str(self)]


class InvalidStatement(ReplicaError):
    """The SQL can't be run as it stands (syntax, names, types, parameters); correct it."""


class NotAllowed(InvalidStatement):
    """The statement writes or leaves the sandbox; no retry will help."""


class Unsupported(NotAllowed):
    """This kind of server can't do what was asked; the message says which can."""


class ReadOnly(NotAllowed):
    """A write was sent to a replica; send it to the primary that the message names."""


class Unauthenticated(ReplicaError):
    """The call doesn't say who it is from, or not in a way that is believed; log in again."""


class Forbidden(NotAllowed):
    """The user may not do this; whoever gives rights can."""


class TableNotFound(ReplicaError):
    """No table of this name is served here."""


class StatementNotFound(ReplicaError):
    """A ticket or prepared statement is unknown, used up or expired; plan it again."""


class TransactionNotFound(StatementNotFound):
    """No transaction of this id is open, for this user; begin a new one."""


class TransactionFailed(ReplicaError):
    """A statement of this transaction had a conflict, so nothing of it can be committed; roll it back."""


class SessionExpired(ReplicaError):
    """What a session had set is gone; set it again, or connect again."""


class ConstraintViolation(InvalidStatement):
    """A write breaks the table's key or nullability; nothing was changed."""


class AlreadyExists(ConstraintViolation):
    """There is a table of this name already; choose another, or write IF NOT EXISTS."""


class SchemaMismatch(ReplicaError):
    """Data doesn't fit the table's schema, or a type can't be carried exactly."""


class InvalidText(SchemaMismatch):
    """A value of a column that is served as text isn't UTF-8: serve the column as bytes, or leniently."""

    def __init__(self, column: str, pk_bytes: bytes | None, value: object) -> None:
        place = "its default" if pk_bytes is None else f"key {pk_bytes.hex()}"
        shown = value[:64].hex() if isinstance(value, bytes) else repr(value)[:64]
        super().__init__(f"text column {column!r}, {place}: {shown} isn't UTF-8")
        self.column = column
        self.pk_bytes = pk_bytes


class FeedError(ReplicaError):
    """The feed said something impossible; nothing of that batch was applied. Connect again."""

    retryable = True


class LogGap(FeedError):
    """The feed can't give every op after `requested`: rebuild from a newer base."""

    retryable = False

    def __init__(
        self, requested: int, earliest_available: int | None, reason: str, lineage: UUID | None = None
    ) -> None:
        earliest = "unknown" if earliest_available is None else str(earliest_available)
        super().__init__(f"log gap: requested since {requested}, earliest available {earliest}: {reason}")
        self.requested = requested
        self.earliest_available = earliest_available
        self.reason = reason
        self.lineage = lineage


class StateNotUsable(ReplicaError):
    """What an earlier process left of a table can't be gone on with; the table is loaded from its base."""


class DamagedLog(FeedError):
    """The engine's log can't be read on: acknowledged ops are gone, or bytes that no engine writes.

    Accept it, which makes a new lineage, or bring the log back. `after_seq` is the last seq in front of
    the damage, `before_seq` the first one behind it, where they are known.
    """

    retryable = False

    def __init__(
        self,
        file: str,
        offset: int | None,
        reason: str,
        *,
        after_seq: int | None = None,
        before_seq: int | None = None,
    ) -> None:
        place = "" if offset is None else f", offset {offset}"
        super().__init__(f"log {file}{place}: {reason}")
        self.file = file
        self.offset = offset
        self.reason = reason
        self.after_seq = after_seq
        self.before_seq = before_seq


class MissedLog(DamagedLog):
    """Log files were removed before they were read: their ops are in the table's files, or gone."""


class ChangedLog(DamagedLog):
    """A log file that was read has other bytes now: what is right only reading it again can tell."""


class BaseError(ReplicaError):
    """A base snapshot can't be read; the message names file and reason."""


class BaseNotUsable(BaseError):
    """A snapshot is half written, gone or not there yet; the old one stays. Try again later."""

    retryable = True


class LineageChanged(BaseError):
    """The base is of another history of the table than the log: load the table afresh."""

    retryable = True


class NotCaughtUp(ReplicaError):
    """Only an older state than the one served is to be had; the old one goes on serving."""

    retryable = True

    def __init__(self, message: str, *, served_seq: int, offered_seq: int) -> None:
        super().__init__(f"{message}: serving seq {served_seq}, only seq {offered_seq} is to be had")
        self.served_seq = served_seq
        self.offered_seq = offered_seq


class Unavailable(ReplicaError):
    """The table or server isn't ready, or the wait for a position ended; try again."""

    retryable = True


class Paused(Unavailable):
    """An operator has paused the table: nothing is applied to it until it is resumed."""


class NotServed(Unavailable):
    """The table can't be served before somebody mends what the message names."""

    retryable = False


class Conflict(Unavailable):
    """Another write came between; roll the transaction back and do it again."""


class Busy(Unavailable):
    """All places under a named limit are taken; try again when others are done."""


class Cancelled(ReplicaError):
    """Somebody asked for the statement to end, or its client has gone."""


class TimedOut(ReplicaError):
    """A deadline passed; what was under way was given up whole."""

    retryable = True


class DatabaseLost(ReplicaError):
    """DuckDB closed the process's database after an internal error: start the process anew."""


class LimitExceeded(ReplicaError):
    """A named limit is reached; the message gives it, its unit and what was asked."""


class Closed(ReplicaError):
    """The object was closed before or during the call."""
