"""Write transactions of clients: nothing shows before commit, all of it at once then, or a conflict."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from flight_replica.errors import Conflict, ConstraintViolation, InvalidStatement, LimitExceeded
from flight_replica.primary.service import PrimaryService
from flight_replica.primary.settings import PrimarySettings
from flight_replica.primary.transactions import ClientTransaction
from tests.model import TableModel

BYTES = 1 << 20
Row = tuple[object, ...]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[PrimaryService]:
    settings = PrimarySettings(publish_seconds=3600, transaction_bytes_max=100_000)
    service = PrimaryService.open(tmp_path, settings)
    service.write("CREATE TABLE t (id BIGINT PRIMARY KEY, a VARCHAR)")
    service.write("INSERT INTO t VALUES (1, 'a'), (2, 'b')")
    yield service
    service.close()


@pytest.fixture
def transaction(service: PrimaryService) -> ClientTransaction:
    return service.engine.begin()


def rows(service: PrimaryService, transaction: ClientTransaction | None = None) -> list[Row]:
    """What is seen from inside the transaction, or by everybody else."""
    with service.open_view(["t"]) as view:
        if transaction is not None:
            transaction.cover(view)
        found = view.execute("SELECT * FROM t ORDER BY id").read_all().to_pylist()
    return [tuple(row.values()) for row in found]


def ops(service: PrimaryService, after: int) -> list[tuple[int, str, object]]:
    """Seq, op and `a` of what the feed has after a seq."""
    found = service.feed("t").read(after, None, BYTES).ops.to_pylist()
    return [(op["seq"], op["op"], op["a"]) for op in found]


def test_writes_show_to_their_transaction_alone_until_commit(
    service: PrimaryService, transaction: ClientTransaction
) -> None:
    assert transaction.is_empty
    assert transaction.write("INSERT INTO t VALUES (3, 'c')").seq is None
    transaction.write("UPDATE t SET a = a || '!' WHERE id > 1")
    transaction.write("DELETE FROM t WHERE id = 1")
    assert rows(service) == [(1, "a"), (2, "b")]
    assert rows(service, transaction) == [(2, "b!"), (3, "c!")]
    assert (service.feed("t").high_water, transaction.is_empty) == (2, False)
    assert transaction.commit() == {"t": 6}
    assert rows(service) == [(2, "b!"), (3, "c!")]


@pytest.mark.statement(89)
def test_a_transaction_is_one_commit_of_the_feed_with_every_statement_in_order(
    service: PrimaryService, transaction: ClientTransaction
) -> None:
    transaction.write("INSERT INTO t VALUES (3, 'c')")
    transaction.write("UPDATE t SET a = 'd' WHERE id = 3")
    service.write("INSERT INTO t VALUES (9, 'between')")
    transaction.write("INSERT INTO t VALUES (4, 'e')")
    transaction.commit()
    assert ops(service, 2) == [
        (3, "INSERT", "between"),
        (4, "INSERT", "c"),
        (5, "UPDATE", "d"),
        (6, "INSERT", "e"),
    ]
    ends = [service.feed("t").read(2, through, BYTES).mark.commit_through for through in range(3, 7)]
    assert ends == [3, 3, 3, 6]


@pytest.mark.statement(92)
def test_a_row_that_comes_and_goes_in_one_transaction_is_the_delete_s_pre_image(
    service: PrimaryService, transaction: ClientTransaction
) -> None:
    transaction.write("INSERT INTO t VALUES (3, 'c')")
    transaction.write("DELETE FROM t WHERE id = 3")
    transaction.commit()
    assert ops(service, 2) == [(3, "INSERT", "c"), (4, "DELETE", "c")]
    assert rows(service) == [(1, "a"), (2, "b")]


def test_what_was_not_committed_leaves_nothing(
    service: PrimaryService, transaction: ClientTransaction
) -> None:
    transaction.write("DELETE FROM t")
    del transaction
    assert rows(service) == [(1, "a"), (2, "b")]
    assert service.write("INSERT INTO t VALUES (3, 'c')").seq == 3


def test_a_statement_sees_what_others_have_committed_meanwhile(
    service: PrimaryService, transaction: ClientTransaction
) -> None:
    transaction.write("INSERT INTO t VALUES (3, 'c')")
    service.write("INSERT INTO t VALUES (4, 'theirs')")
    assert transaction.write("UPDATE t SET a = 'x' WHERE id > 2").rows_affected == 2
    assert rows(service, transaction) == [(1, "a"), (2, "b"), (3, "x"), (4, "x")]
    transaction.commit()
    assert rows(service) == [(1, "a"), (2, "b"), (3, "x"), (4, "x")]


THEIRS = {
    "an update": "UPDATE t SET a = 'theirs' WHERE id = 1",
    "a delete": "DELETE FROM t WHERE id = 1",
    "an insert of the same key": "INSERT INTO t VALUES (3, 'theirs')",
    "a moved key": "UPDATE t SET id = 3 WHERE id = 2",
}


@pytest.mark.parametrize("theirs", THEIRS.values(), ids=THEIRS.keys())
def test_who_commits_first_wins_and_the_other_gets_a_retryable_conflict(
    service: PrimaryService, transaction: ClientTransaction, theirs: str
) -> None:
    transaction.write("UPDATE t SET a = 'mine' WHERE id = 1")
    transaction.write("INSERT INTO t VALUES (3, 'mine')")
    service.write(theirs)
    after = rows(service)
    with pytest.raises(Conflict, match=r"table 't': another commit has changed key id = \d") as conflict:
        transaction.commit()
    assert conflict.value.retryable
    assert rows(service) == after


def test_a_conflict_is_told_at_the_next_statement_already(
    service: PrimaryService, transaction: ClientTransaction
) -> None:
    transaction.write("UPDATE t SET a = 'mine' WHERE id = 1")
    service.write("UPDATE t SET a = 'theirs' WHERE id = 1")
    with pytest.raises(Conflict, match="key id = 1"):
        transaction.write("INSERT INTO t VALUES (7, 'mine')")


def test_two_transactions_that_change_other_keys_both_commit(service: PrimaryService) -> None:
    one, other = service.engine.begin(), service.engine.begin()
    one.write("UPDATE t SET a = 'one' WHERE id = 1")
    other.write("UPDATE t SET a = 'other' WHERE id = 2")
    assert [one.commit(), other.commit()] == [{"t": 3}, {"t": 4}]
    assert rows(service) == [(1, "one"), (2, "other")]


@pytest.mark.parametrize("ddl", ["ALTER TABLE t ADD COLUMN b BIGINT", "DROP TABLE t"])
def test_a_table_that_was_altered_or_dropped_is_a_conflict(
    service: PrimaryService, transaction: ClientTransaction, ddl: str
) -> None:
    transaction.write("INSERT INTO t VALUES (3, 'c')")
    service.write(ddl)
    with pytest.raises(Conflict, match="altered or dropped"):
        transaction.commit()


def test_a_statement_that_fails_leaves_the_others_of_its_transaction(
    service: PrimaryService, transaction: ClientTransaction
) -> None:
    transaction.write("INSERT INTO t VALUES (3, 'c')")
    with pytest.raises(ConstraintViolation, match="exists already"):
        transaction.write("INSERT INTO t VALUES (4, 'd'), (3, 'again')")
    with pytest.raises(InvalidStatement, match="part of a transaction"):
        transaction.write("CREATE TABLE u (id BIGINT PRIMARY KEY)")
    transaction.commit()
    assert rows(service) == [(1, "a"), (2, "b"), (3, "c")]


def test_an_idle_transaction_blocks_nobody(service: PrimaryService, transaction: ClientTransaction) -> None:
    transaction.write("UPDATE t SET a = 'mine'")
    for number in range(3):
        service.write(f"UPDATE t SET a = '{number}'")
    assert rows(service) == [(1, "2"), (2, "2")]


def test_bound_rows_and_moved_keys_are_committed_as_they_were_written(
    service: PrimaryService, transaction: ClientTransaction
) -> None:
    bound = pa.table({"1": range(10, 300), "2": ["x"] * 290})
    assert transaction.write("INSERT INTO t VALUES (?, ?)", bound).rows_affected == 290
    transaction.write("UPDATE t SET id = id + 1000 WHERE id >= 10")
    assert transaction.commit() == {"t": 2 + 290 + 2 * 290}
    assert rows(service) == [(1, "a"), (2, "b"), *((n + 1000, "x") for n in range(10, 300))]


def test_changes_beyond_the_limit_are_refused_and_the_rest_stays(
    service: PrimaryService, transaction: ClientTransaction
) -> None:
    transaction.write("INSERT INTO t VALUES (3, 'c')")
    with pytest.raises(LimitExceeded, match="transaction_bytes_max, 100000 bytes"):
        transaction.write("UPDATE t SET a = ?", pa.table({"1": ["x" * 90_000]}))
    transaction.commit()
    assert rows(service) == [(1, "a"), (2, "b"), (3, "c")]


def test_a_snapshot_transaction_writes_its_moment_or_not_at_all(service: PrimaryService) -> None:
    with service.open_view(["t"]) as view:
        first, second = service.begin(view.positions), service.begin(view.positions)
    first.write("UPDATE t SET a = 'first' WHERE id = 1")
    first.commit()
    with pytest.raises(Conflict, match="at seq 2 in the transaction's snapshot and is at seq 3 now"):
        second.write("INSERT INTO t VALUES (5, 'second')")


def test_random_transactions_leave_what_the_committed_ones_did(service: PrimaryService) -> None:
    """Each statement's effect is worked out twice: in the store, and from the feed by the model."""
    chosen = random.Random(4)
    open_ones: list[ClientTransaction] = []
    outcomes = {"committed": 0, "conflicts": 0}
    for _ in range(150):
        step = chosen.random()
        key = chosen.randrange(12)
        sql = chosen.choice(
            [
                f"INSERT OR REPLACE INTO t VALUES ({key}, '{step}')",
                f"DELETE FROM t WHERE id = {key}",
                f"UPDATE t SET a = a || '+' WHERE id % 6 = {key % 6}",
            ]
        )
        if step < 0.2:
            open_ones.append(service.engine.begin())
        elif step < 0.4 or not open_ones:
            service.write(sql)
        else:
            transaction = chosen.choice(open_ones)
            try:
                if step < 0.8:
                    transaction.write(sql)
                else:
                    open_ones.remove(transaction)
                    outcomes["committed"] += bool(transaction.commit())
            except Conflict:
                outcomes["conflicts"] += 1
    model, feed = TableModel(), service.feed("t")
    while model.visible_seq < feed.high_water:
        model.apply_batch(feed.read(model.visible_seq, None, BYTES))
    assert rows(service) == [tuple(row.values()) for row in model.sorted_rows()]
    assert min(outcomes.values()) > 0
