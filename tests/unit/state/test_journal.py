"""Ops that wait in memory, as a later process finds them: all of them, in order, or up to where they end."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from flight_replica.state.journal import Journal, JournalRecord
from tests.bases import ID_V, assert_same, op_batch, put


def record(after: int, through: int) -> JournalRecord:
    ops = op_batch(ID_V, [(seq, *put(seq % 3, seq)) for seq in range(after + 1, through + 1)])
    return JournalRecord(after, through, through * 10, ops)


def assert_read(paths: tuple[Path, Path], after: int, expected: list[JournalRecord]) -> None:
    found = Journal(paths).read(after)
    assert [(r.after, r.through, r.commit_time_us) for r in found] == [
        (r.after, r.through, r.commit_time_us) for r in expected
    ]
    for one, other in zip(found, expected, strict=True):
        assert_same(one.ops, other.ops)


@pytest.fixture
def paths(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "t.ops1", tmp_path / "t.ops2"


@pytest.fixture
def journal(paths: tuple[Path, Path]) -> Iterator[Journal]:
    with closing(Journal(paths)) as made:
        yield made


FIRST, SECOND, THIRD, EMPTY = record(5, 6), record(6, 9), record(9, 10), record(10, 15)


def test_what_was_kept_is_read_from_where_the_table_is(journal: Journal, paths: tuple[Path, Path]) -> None:
    assert_read(paths, 5, [])
    for kept in (FIRST, SECOND, THIRD, EMPTY):
        journal.append(kept)
    assert_read(paths, 5, [FIRST, SECOND, THIRD, EMPTY])
    assert_read(paths, 9, [THIRD, EMPTY])
    assert_read(paths, 8, [SECOND, THIRD, EMPTY])  # of which the table takes what it lacks
    assert_read(paths, 15, [])
    assert_read(paths, 4, [])  # what lies between isn't here


def test_what_the_table_has_goes_and_what_came_meanwhile_stays(
    journal: Journal, paths: tuple[Path, Path]
) -> None:
    journal.append(FIRST)
    journal.turn()
    journal.append(SECOND)
    assert_read(paths, 5, [FIRST, SECOND])
    journal.turn()  # the table didn't take the first
    journal.append(THIRD)
    assert_read(paths, 5, [FIRST, SECOND, THIRD])
    journal.forget()
    assert_read(paths, 5, [])
    assert_read(paths, 6, [SECOND, THIRD])
    journal.turn()
    journal.forget()
    assert [path.stat().st_size for path in paths] == [0, 0]
    journal.append(EMPTY)
    journal.clear()
    assert [path.stat().st_size for path in paths] == [0, 0]


def test_a_later_process_goes_on_with_the_files(paths: tuple[Path, Path]) -> None:
    with closing(Journal(paths)) as first:
        first.append(FIRST)
        first.turn()
        first.append(SECOND)
    with closing(Journal(paths)) as second:
        for kept in (FIRST, SECOND):  # which wait again
            second.append(kept)
        second.append(THIRD)
        assert_read(paths, 5, [FIRST, SECOND, THIRD])
        for _ in range(2):
            second.turn()
            second.forget()
        assert [path.stat().st_size for path in paths] == [0, 0]


def test_a_record_that_was_written_in_part_ends_what_is_read(
    journal: Journal, paths: tuple[Path, Path]
) -> None:
    journal.append(FIRST)
    whole = paths[0].stat().st_size
    journal.append(SECOND)
    content = paths[0].read_bytes()
    for end in (whole, whole + 1, whole + 40, len(content) - 1):
        paths[0].write_bytes(content[:end])
        assert_read(paths, 5, [FIRST])
    for place in (whole + 8, whole + 200, len(content) - 9):
        paths[0].write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        assert_read(paths, 5, [FIRST])


def test_where_the_disk_takes_no_more_the_rest_just_comes_again(
    journal: Journal, paths: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    paths[0].symlink_to("/dev/full")
    with caplog.at_level(logging.WARNING):
        journal.append(FIRST)
        journal.append(SECOND)
    assert caplog.text.count("waiting ops not kept on disk file=t.ops1 reason=") == 1
    journal.turn()
    journal.append(THIRD)
    paths[0].unlink()
    assert_read(paths, 5, [])
    assert_read(paths, 9, [THIRD])
