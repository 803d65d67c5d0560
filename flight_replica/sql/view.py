"""What one query reads: a DuckDB session inside one read-only transaction, with its position.

`View` owns its session from pin to close, and lets go of the states behind it when it closes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import duckdb
import pyarrow as pa

from flight_replica.errors import Closed, InvalidStatement, LimitExceeded, TimedOut
from flight_replica.position import TablePosition
from flight_replica.sql.database import literal, quote
from flight_replica.sql.messages import one_line, passed_limit
from flight_replica.sql.standing_sessions import StandingSession

BATCH_ROWS = 8192  # rows a batch out of DuckDB; the server cuts by bytes

# To ask DuckDB takes a query: (time zone, DuckDB type) -> the Arrow field of such a column.
_arrow_fields: dict[tuple[str, str], pa.Field] = {}
_TYPES_KEPT = 4096
_INTERRUPTED = "the statement was interrupted"
_TYPE_TEXT_MAX = 1000

RelationSql = str | Callable[[], str]  # a relation, or what makes it when it is bound
Counter = Callable[[], int | None]  # the rows of a relation; None where only a scan would tell

Parameters = Sequence[object] | Mapping[str, object]


class View:
    """An immutable view of some tables at one seq each. One statement at a time; `interrupt` from any thread.

    `session` comes with its transaction already begun and its snapshot taken. A statement that fails
    ends the transaction, and with it the view.
    """

    def __init__(
        self,
        session: duckdb.DuckDBPyConnection,
        positions: Sequence[TablePosition],
        release: Callable[[], None],
        standing: StandingSession | None = None,
    ) -> None:
        """`standing`: what `session` is the connection of; it is given back where no statement changed it."""
        self._session = session
        self._standing = standing
        self._release = release
        self._lock = threading.Lock()
        self._is_closed = False
        self._time_zone = ""  # "": the database's own
        self._planned: tuple[str, Parameters, duckdb.DuckDBPyRelation] | None = None
        self._offered: dict[str, RelationSql] = {}  # by name
        self._counters: dict[str, Counter] = {}  # by name, of relations whose rows may be known
        self._takes_up_all = False  # what is still offered is bound by the next statement
        self.positions = tuple(positions)
        # Objects, compared by identity, that tell all columns of what can be bound; None: not known.
        # A statement over the same ones has the same result's schema.
        self.made_of: Sequence[object] | None = None

    def bind(self, name: str, relation: str) -> None:
        """Let statements of this view call the SQL query `relation` by `name`."""
        self._counters.pop(name, None)
        self._offered.pop(name, None)
        self._bind(name, relation)

    def _bind(self, name: str, relation: str) -> None:
        bound = self._standing.relations if self._standing is not None else {}
        if bound.get(name) == relation:
            return
        self._session.execute(f"CREATE OR REPLACE TEMP VIEW {quote(name)} AS {relation}")
        bound[name] = relation

    def offer(self, name: str, relation: RelationSql, counter: Counter | None = None) -> None:
        """As `bind`, but done by `take_up`: most statements read few of many tables.

        `counter`: of the relation. It may use the session.
        """
        self._offered[name] = relation
        if counter is not None:
            self._counters[name] = counter

    def take_up(self, names: Iterable[str]) -> None:
        """Bind those of `names` that were offered and aren't bound yet."""
        for name in names:
            if name in self._offered:
                relation = self._offered[name]
                self._bind(name, relation if isinstance(relation, str) else relation())
                del self._offered[name]

    def row_count(self, name: str) -> int | None:
        """How many rows statements find under `name`; None where only a scan would tell.

        To find it out may itself take a statement. Raises `TimedOut` when that is interrupted.
        """
        counter = self._counters.get(name)
        if counter is None:
            return None
        with _not_to_blame():
            return counter()

    def take_up_later(self) -> None:
        """Bind all that was offered when a statement is planned or run, since one may never be."""
        self._takes_up_all = True

    def _take_up_all(self) -> None:
        if not self._takes_up_all:
            return
        with _not_to_blame():
            self.take_up(list(self._offered))
        self._takes_up_all = False

    def take_up_nothing(self) -> None:
        """Bind nothing more: what comes reads nothing that was offered."""
        self._takes_up_all = False

    def spoil(self) -> None:
        """Let nobody use the session after this view, since it isn't any more what it was."""
        self._standing = None

    def own_session(self) -> duckdb.DuckDBPyConnection:
        """The session, for what is bound to it for this view alone."""
        self.spoil()
        return self._session

    def bind_data(self, name: str, data: pa.Table | pa.RecordBatchReader) -> None:
        """Let statements of this view read Arrow data by `name`; a reader can be read once."""
        self.spoil()
        self._planned = None  # it may read what had the name before
        self._session.register(name, data)

    def set_time_zone(self, zone: str) -> None:
        """Read and show times in this zone (a name that `zone_name` gave), instead of UTC."""
        self.spoil()
        self._session.execute(f"SET TimeZone = {literal(zone)}")
        self._time_zone = zone

    def define_positions(self, names: Mapping[str, str]) -> None:
        """Let statements ask where tables stand: `merutable_seq(name)` and `merutable_lag_ms(name)`.

        `names`: as statements spell them -> as the view's positions do.
        """
        self.spoil()
        at = {position.table: position for position in self.positions}
        seqs = {name: f"{at[table].visible_seq}::UBIGINT" for name, table in names.items()}
        lags = {name: _lag_sql(at[table].lag_us) for name, table in names.items()}
        for function, values in (("merutable_seq", seqs), ("merutable_lag_ms", lags)):
            cases = " ".join(f"WHEN {literal(name)} THEN {value}" for name, value in values.items())
            self._session.execute(f"CREATE OR REPLACE TEMP MACRO {function}(name) AS CASE name {cases} END")

    def plan(self, sql: str, parameters: Parameters = ()) -> pa.Schema:
        """The result's schema, without running the statement. Raises `InvalidStatement`.

        An EXPLAIN is run by this: DuckDB runs it as soon as it is looked at.
        """
        self._take_up_all()
        with duckdb_errors():
            relation = self._session.sql(sql, params=parameters or None)
            if relation is None:
                return pa.schema([])
            self._planned = (sql, parameters, relation)
            types = [str(kind) for kind in relation.types]
            return pa.schema(
                [
                    self._arrow_field(kind).with_name(name)
                    for kind, name in zip(types, relation.columns, strict=True)
                ]
            )

    def _arrow_field(self, type_text: str) -> pa.Field:
        """How DuckDB hands out a column of its type `type_text`. Told by a query of no rows, once a type."""
        key = (self._time_zone, type_text)
        field = _arrow_fields.get(key)
        if field is None:
            nothing = self._session.sql(f"SELECT NULL::{type_text} WHERE false").to_arrow_table()
            field = nothing.schema.field(0)
            if len(type_text) <= _TYPE_TEXT_MAX:  # an ENUM's is as long as its values
                if len(_arrow_fields) >= _TYPES_KEPT:
                    _arrow_fields.clear()
                _arrow_fields[key] = field
        return field

    def execute(
        self, sql: str, parameters: Parameters = (), batch_rows: int = BATCH_ROWS
    ) -> pa.RecordBatchReader:
        """The statement's rows as a stream. Raises `InvalidStatement`, `TimedOut` when interrupted.

        The reader raises DuckDB's own errors; read it within `duckdb_errors` to have ours.
        """
        if self._is_closed:
            raise Closed("the view is closed")
        self._take_up_all()
        with duckdb_errors():
            return self._relation(sql, parameters).to_arrow_reader(batch_rows)

    def _relation(self, sql: str, parameters: Parameters) -> duckdb.DuckDBPyRelation:
        """The statement as DuckDB has bound it, for the first run as `plan` did."""
        planned, self._planned = self._planned, None
        if planned is not None and planned[0] == sql and planned[1] is parameters:
            return planned[2]
        return self._session.sql(sql, params=parameters or None)

    def interrupt(self) -> None:
        """End the running statement; its reader raises.

        One that is called before the statement has got going is lost, so repeat it until it has ended.
        """
        with self._lock:
            if not self._is_closed:
                self.spoil()  # it may still be on its way when the next statement begins
                self._session.interrupt()

    def close(self) -> None:
        """End the transaction and let go of the states. Idempotent. Close the readers before."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
        self._offered.clear()  # what makes a relation may hold the view
        try:
            if self._standing is not None:
                self._standing.give_back()
            else:
                self._session.close()
        finally:
            self._release()

    def __enter__(self) -> View:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _lag_sql(lag_us: int) -> str:
    return "NULL::DOUBLE" if lag_us < 0 else f"{lag_us / 1000!r}::DOUBLE"


def read_batches(reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    """The batches of a reader that `View.execute` gave, with our errors."""
    while True:
        with duckdb_errors():
            try:
                batch = reader.read_next_batch()
            except StopIteration:
                return
        yield batch


# Errors that a statement can't be blamed for: they pass unchanged.
_NOT_ITS_FAULT = (duckdb.InternalException, duckdb.FatalException, duckdb.IOException)
_NOT_ITS_FAULT_TEXT = ("INTERNAL Error", "FATAL Error", "IO Error")


@contextmanager
def _not_to_blame() -> Iterator[None]:
    """Work for a statement that can't be blamed for what it raises, but for an interrupt."""
    try:
        yield
    except duckdb.InterruptException as error:
        raise TimedOut(_INTERRUPTED) from error


@contextmanager
def duckdb_errors() -> Iterator[None]:
    """Raise DuckDB's errors as ours. Its streams raise OSError with the same texts."""
    try:
        yield
    except _NOT_ITS_FAULT:
        raise
    except duckdb.Error as error:
        raise _as_ours(str(error).strip()) from error
    except OSError as error:
        text = str(error).strip()
        if text.startswith(_NOT_ITS_FAULT_TEXT):
            raise
        raise _as_ours(text) from error
    except pa.ArrowException as error:
        raise InvalidStatement(f"the result has no form in Arrow: {error}") from error


def _as_ours(text: str) -> InvalidStatement | TimedOut | LimitExceeded:
    if text.startswith("INTERRUPT Error"):
        return TimedOut(_INTERRUPTED)
    if text.startswith("Out of Memory Error"):
        return LimitExceeded(f"the statement needs more memory than there is: {text}")
    if (told := passed_limit(text)) is not None:
        return LimitExceeded(told)
    return InvalidStatement(one_line(text))
