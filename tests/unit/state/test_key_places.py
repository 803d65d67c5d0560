"""Where rows lie is guessed: narrow where it is right, and a lookup is exact wherever it is wrong."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from decimal import Decimal
from itertools import chain
from pathlib import Path
from random import Random

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from flight_replica.keys import KeyCodec
from flight_replica.log.source import Op
from flight_replica.schema import Column, TableSchema
from flight_replica.state import key_places, recent_ops
from flight_replica.state.key_places import KeyPlaces, Span
from flight_replica.state.native_state import NativeState
from flight_replica.state.workspace import Workspace
from tests.bases import ID_V, Change, delete, op_batch, put
from tests.model import Row, TableModel
from tests.unit.state.test_native_state import base_of, native_state


@pytest.fixture
def workspace() -> Iterator[Workspace]:
    opened = Workspace()
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """As large tables have them, and looked at whenever a key was looked for in vain."""
    monkeypatch.setattr(key_places, "SAMPLE_ROWS", 8)
    monkeypatch.setattr(key_places, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(key_places, "_UNSURE_SAMPLES", 2)


def table(sql: str) -> duckdb.DuckDBPyConnection:
    """A table `rows` of the columns c0, c1, … that a query gives."""
    session = duckdb.connect()
    session.execute(f"CREATE TABLE rows AS {sql}")
    return session


def wait_for_look(places: KeyPlaces) -> None:
    looker = places._looker
    if looker is not None:
        looker.join()


def miss(places: KeyPlaces, row_id: int, seconds: float = 1.0) -> None:
    """Tell of a row that was found late, and wait for the look at the table, if that brings one."""
    places.missed(row_id, seconds)
    wait_for_look(places)


def looked_at(
    session: duckdb.DuckDBPyConnection, schema: TableSchema = ID_V
) -> Callable[[object], Span | None]:
    """The guesses for single keys after one look at the table."""
    places, codec = KeyPlaces(schema, "rows", session.cursor), KeyCodec(schema)
    miss(places, 0)
    return lambda key: places.guess(codec.encode_row([key]))


def test_nothing_is_known_before_lookups_took_as_long_as_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_places, "PATIENCE_SECONDS", 1.0)
    session = table("SELECT range AS c0, range AS c1 FROM range(100)")
    places, key = KeyPlaces(ID_V, "rows", session.cursor), KeyCodec(ID_V).encode_row([5])
    for seconds in (0.5, 0.25, 0.125):
        miss(places, 5, seconds)
        assert places.guess(key) is None
    miss(places, 5, 0.25)
    assert places.guess(key) == (5, 5)


def test_a_row_between_neighbours_without_gaps_is_known_exactly() -> None:
    guess = looked_at(table("SELECT range - 500 AS c0, 0 AS c1 FROM range(1000)"))
    assert [guess(key) for key in range(-500, 500)] == [(row, row) for row in range(1000)]


def test_a_row_between_neighbours_with_gaps_is_known_to_a_few_rows() -> None:
    guess = looked_at(table("SELECT range * 3 AS c0, 0 AS c1 FROM range(1000)"))
    for row in range(1000):
        span = guess(row * 3)
        assert span is not None and span[0] <= row <= span[1] <= span[0] + 8


def test_a_key_below_all_others_would_lie_before_them() -> None:
    assert looked_at(table("SELECT range AS c0, 0 AS c1 FROM range(1000)"))(-7) == (0, 0)


def test_rows_behind_those_in_order_are_known_each() -> None:
    guess = looked_at(
        table("SELECT range AS c0, 0 AS c1 FROM range(1000) UNION ALL SELECT 5000 - range, 1 FROM range(777)")
    )
    assert [guess(key) for key in range(1000)] == [(row, row) for row in range(1000)]
    assert [guess(5000 - number) for number in range(777)] == [(1000 + n, 1000 + n) for n in range(777)]


def test_of_many_rows_behind_those_in_order_some_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_places, "OTHERS_MAX", 100)
    session = table(
        "SELECT range AS c0, 0 AS c1 FROM range(1000) UNION ALL SELECT 5000 - range, 1 FROM range(777)"
    )
    guess = looked_at(session)
    known = [number for number in range(777) if guess(5000 - number) == (1000 + number, 1000 + number)]
    assert 50 <= len(known) <= 100


def test_the_table_is_not_looked_at_for_rows_of_which_a_look_could_not_tell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(key_places, "OTHERS_MAX", 100)
    session = table("SELECT range AS c0, 0 AS c1 FROM range(1000)")
    places = KeyPlaces(ID_V, "rows", session.cursor)
    miss(places, 0)
    known = places._places
    miss(places, 5000)
    assert places._places is known
    miss(places, 1010)
    assert places._places is not known


def test_samples_of_a_large_table_are_thinned_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_places, "SAMPLES_MAX", 10)
    guess = looked_at(table("SELECT range * 3 AS c0, 0 AS c1 FROM range(8000)"))
    for row in range(0, 8000, 7):
        span = guess(row * 3)
        assert span is not None and span[0] <= row <= span[1] <= span[0] + 100 * 8


def test_a_table_without_rows_has_no_places() -> None:
    assert looked_at(table("SELECT range AS c0, 0 AS c1 FROM range(0)"))(1) is None


@pytest.mark.parametrize(
    ("kind", "sql", "key"),
    [
        (pa.string(), "printf('%05d', range)", lambda row: f"{row:05d}"),
        (pa.binary(), "encode(printf('%05d', range))", lambda row: f"{row:05d}".encode()),
        (pa.decimal128(12, 2), "CAST(range / 4.0 AS DECIMAL(12, 2))", lambda row: Decimal(row) / 4),
        (pa.float64(), "(range - 500) / 4.0", lambda row: (row - 500) / 4.0),
        (pa.date32(), "DATE '2000-01-01' + CAST(range AS INTEGER)",
         lambda row: dt.date(2000, 1, 1) + dt.timedelta(row)),
        (pa.uint64(), "CAST(range AS UBIGINT) + 9223372036854775000", lambda row: row + 9223372036854775000),
    ],
    ids=str,
)  # fmt: skip
def test_keys_of_many_types_are_known_to_a_few_rows(
    kind: pa.DataType, sql: str, key: Callable[[int], object]
) -> None:
    schema = TableSchema((Column("k", kind, False), Column("v", pa.int64())), ("k",))
    guess = looked_at(table(f"SELECT {sql} AS c0, range AS c1 FROM range(1000)"), schema)
    for row in range(0, 900, 7):
        span = guess(key(row))
        assert span is not None and span[0] <= row <= span[1] <= span[0] + 8


def test_long_texts_are_no_samples() -> None:
    schema = TableSchema((Column("k", pa.string(), False), Column("v", pa.int64())), ("k",))
    number = "CAST(range // 100 AS INTEGER)"
    text = f"repeat(chr(97 + {number}), 120 + {number}) || printf('%03d', range)"
    session = table(f"SELECT {text} AS c0, 0 AS c1 FROM range(1000)")
    places = KeyPlaces(schema, "rows", session.cursor)
    miss(places, 0)
    assert places.guess(KeyCodec(schema).encode_row(["b"])) is not None
    assert places._places is not None
    assert all(isinstance(key, bytes) and len(key) <= 130 for key in places._places.keys)


# --- looking in the background ----------------------------------------------------------------------

ENDLESS_SQL = (
    "SELECT a.range, b.range FROM range(1000000000) a, range(1000000000) b ORDER BY a.range + b.range"
)


def endless(session: duckdb.DuckDBPyConnection) -> KeyPlaces:
    """Places that are looked for without an end."""
    places = KeyPlaces(ID_V, "rows", session.cursor)
    places._samples_sql = ENDLESS_SQL
    places.missed(0, 1.0)
    assert places._looker is not None
    return places


def test_lookups_go_on_while_the_table_is_looked_at() -> None:
    session = table("SELECT range AS c0, 0 AS c1 FROM range(1000)")
    with closing(endless(session)) as places:
        looker = places._looker
        for row in range(100):
            places.missed(row, 1.0)
            assert places.guess(KeyCodec(ID_V).encode_row([row])) is None
        assert places._looker is looker, "there is more than one look at once"


def test_closing_ends_a_look_and_there_is_none_after_it() -> None:
    session = table("SELECT range AS c0, 0 AS c1 FROM range(1000)")
    places = endless(session)
    looker = places._looker
    assert looker is not None
    places.close()
    assert not looker.is_alive()
    places.missed(0, 1.0)
    assert places._looker is None
    places.close()


def test_a_look_that_fails_is_told_and_comes_again(caplog: pytest.LogCaptureFixture) -> None:
    session = table("SELECT range AS c0, 0 AS c1 FROM range(1000)")
    places, key = KeyPlaces(ID_V, "rows", session.cursor), KeyCodec(ID_V).encode_row([7])
    session.execute("ALTER TABLE rows RENAME TO others")
    miss(places, 0)
    assert "key places not found out table=rows" in caplog.text
    assert places.guess(key) is None
    session.execute("ALTER TABLE others RENAME TO rows")
    miss(places, 0)
    assert places.guess(key) == (7, 7)


def test_a_look_without_a_thread_is_told_and_comes_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = table("SELECT range AS c0, 0 AS c1 FROM range(1000)")
    places, key = KeyPlaces(ID_V, "rows", session.cursor), KeyCodec(ID_V).encode_row([7])

    def no_thread(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        miss(places, 0)
    assert "key places not looked for table=rows error=can't start new thread" in caplog.text
    assert places.guess(key) is None
    miss(places, 0)
    assert places.guess(key) == (7, 7)
    places.close()


def test_a_reader_that_fails_leaves_a_look_alone(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its row has a time that Python doesn't have, and was found late, so that the table is looked at."""
    schema = TableSchema((Column("id", pa.int64(), False), Column("at", pa.timestamp("us"))), ("id",))
    far = pa.array([2**62] * 100, pa.int64()).view(pa.timestamp("us"))
    with native_state(base_of(schema, tmp_path, pa.array(range(100), pa.int64()), far), workspace) as state:
        places = places_of(state)
        monkeypatch.setattr(places, "_samples_sql", ENDLESS_SQL)
        for _ in range(2):
            with pytest.raises(OverflowError):
                state.get([7])
            assert places._looker is not None
            assert places._looker.is_alive()


# --- lookups ----------------------------------------------------------------------------------------

Kinds = tuple[pa.DataType, ...]
KEYS: dict[str, tuple[Kinds, Callable[[int], tuple[object, ...]]]] = {
    "dense": ((pa.int64(),), lambda n: (n - 300,)),
    "sparse": ((pa.int32(),), lambda n: (n * 7 - 1000,)),
    "text": ((pa.string(),), lambda n: (f"{n * n % 997}-{n}",)),
    "binary": ((pa.binary(),), lambda n: (bytes([n % 5, 0, n // 256, n % 256]) * (1 + n % 3),)),
    "float": ((pa.float64(),), lambda n: ((-1.0) ** n * (n // 2),)),  # −0.0, too
    "date": ((pa.date32(),), lambda n: (dt.date(2000, 1, 1) + dt.timedelta(n * 2),)),
    "pair": ((pa.string(), pa.int64()), lambda n: (f"{n % 7}", n)),
}
COLUMNS: dict[str, pa.DataType] = {"by value": pa.timestamp("us"), "by Arrow": pa.date32()}
KEY_COUNT = 600  # half of them are in the base


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("kind", KEYS)
def test_lookups_show_the_model_s_rows_whatever_was_applied(
    kind: str, column: str, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recent_ops, "KEPT_OPS_MAX", 0)
    types, key_of = KEYS[kind]
    key = tuple(f"k{number}" for number in range(len(types)))
    keys = [Column(name, part, False) for name, part in zip(key, types, strict=True)]
    schema = TableSchema((*keys, Column("n", pa.int64()), Column("x", COLUMNS[column])), key)
    codec, random, model = KeyCodec(schema), Random(7), TableModel()

    def change(number: int, value: int, *, is_put: bool) -> Change:
        at = dt.datetime(2000, 1, 1) + dt.timedelta(value)
        shown = at if column == "by value" else at.date()
        if is_put:
            return put(*key_of(number), value, shown if value % 3 else None, schema=schema)
        return delete(*key_of(number), schema=schema)

    def take(seq: int, op: Op, row: Row) -> None:
        encoded = codec.encode_row([row[name] for name in key])
        model.delete(seq, encoded) if op is Op.DELETE else model.put(seq, encoded, row)

    for number in range(0, KEY_COUNT, 2):
        take(1, *change(number, number, is_put=True))
    arrays = [pa.array([row[c.name] for row in model.sorted_rows()], c.type) for c in schema.columns]
    with native_state(base_of(schema, tmp_path, *arrays), workspace) as state:
        for seq in range(2, 10):
            ops = [(seq, *change(n, seq, is_put=random.random() < 0.6)) for n in _drawn(random, seq)]
            state.apply(op_batch(schema, ops), seq)
            state.settle()
            if seq % 4 == 0:
                state._connection.execute(f"CHECKPOINT {state._database}")
            for op in ops:
                take(*op)
            for number in random.sample(range(KEY_COUNT + 10), 5):
                expected = model.rows.get(codec.encode_row(key_of(number)))
                assert state.get(key_of(number)) == expected
                found = state.look_up(key_of(number))
                assert found is not None and found.rows is not None
                assert found.rows.rename_columns(list(schema.names)).to_pylist() == (
                    [] if expected is None else [expected]
                )
                wait_for_look(places_of(state))


def _drawn(random: Random, seq: int) -> Sequence[int]:
    """The numbers of keys that a commit changes: a few, a range, or half of them."""
    first = random.randrange(KEY_COUNT)
    return [
        random.sample(range(KEY_COUNT), 10),
        range(first, min(first + 50, KEY_COUNT)),
        random.sample(range(KEY_COUNT), KEY_COUNT // 2),
    ][seq % 3]


@pytest.fixture
def state(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NativeState]:
    """Keys 0 to 199 999 of the value 0, at seq 1; no op is known once it is written."""
    monkeypatch.setattr(recent_ops, "KEPT_OPS_MAX", 0)
    base = base_of(ID_V, tmp_path, pa.array(range(200_000), pa.int64()), pa.repeat(pa.scalar(0), 200_000))
    with native_state(base, workspace) as made:
        yield made


def places_of(state: NativeState) -> KeyPlaces:
    return state._lookup._places


def test_rows_are_found_where_they_got_other_row_ids(state: NativeState) -> None:
    """As DuckDB gives them at a checkpoint that drops row groups without a row, unless it is told not to."""
    codec = KeyCodec(ID_V)
    assert state.get([150_000]) == {"id": 150_000, "v": 0}
    wait_for_look(places_of(state))
    assert places_of(state).guess(codec.encode_row([150_000])) == (150_000, 150_000)
    rows = f"{state._database}.rows"
    state._connection.execute(
        f"CREATE OR REPLACE TABLE {rows} AS SELECT * FROM {rows} WHERE c0 NOT BETWEEN 100 AND 139999"
    )
    ((row_id,),) = state._connection.execute(f"SELECT rowid FROM {rows} WHERE c0 = 150000").fetchall()
    assert row_id < 150_000, "no row got another row id"
    for key in range(140_000, 200_000, 5000):
        assert state.get([key]) == {"id": key, "v": 0}
    assert state.get([139_999]) is None
    while places_of(state).guess(codec.encode_row([150_000])) != (row_id, row_id):  # soon
        assert state.get([150_000]) == {"id": 150_000, "v": 0}


def test_keys_of_one_tag_are_told_apart(state: NativeState) -> None:
    """Their hashes differ in the lower half alone, which isn't kept."""
    to_next_hash = pow(int(key_places._SPREAD), -1, 2**64)
    firsts = [2**63 + 300_000 + number for number in range(50)]  # as in pk_bytes: 300 000 and up
    pairs = [(first, (first + to_next_hash) % 2**64) for first in firsts]
    tags = key_places._tags(np.array(pairs, np.uint64))
    assert (tags[:, 0] == tags[:, 1]).sum() >= 49, "the tags aren't forced to collide"
    values = {number - 2**63: place for place, number in enumerate(chain(*pairs))}
    state.apply(op_batch(ID_V, [(2, *put(key, value)) for key, value in values.items()]), 2)
    state.settle()
    for _ in range(3):  # the first time the whole table is asked
        for key, value in values.items():
            assert state.get([key]) == {"id": key, "v": value}
            wait_for_look(places_of(state))


def test_a_row_that_moves_while_it_is_looked_for_is_found(state: NativeState) -> None:
    """Each commit gives all keys its seq as their value, and nobody sees it go back."""
    keys = list(range(0, 200_000, 20_000))
    is_over = threading.Event()

    def write() -> None:
        try:
            for seq in range(2, 12):
                state.apply(op_batch(ID_V, [(seq, *put(key, seq)) for key in keys]), seq)
                state.settle()
        finally:
            is_over.set()

    def read(look: Callable[[int], int | None]) -> int:
        newest = looks = 0
        while not is_over.is_set():
            for key in keys:
                value = look(key)
                assert value is None or newest <= value, f"key {key} is at {value}, another was at {newest}"
                newest, looks = value or newest, looks + 1
        return looks

    def get(key: int) -> int:
        row = state.get([key])
        assert row is not None and isinstance(row["v"], int)
        return row["v"]

    def look_up(key: int) -> int | None:
        found = state.look_up([key])
        if found is None:
            return None
        assert found.rows is not None
        (value,) = found.rows["c1"].to_pylist()
        assert value == (found.visible_seq if found.visible_seq > 1 else 0)
        return int(value)

    with ThreadPoolExecutor(4) as threads:
        running = [threads.submit(read, look) for look in (get, get, look_up)]
        threads.submit(write).result()
        assert all(task.result() for task in running)


@pytest.mark.parametrize("is_nullable", [True, False])
def test_infinite_times_come_through_wherever_they_are_found(
    is_nullable: bool, workspace: Workspace, tmp_path: Path
) -> None:
    kind = pa.timestamp("us", "UTC")
    schema = TableSchema((Column("id", pa.int64(), False), Column("at", kind, is_nullable)), ("id",))
    numbers = [2**63 - 1, -(2**63) + 1, 0, 1, None if is_nullable else 2] * 20
    times = pa.array(numbers, pa.int64()).view(kind)
    with native_state(base_of(schema, tmp_path, pa.array(range(100), pa.int64()), times), workspace) as state:
        for key, number in list(enumerate(numbers)) * 2:
            found = state.look_up([key])
            assert found is not None and found.rows is not None
            assert found.rows["c1"].combine_chunks().view(pa.int64()).to_pylist() == [number]
