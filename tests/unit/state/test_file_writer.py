"""`FileWriter`: a file out of a database of its own, at low priority, and how it is given up."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import duckdb
import pytest

from flight_replica.errors import Closed
from flight_replica.sql.memory import database_memory
from flight_replica.state.file_writer import MEMORY_SHARE, NICENESS, THREAD_SHARE, FileWriter
from flight_replica.state.native_files import NativeFile
from flight_replica.state.workspace import Workspace
from tests.processes import until


@pytest.fixture
def workspace() -> Iterator[Workspace]:
    with closing(Workspace()) as opened:
        yield opened


def priority() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def file_in(workspace: Workspace) -> NativeFile:
    return workspace.native_folder("t").new_file()


def endless(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute(
        "CREATE TABLE made.rows AS SELECT sum(a.range) FROM range(10000000) a, range(10000000)"
    )


def test_what_was_filled_in_is_in_the_file(workspace: Workspace) -> None:
    file = file_in(workspace)
    make = "CREATE TABLE made.rows AS SELECT range AS v FROM range(300000)"
    count = FileWriter(
        workspace.database, "made", file, lambda filled: filled.execute(make).fetchall(), gives_way=True
    ).run()
    assert count == [(300_000,)]
    with duckdb.connect(str(file.path)) as connection:
        assert connection.execute("SELECT sum(v) FROM rows").fetchall() == [(299_999 * 150_000,)]
    file.let_go()


@pytest.mark.skipif(sys.platform != "linux", reason="only there has each thread a priority of its own")
@pytest.mark.parametrize("gives_way", [True, False])
def test_only_its_own_threads_give_way(workspace: Workspace, gives_way: bool) -> None:
    def others() -> dict[str, int]:
        found = {}
        for thread in os.listdir("/proc/self/task"):
            with suppress(ProcessLookupError):  # it has just ended
                found[thread] = os.getpriority(os.PRIO_PROCESS, int(thread))
        return found

    before, file = others(), file_in(workspace)
    during = FileWriter(
        workspace.database, "made", file, lambda _: (priority(), others()), gives_way=gives_way
    ).run()
    file.let_go()
    lower = min(priority() + NICENESS, 19) if gives_way else priority()
    own = {during[1][thread] for thread in during[1].keys() - before.keys()}
    assert (during[0], own) == (lower, {lower})
    after = others()
    assert {thread: before[thread] for thread in after.keys() & before.keys()}.items() <= after.items()


@pytest.mark.parametrize("gives_way", [True, False])
def test_where_it_gives_way_it_leaves_half_of_the_threads_to_others(
    workspace: Workspace, gives_way: bool
) -> None:
    def threads(connection: duckdb.DuckDBPyConnection) -> int:
        ((count,),) = connection.execute("SELECT current_setting('threads')").fetchall()
        return int(count)

    file = file_in(workspace)
    writer = FileWriter(workspace.database, "made", file, threads, gives_way=gives_way)
    with closing(workspace.session()) as session:
        whole = threads(session)
    assert writer.run() == (max(1, whole // THREAD_SHARE) if gives_way else whole)
    file.let_go()


def memory_limit_of(workspace: Workspace) -> int:
    """What a writer of the workspace may have, in bytes."""
    file = file_in(workspace)
    writer = FileWriter(
        workspace.database, "made", file, lambda filled: database_memory(filled.cursor).limit, gives_way=True
    )
    limit = writer.run()
    file.let_go()
    return limit


def test_it_has_a_part_of_the_memory(workspace: Workspace) -> None:
    whole = database_memory(workspace.session).limit
    assert memory_limit_of(workspace) == pytest.approx(whole / MEMORY_SHARE, rel=0.1)


def test_it_has_enough_to_sort_where_the_whole_is_small() -> None:
    for whole, part in (("64MiB", 64), ("400MiB", 256)):
        with closing(Workspace(memory_limit=whole)) as small:
            assert memory_limit_of(small) == pytest.approx(part << 20, rel=0.1)


def test_an_interrupt_ends_it(workspace: Workspace) -> None:
    file = file_in(workspace)
    fills = threading.Event()

    def fill(connection: duckdb.DuckDBPyConnection) -> None:
        fills.set()
        endless(connection)

    writer = FileWriter(workspace.database, "made", file, fill, gives_way=False)
    with ThreadPoolExecutor(1) as other:
        writing = other.submit(writer.run)
        assert fills.wait(60)

        def has_ended() -> bool:
            writer.interrupt()  # one that comes between two statements is lost
            return writing.done()

        until(has_ended, "it ends")
        with pytest.raises((duckdb.InterruptException, Closed)):
            writing.result()
    file.let_go()
    assert not file.path.exists()


def test_one_that_was_given_up_before_it_began_fills_nothing(workspace: Workspace) -> None:
    file = file_in(workspace)
    writer = FileWriter(workspace.database, "made", file, endless, gives_way=True)
    writer.interrupt()
    with pytest.raises(Closed):
        writer.run()
    file.let_go()
    assert not file.path.exists()


def test_a_folder_of_what_was_spilled_goes_with_the_next_process(tmp_path: Path) -> None:
    left = tmp_path / "spill-native_7"
    with_lock = Workspace(tmp_path)
    with_lock.close()
    left.mkdir()
    (left / "duckdb_temp_storage-0.tmp").write_bytes(b"x")
    Workspace(tmp_path).close()
    assert not left.exists()
