"""Which rows survive: masks first, then the highest seq of each key, then tombstones."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flight_replica.base.newest import Versions, dead_rows
from flight_replica.errors import BaseError

Row = tuple[bytes, int, bool]  # key, seq, is put
NOTHING = np.empty(0, np.int64)


def internal_key(key: bytes, seq: int, op: int) -> bytes:
    return key + ((2**56 - 1 - seq) << 8 | op).to_bytes(8, "big")


def versions(*rows: Row) -> Versions:
    ikeys = [internal_key(key, seq, int(is_put)) for key, seq, is_put in rows]
    return Versions.from_internal_keys(pa.chunked_array([ikeys[:1], ikeys[1:]], pa.binary()), "x")


def dead(*files: Versions) -> list[list[int]]:
    return [positions.tolist() for positions in dead_rows(files, [NOTHING] * len(files))]


@pytest.mark.parametrize("seq", [0, 1, 255, 256, 1_000_000, 2**56 - 1])
def test_internal_key_splits_into_key_seq_and_op(seq: int) -> None:
    found = versions((b"", seq, True), (b"\0\xff\0\0", seq, False))
    assert found.keys.to_pylist() == [b"", b"\0\xff\0\0"]
    assert found.seqs.tolist() == [seq, seq]
    assert found.is_put.tolist() == [True, False]


@pytest.mark.parametrize(
    ("ikey", "message"),
    [(b"1234567", "of 7 bytes, need at least 8"), (internal_key(b"k", 1, 2), "op 2, expected 0 or 1")],
)
def test_impossible_internal_key_is_refused(ikey: bytes, message: str) -> None:
    with pytest.raises(BaseError, match=message):
        Versions.from_internal_keys(pa.chunked_array([[ikey]], pa.binary()), "x")


@pytest.mark.statement(125)
def test_tombstone_hides_the_put_of_another_file_and_itself() -> None:
    assert dead(versions((b"a", 1, True), (b"b", 2, True)), versions((b"b", 3, False))) == [[1], [0]]


def test_masked_rows_are_gone_before_the_newest_is_chosen() -> None:
    files = [versions((b"a", 1, True)), versions((b"a", 2, True))]
    assert [p.tolist() for p in dead_rows(files, [NOTHING, np.array([0])])] == [[], [0]]


def test_masked_positions_past_the_last_row_do_nothing() -> None:
    (positions,) = dead_rows([versions((b"a", 1, True))], [np.array([1, 900])])
    assert positions.tolist() == []


def test_of_the_same_version_in_two_files_one_stays() -> None:
    assert dead(versions((b"a", 1, True)), versions((b"a", 1, True))) == [[], [0]]


def test_several_versions_of_a_key_in_one_file_leave_the_newest() -> None:
    assert dead(versions((b"a", 3, True), (b"a", 2, True), (b"b", 1, True))) == [[1]]


def test_files_without_rows_are_fine() -> None:
    assert dead() == []
    assert dead(versions()) == [[]]
    assert dead(versions(), versions((b"a", 1, True))) == [[], []]


rows = st.tuples(st.sampled_from([b"", b"a", b"aa", b"b"]), st.integers(1, 12), st.integers(0, 2).map(bool))


@given(
    st.lists(st.lists(rows, max_size=8), max_size=4), st.sets(st.tuples(st.integers(0, 3), st.integers(0, 7)))
)
def test_survivors_are_those_of_the_obvious_loop(files: list[list[Row]], masks: set[tuple[int, int]]) -> None:
    op_of = {(key, seq): is_put for file in files for key, seq, is_put in file}  # one op a key and seq
    files = [[(key, seq, op_of[key, seq]) for key, seq, _ in file] for file in files]
    newest: dict[bytes, tuple[int, bool]] = {}
    for number, file in enumerate(files):
        for position, (key, seq, is_put) in enumerate(file):
            if (number, position) not in masks and seq > newest.get(key, (0, False))[0]:
                newest[key] = (seq, is_put)
    masked = [np.array(sorted(p for n, p in masks if n == number), np.int64) for number in range(len(files))]

    gone = dead_rows([versions(*file) for file in files], masked)

    survivors = sorted(
        row
        for file, positions in zip(files, gone, strict=True)
        for position, row in enumerate(file)
        if position not in positions
    )
    assert survivors == sorted((key, seq, True) for key, (seq, is_put) in newest.items() if is_put)
