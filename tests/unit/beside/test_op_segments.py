"""Recent ops in files: what was appended comes back, also after a kill at any byte."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from flight_replica.beside.op_segments import OpSegments, StoredOps
from flight_replica.errors import ConfigError, FeedError
from flight_replica.log.source import Op
from flight_replica.schema import Column, TableSchema
from tests.bases import ID_V, op_batch

WIDER = TableSchema((*ID_V.columns, Column("w", pa.int64(), default=7)), ("id",))


def stored(first: int, last: int, after: int | None = None, schema: TableSchema = ID_V) -> StoredOps:
    rows = [(seq, Op.INSERT, {"id": seq, "v": -seq}) for seq in range(first, last + 1)]
    hashes = np.arange(first, last + 1, dtype=np.uint64) * np.uint64(10)
    return StoredOps(first - 1 if after is None else after, last, op_batch(schema, rows), hashes, last * 1000)


def filled(directory: Path, bytes_max: int = 1 << 20) -> OpSegments:
    """Seqs 4 to 12 in frames of three, after seq 3."""
    segments = OpSegments(directory, bytes_max)
    segments.restart(3, ID_V)
    for first in (4, 7, 10):
        segments.append(stored(first, first + 2), ID_V)
    return segments


def seqs_from(segments: OpSegments, since: int) -> list[int]:
    found: list[int] = []
    while (part := segments.next_after(since)) is not None:
        found += part.ops.column(0).to_pylist()
        since = part.through
    return found


def test_what_was_appended_is_there_after_closing(tmp_path: Path) -> None:
    filled(tmp_path).close()
    again = OpSegments(tmp_path, 1 << 20)
    assert (again.start, again.end) == (3, 12)
    assert seqs_from(again, 3) == list(range(4, 13))
    part = again.next_after(8)
    assert part is not None and (part.after, part.through, part.seen_time_us) == (6, 9, 9000)
    assert part.ops.equals(stored(7, 9).ops)
    again.append(stored(13, 13), ID_V)
    assert again.end == 13
    again.close()


def test_the_hashes_of_a_range_come_with_their_seqs(tmp_path: Path) -> None:
    segments = filled(tmp_path)
    seqs, hashes = segments.hashes(5, 11)
    assert seqs.tolist() == list(range(6, 12))
    assert hashes.tolist() == [seq * 10 for seq in range(6, 12)]
    segments.close()


def test_a_kill_at_any_byte_leaves_whole_frames(tmp_path: Path) -> None:
    filled(tmp_path / "whole").close()
    (path,) = (tmp_path / "whole").iterdir()
    data = path.read_bytes()
    for size in range(len(data)):
        directory = tmp_path / str(size)
        directory.mkdir()
        (directory / path.name).write_bytes(data[:size])
        cut = OpSegments(directory, 1 << 20)
        if not cut.is_empty:
            assert cut.start == 3 and cut.end in (3, 6, 9)
            assert seqs_from(cut, 3) == list(range(4, cut.end + 1))
            cut.append(stored(cut.end + 1, cut.end + 2), ID_V)
            assert seqs_from(cut, 3) == list(range(4, cut.end + 1))
        cut.close()
        for left in directory.iterdir():
            left.unlink()


def test_a_flipped_byte_is_an_error_or_the_end_and_never_another_op(tmp_path: Path) -> None:
    filled(tmp_path / "whole").close()
    (path,) = (tmp_path / "whole").iterdir()
    whole = path.read_bytes()
    path = tmp_path / "flipped" / path.name
    path.parent.mkdir()
    for place in range(0, len(whole), 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        try:
            segments = OpSegments(path.parent, 1 << 20)
            found = [] if segments.is_empty else seqs_from(segments, segments.start)
            segments.close()
        except (ConfigError, FeedError):
            continue
        assert found == list(range(4, 4 + len(found))), place


def test_a_full_store_gives_up_its_oldest_segments_but_none_past_the_bound(tmp_path: Path) -> None:
    segments = OpSegments(tmp_path, 8_000)
    segments.restart(0, ID_V)
    for seq in range(1, 101):
        segments.append(stored(seq, seq), ID_V)
    assert segments.excess(0) == 0
    bound = segments.excess(40)
    assert 0 < bound <= 40
    newest = segments.excess(100)
    segments.trim(newest)
    assert segments.start == newest > 40
    assert seqs_from(segments, newest) == list(range(newest + 1, 101))
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 8_000
    segments.close()
    again = OpSegments(tmp_path, 8_000)
    assert (again.start, again.end) == (newest, 100)
    again.close()


def test_a_new_schema_begins_a_new_segment(tmp_path: Path) -> None:
    segments = filled(tmp_path)
    rows = op_batch(WIDER, [(13, Op.INSERT, {"id": 13, "v": 0, "w": 1})])
    segments.append(StoredOps(12, 13, rows, np.array([130], np.uint64), 0), WIDER)
    segments.close()
    again = OpSegments(tmp_path, 1 << 20)
    part = again.next_after(12)
    assert part is not None and part.ops.schema.names == [*WIDER.feed_schema.names]
    assert len(list(tmp_path.iterdir())) == 2
    again.close()


def test_beginning_anew_forgets_everything(tmp_path: Path) -> None:
    segments = filled(tmp_path)
    segments.restart(20, ID_V)
    assert (segments.start, segments.end) == (20, 20)
    assert segments.next_after(0) is not None and seqs_from(segments, 0) == []
    segments.close()
    again = OpSegments(tmp_path, 1 << 20)
    assert (again.start, again.end) == (20, 20)
    again.close()


def test_a_folder_of_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "000000000001.ops").write_bytes(b"something else, longer than a head")
    with pytest.raises(ConfigError, match="isn't a file of this program's"):
        OpSegments(tmp_path, 1 << 20)
