"""A directory of logs read beside the engine that writes it: rotation, removal, restart, damage."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from flight_replica.beside import engine_log, log_directory, log_file
from flight_replica.beside.engine_log import EngineLog
from flight_replica.errors import ChangedLog, Closed, DamagedLog, FeedError, LimitExceeded, MissedLog
from tests.log_writing import BLOCK, PUT, LogOp, LogWriter, batch, int_key, pieces, row


def put(number: int, size: int = 0) -> LogOp:
    return PUT, int_key(number), row(number, bytes(size))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "wal"


@pytest.fixture
def writer(directory: Path) -> Iterator[LogWriter]:
    found = LogWriter(directory)
    yield found
    found.close()


@pytest.fixture
def log(directory: Path) -> Iterator[EngineLog]:
    found = EngineLog(directory)
    yield found
    found.close()


def seqs(log: EngineLog) -> list[int]:
    """The seqs of everything that is new."""
    found: list[int] = []
    while batches := log.read_new():
        found += [seq for each in batches for seq in range(each.first_seq, each.last_seq + 1)]
    return found


def write(writer: LogWriter, count: int) -> None:
    for _ in range(count):
        writer.write([put(writer.next_seq)])


def damage(log: EngineLog) -> DamagedLog:
    """What stops the log, at the second look at the latest: a cut-off end may be one that grows."""
    with pytest.raises(DamagedLog) as found:
        for _ in range(2):
            seqs(log)
    return found.value


# --- the engine at work -----------------------------------------------------------------------------


def test_each_batch_comes_once_and_whole(writer: LogWriter, log: EngineLog) -> None:
    assert log.read_new() == []
    writer.write([put(1), put(2)])
    (first,) = log.read_new()
    assert (first.first_seq, first.last_seq, first.file_number, first.offset) == (1, 2, 1, 0)
    writer.write([put(3)])
    assert seqs(log) == [3] and seqs(log) == []
    assert (log.oldest_first_seq, log.newest_seq, log.pending) == (1, 3, None)


def test_a_header_without_its_payload_and_a_first_fragment_without_its_last_are_waited_for(
    writer: LogWriter, log: EngineLog
) -> None:
    for size in (0, 2 * BLOCK):
        *begun, last = writer.steps([put(1, size)])
        for piece in begun:
            writer.append(piece)
            for _ in range(3):
                assert log.read_new() == []
            assert log.pending is not None and "000001.wal, offset" in log.pending
        writer.append(last)
        assert len(seqs(log)) == 1 and log.pending is None


def test_the_next_file_is_read_once_the_engine_has_rotated(writer: LogWriter, log: EngineLog) -> None:
    write(writer, 3)
    assert seqs(log) == [1, 2, 3]
    write(writer, 1)
    writer.rotate()
    writer.rotate()  # an empty memtable's flush
    write(writer, 2)
    assert seqs(log) == [4, 5, 6]


def test_a_file_that_is_removed_is_read_to_its_end_first(writer: LogWriter, log: EngineLog) -> None:
    write(writer, 1)
    assert seqs(log) == [1]
    write(writer, 2)
    first = writer.rotate()
    write(writer, 1)
    assert log.read_new()[0].first_seq == 2
    write(writer, 1)
    second = writer.rotate()
    log.read_new()
    write(writer, 1)
    first.unlink()
    second.unlink()
    assert seqs(log) == [6], "both were open"


def test_it_starts_with_the_oldest_file_that_is_there(writer: LogWriter, log: EngineLog) -> None:
    write(writer, 2)
    writer.rotate().unlink()
    write(writer, 2)
    writer.rotate()
    write(writer, 1)
    assert seqs(log) == [3, 4, 5] and log.oldest_first_seq == 3


def test_an_empty_later_file_does_not_end_the_one_before(
    writer: LogWriter, log: EngineLog, directory: Path
) -> None:
    """A read-only open leaves one; the engine writes on, and uses that very file when it rotates."""
    write(writer, 1)
    (directory / "000002.wal").touch()
    assert seqs(log) == [1]
    write(writer, 2)
    assert seqs(log) == [2, 3]
    writer.rotate()
    write(writer, 1)
    assert seqs(log) == [4]


def test_names_that_are_no_logs_are_ignored_and_numbers_count_not_names(
    writer: LogWriter, log: EngineLog, directory: Path
) -> None:
    write(writer, 1)
    for name in ("000099.wal.tmp", "notes.txt", "-3.wal", "x7.wal", "7.WAL"):
        (directory / name).write_bytes(b"no log")
    (directory / "000098.wal").mkdir()
    (directory / "12.wal").touch()  # by its name it comes last, by its number too
    last = LogWriter(directory, 100)
    last.write([put(2)], first_seq=2)
    last.close()
    assert seqs(log) == [1, 2]


def test_nothing_in_the_directory_is_changed(writer: LogWriter, log: EngineLog, directory: Path) -> None:
    write(writer, 3)
    writer.rotate()

    def state() -> list[tuple[object, ...]]:
        found = [os.stat(directory), *(os.stat(path) for path in sorted(directory.iterdir()))]
        return [(each.st_ino, each.st_size, each.st_mtime_ns, each.st_ctime_ns) for each in found]

    before = state()
    log.wait(0.01)
    seqs(log)
    log.close()
    assert state() == before


def test_a_directory_that_is_not_there_yet_has_nothing_new(log: EngineLog, directory: Path) -> None:
    assert log.read_new() == [] and not log.wait(0.01)
    writer = LogWriter(directory)
    write(writer, 1)
    assert log.wait(10) and seqs(log) == [1]
    writer.close()


def test_a_call_is_bounded_and_says_that_there_is_more(
    writer: LogWriter, log: EngineLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_log, "CALL_BYTES_MAX", 4 * BLOCK)
    monkeypatch.setattr(engine_log, "READ_BYTES", 2 * BLOCK)
    for _ in range(100):
        writer.write([put(writer.next_seq, 4000)])
    assert 0 < len(log.read_new()) < 50
    assert log.wait(0), "there is more"
    writer.write([put(101, 20 * BLOCK)])
    assert seqs(log)[-1] == 101, "a batch larger than a call is given whole"


def test_more_files_than_are_held_open_are_read_all_the_same(
    writer: LogWriter, log: EngineLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_directory, "OPEN_FILES_MAX", 3)
    for _ in range(10):
        write(writer, 1)
        writer.rotate()
    assert seqs(log) == list(range(1, 11))


def test_after_close_every_read_is_refused_and_no_wait_hangs(writer: LogWriter, log: EngineLog) -> None:
    write(writer, 1)
    log.close()
    assert log.wait(60)
    with pytest.raises(Closed):
        log.read_new()
    log.close()


def test_a_batch_past_the_limit_is_refused_for_good_and_costs_no_more_memory(
    writer: LogWriter, log: EngineLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_file, "BATCH_BYTES_MAX", 4 * BLOCK)
    write(writer, 1)
    writer.write([put(2, 6 * BLOCK)])
    for _ in range(3):
        with pytest.raises(LimitExceeded, match=r"000001.wal, offset 38: a batch of more than 131072 bytes"):
            seqs(log)


def read_until_it_fails(log: EngineLog, found: list[BaseException]) -> None:
    try:
        while True:
            log.wait(0.001)
            seqs(log)
    except BaseException as error:
        found.append(error)


def test_a_close_amid_reads_ends_them_cleanly(writer: LogWriter, directory: Path) -> None:
    for _ in range(200):
        writer.write([put(writer.next_seq, 20_000)])
    for pause in (0, 0.001, 0.005):
        log, found = EngineLog(directory), list[BaseException]()
        thread = threading.Thread(target=read_until_it_fails, args=(log, found))
        thread.start()
        threading.Event().wait(pause)
        log.close()
        thread.join(60)
        assert [type(error) for error in found] == [Closed]


# --- files that are gone ----------------------------------------------------------------------------


def test_a_file_that_came_and_went_unread_is_told_at_once(writer: LogWriter, log: EngineLog) -> None:
    write(writer, 2)
    assert seqs(log) == [1, 2]
    writer.rotate()
    write(writer, 2)
    writer.rotate().unlink()
    with pytest.raises(MissedLog, match=r"000003.wal: 000002.wal came and went unread after seq 2") as found:
        log.read_new()
    assert (found.value.after_seq, found.value.before_seq) == (2, None)
    log.pass_over(covered_through=4)
    write(writer, 1)
    assert seqs(log) == [5]


def test_ops_that_the_files_cover_are_no_damage_in_the_log_of_the_server(
    writer: LogWriter, log: EngineLog, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    write(writer, 2)
    assert seqs(log) == [1, 2]
    writer.rotate()
    write(writer, 2)
    writer.rotate().unlink()
    write(writer, 1)
    with pytest.raises(MissedLog):
        log.read_new()
    log.pass_over(covered_through=4)
    assert seqs(log) == [5]
    (record,) = caplog.records
    assert record.levelname == "INFO" and "damage" not in record.message
    assert "after_seq=2 covered_through=4" in record.message


def test_what_was_missed_is_told_more_precisely_once_the_log_goes_on(
    writer: LogWriter, log: EngineLog
) -> None:
    write(writer, 2)
    assert seqs(log) == [1, 2]
    writer.rotate()
    write(writer, 2)
    writer.rotate().unlink()
    for _ in range(2):
        with pytest.raises(MissedLog, match="came and went unread"):
            log.read_new()
    write(writer, 1)
    with pytest.raises(MissedLog, match="seq 5 follows seq 2") as found:
        log.read_new()
    assert (found.value.after_seq, found.value.before_seq) == (2, 5)


def test_what_the_caller_covers_must_reach_to_where_the_log_goes_on(
    writer: LogWriter, log: EngineLog
) -> None:
    write(writer, 2)
    assert seqs(log) == [1, 2]
    writer.rotate()
    write(writer, 2)
    writer.rotate().unlink()
    write(writer, 1)
    for covered in (2, 3):
        with pytest.raises(
            MissedLog, match=r"seq 5 follows seq .: ops . to 4 are gone with 000002.wal"
        ) as found:
            log.read_new()
        assert (found.value.after_seq, found.value.before_seq) == (covered, 5)
        log.pass_over(covered_through=covered + 1)
    assert seqs(log) == [5]


def test_an_empty_file_that_came_and_went_is_no_loss(writer: LogWriter, log: EngineLog) -> None:
    write(writer, 2)
    assert seqs(log) == [1, 2]
    writer.rotate()
    writer.rotate().unlink()
    write(writer, 1)
    assert seqs(log) == [3]


def test_a_number_without_a_file_at_the_start_counts_only_when_seqs_are_missing(
    writer: LogWriter, log: EngineLog
) -> None:
    write(writer, 1)
    writer.rotate()
    writer.rotate().unlink()
    write(writer, 1)
    writer.rotate()
    write(writer, 1)
    writer.rotate().unlink()
    write(writer, 1)
    assert log.read_new()[-1].last_seq == 2
    with pytest.raises(MissedLog, match=r"000005.wal, offset 0: seq 4 follows seq 2: .* with 000004.wal"):
        log.read_new()


def test_a_table_made_anew_is_another_log(writer: LogWriter, log: EngineLog, directory: Path) -> None:
    write(writer, 2)
    assert seqs(log) == [1, 2]
    shutil.rmtree(directory)
    with pytest.raises(FeedError, match="is gone"):
        log.read_new()
    anew = LogWriter(directory)
    write(anew, 1)
    assert "000001.wal is another file than the one that was read" in str(damage(log))
    log.pass_over()
    assert seqs(log) == [1]
    anew.close()


def test_a_lower_number_than_the_newest_that_appears_is_another_log(directory: Path, log: EngineLog) -> None:
    writer = LogWriter(directory, 7)
    write(writer, 1)
    assert seqs(log) == [1]
    writer.close()
    for path in directory.iterdir():
        path.unlink()
    assert log.read_new() == []
    anew = LogWriter(directory)
    assert "000001.wal appeared after 000007.wal was there" in str(damage(log))
    anew.close()


# --- restarts and damage ----------------------------------------------------------------------------


def test_a_torn_end_that_a_kill_left_is_passed_by_when_the_engine_goes_on(
    writer: LogWriter, log: EngineLog
) -> None:
    write(writer, 2)
    header, payload = writer.steps([put(3)])
    writer.append(header + payload[:5])
    assert seqs(log) == [1, 2]
    writer.rotate()  # the restarted engine; the op of seq 3 was never acknowledged
    assert log.read_new() == []
    writer.write([put(3)], first_seq=3)
    assert seqs(log) == [3] and log.accepted == []


def test_a_torn_end_in_front_of_a_jump_has_lost_ops(writer: LogWriter, log: EngineLog) -> None:
    write(writer, 2)
    header, payload = writer.steps([put(3)])
    writer.append(header + payload[:5])
    writer.rotate()
    write(writer, 1)
    error = damage(log)
    assert "000002.wal, offset 0: seq 4 follows seq 2: ops 3 to 3 are gone" in str(error)
    assert "000001.wal ends at" in str(error) and "5 of" in str(error)
    assert (error.after_seq, error.before_seq) == (2, 4)


def test_seqs_that_the_engine_gives_out_again_come_again(writer: LogWriter, log: EngineLog) -> None:
    write(writer, 4)
    assert seqs(log) == [1, 2, 3, 4]
    writer.rotate()  # after a power cut took 3 and 4 back
    writer.write([put(30)], first_seq=3)
    assert seqs(log) == [3] and log.newest_seq == 3
    writer.rotate()
    writer.write([put(9)], first_seq=9)
    assert "seq 9 follows seq 3" in str(damage(log))


def test_a_record_that_is_there_twice_comes_twice(writer: LogWriter, log: EngineLog) -> None:
    write(writer, 3)
    writer.write([put(2)], first_seq=2)
    writer.rotate()
    writer.write([put(4)], first_seq=4)
    assert seqs(log) == [1, 2, 3, 2, 4]


def test_a_jump_between_records_that_touch_is_a_failed_append(writer: LogWriter, log: EngineLog) -> None:
    write(writer, 1)
    writer.write([put(5)], first_seq=5)
    assert seqs(log) == [1, 5]


def test_a_bad_record_at_the_end_of_the_newest_log_is_waited_for(writer: LogWriter, log: EngineLog) -> None:
    write(writer, 1)
    header, payload = writer.steps([put(2)])
    writer.append(header + payload[:-1] + b"?")
    for _ in range(3):
        assert 1 not in seqs(log)[1:] and log.pending is not None and "checksum" in log.pending
    write(writer, 1)
    assert "and a right record behind it" in str(damage(log))


def test_a_bad_record_counts_when_there_is_a_later_log(writer: LogWriter, log: EngineLog) -> None:
    write(writer, 1)
    header, payload = writer.steps([put(2)])
    writer.append(header + payload[:-1] + b"?")
    assert seqs(log) == [1]
    writer.rotate()
    assert "in a log that isn't the newest" in str(damage(log))


@pytest.mark.parametrize("count", [1, 3, 40])
def test_a_wrong_length_that_looks_like_an_unfinished_record_is_found_out(
    writer: LogWriter, log: EngineLog, count: int
) -> None:
    write(writer, 1)
    header, payload = writer.steps([put(2)])
    writer.append(header[:4] + b"\x00\x40" + header[6:] + payload)  # 16384 bytes are said to follow
    assert seqs(log) == [1]
    for _ in range(count):
        writer.write([put(writer.next_seq, 500)])
    assert "and a right record behind it" in str(damage(log))


def test_what_a_failed_append_left_behind_stops_the_log(writer: LogWriter, log: EngineLog) -> None:
    """The writer goes on as if its bytes weren't there, so its blocks and the file's are apart."""
    write(writer, 1)
    end = writer.path.stat().st_size
    header, payload = writer.steps([put(2)])
    writer.append(header + payload[:7])
    for piece in pieces(batch(3, [put(3)]), end):
        writer.append(piece)
    error = damage(log)
    assert error.offset == end and "and a right record behind it" in str(error)


def test_a_block_of_zeros_is_passed_by_when_no_seq_is_missing_behind_it(
    directory: Path, log: EngineLog
) -> None:
    directory.mkdir()
    first = b"".join(pieces(batch(1, [put(1)]), 0))
    zeros = bytes(BLOCK - len(first))
    path = directory / "000001.wal"
    path.write_bytes(first + zeros + b"".join(pieces(batch(2, [put(2)]), BLOCK)))
    assert seqs(log) == [1, 2]


def test_a_block_of_zeros_in_front_of_a_jump_has_lost_ops(directory: Path, log: EngineLog) -> None:
    directory.mkdir()
    first = b"".join(pieces(batch(1, [put(1)]), 0))
    zeros = bytes(BLOCK - len(first))
    (directory / "000001.wal").write_bytes(first + zeros + b"".join(pieces(batch(3, [put(3)]), BLOCK)))
    assert "behind a block that ends with zeros, seq 3 follows seq 1: ops 2 to 2 are gone" in str(damage(log))


def test_a_file_that_became_shorter_is_damaged(writer: LogWriter, log: EngineLog) -> None:
    write(writer, 2)
    assert seqs(log) == [1, 2]
    os.truncate(writer.path, 10)
    assert "000001.wal, offset 10: 10 bytes are there" in str(damage(log))


def test_accepted_damage_is_recovered_from_as_the_engine_does_and_told(
    writer: LogWriter, directory: Path
) -> None:
    write(writer, 1)
    header, payload = writer.steps([put(2)])
    writer.append(header + payload[:-1] + b"?")
    write(writer, 2)
    writer.rotate()
    write(writer, 2)
    log = EngineLog(directory, accept_damage=True)
    assert seqs(log) == [1, 5, 6], "the rest of that file is dropped"
    (accepted,) = log.accepted
    assert accepted.file == "000001.wal" and accepted.after_seq == 1
    log.close()


# --- what was read changes ----------------------------------------------------------------------------


def flip(path: Path, offset: int) -> None:
    """One byte, in place: the engine's own descriptor and the reader's see it."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_byte_of_any_log_that_was_read_and_changed_is_told_when_the_engine_starts_again(
    writer: LogWriter, log: EngineLog, directory: Path, number: int
) -> None:
    for _ in range(2):
        write(writer, 3)
        writer.rotate()
    write(writer, 3)
    assert seqs(log) == list(range(1, 10))
    flip(directory / f"{number:06}.wal", 40)
    assert seqs(log) == [], "nobody reads it"
    writer.rotate()
    with pytest.raises(ChangedLog, match=rf"log 00000{number}.wal: of the 114 bytes that were read some are"):
        log.read_new()
    log.pass_over()
    error = damage(log)
    assert error.file == f"{number:06}.wal" and "checksum" in error.reason


def test_a_changed_log_that_is_flushed_away_at_once_is_told_all_the_same(
    writer: LogWriter, log: EngineLog, directory: Path
) -> None:
    write(writer, 3)
    writer.rotate()
    write(writer, 1)
    assert seqs(log) == [1, 2, 3, 4]
    flip(directory / "000001.wal", 40)
    (directory / "000001.wal").unlink()
    with pytest.raises(ChangedLog, match=r"log 000001.wal"):
        log.read_new()


def test_a_log_that_lost_its_end_after_it_was_read_is_told(
    writer: LogWriter, log: EngineLog, directory: Path
) -> None:
    write(writer, 3)
    writer.rotate()
    write(writer, 1)
    assert seqs(log) == [1, 2, 3, 4]
    os.truncate(directory / "000001.wal", 38)
    writer.rotate()
    with pytest.raises(ChangedLog, match=r"log 000001.wal"):
        log.read_new()


def test_logs_that_stay_as_they_were_read_are_never_read_again_whatever_comes_and_goes(
    writer: LogWriter, directory: Path
) -> None:
    log = EngineLog(directory)
    found: list[int] = []
    paths: list[Path] = []
    for number in range(12):
        writer.write([put(writer.next_seq, number * 10_000)])
        write(writer, 2)
        if number == 5:  # zeros that fill a block
            writer.append(bytes(-writer.path.stat().st_size % BLOCK))
        paths.append(writer.rotate())
        found += seqs(log)
        if number % 3 == 2:
            paths.pop(0).unlink()
    assert found == list(range(1, 37)) and log.accepted == []
    log.close()


def test_a_changed_log_is_never_accepted_unread(writer: LogWriter, directory: Path) -> None:
    log = EngineLog(directory, accept_damage=True)
    write(writer, 3)
    writer.rotate()
    write(writer, 3)
    assert seqs(log) == [1, 2, 3, 4, 5, 6]
    flip(directory / "000001.wal", 50)
    writer.rotate()
    with pytest.raises(ChangedLog):
        log.read_new()
    log.pass_over()
    assert seqs(log) == [1, 4, 5, 6], "as the engine recovers"
    assert [each.file for each in log.accepted] == ["000001.wal", "000001.wal"]
    log.close()


def test_of_the_files_that_were_read_only_so_many_stay_open(
    writer: LogWriter, log: EngineLog, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_directory, "READ_FILES_MAX", 2)
    for _ in range(5):
        write(writer, 1)
        writer.rotate()
    write(writer, 1)
    assert seqs(log) == [1, 2, 3, 4, 5, 6]
    flip(directory / "000001.wal", 20)
    writer.rotate()
    assert seqs(log) == [], "too long ago"
    flip(directory / "000005.wal", 20)
    writer.rotate()
    with pytest.raises(ChangedLog, match=r"000005.wal"):
        log.read_new()


def test_a_wake_ends_a_wait(log: EngineLog) -> None:
    log.wake()
    assert log.wait(60)


def test_a_record_that_is_completed_while_its_end_is_looked_at_is_no_damage(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = LogWriter(tmp_path / "whole")
    write(whole, 1)
    header_end = (tmp_path / "whole" / "000001.wal").stat().st_size + 7
    write(whole, 2)
    whole.close()
    data = (tmp_path / "whole" / "000001.wal").read_bytes()
    directory.mkdir()
    path = directory / "000001.wal"
    path.write_bytes(data[:header_end])
    log = EngineLog(directory)
    assert seqs(log) == [1]
    looks = 0
    read = log_directory.OpenLog.read

    def read_then_write(self: log_directory.OpenLog, position: int, byte_count: int) -> bytes:
        nonlocal looks
        looks += 1
        found = read(self, position, byte_count)
        if looks == 2:  # the end was decoded, and read again to be sure
            path.write_bytes(data)
        return found

    monkeypatch.setattr(log_directory.OpenLog, "read", read_then_write)
    assert seqs(log) == [2, 3]
    log.close()
