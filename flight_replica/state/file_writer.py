"""`FileWriter`: writes the file of a native state in a DuckDB database of its own, whose threads may yield.

To sort and write a table takes all cores for seconds. In the process's own database that work stands in one
queue with the queries. Here it has threads of its own, which can give way: they are half as many then, of low
priority (Linux), and take what queries and applies leave (docs/decisions/0016). The memory that it took goes
back to the system with it.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Generic, TypeVar

import duckdb

from flight_replica.errors import Closed
from flight_replica.sql.database import literal, open_database
from flight_replica.sql.memory import database_memory
from flight_replica.state.native_files import FILE_SETTINGS, NativeFile
from flight_replica.state.writing import transaction

NICENESS = 5  # a third of the weight of a thread of ordinary priority, where both want one core
THREAD_SHARE = 2  # where it gives way it has this part of the threads of the process's database
MEMORY_SHARE = 2  # it may have this part of what the process's database may have …
MEMORY_MIN = 256 << 20  # … or as much, up to this: a sort needs some for each thread, however small it is


T = TypeVar("T")


class FileWriter(Generic[T]):
    """`run` once; `interrupt` from any thread."""

    def __init__(
        self,
        database: duckdb.DuckDBPyConnection,
        name: str,
        file: NativeFile,
        fill: Callable[[duckdb.DuckDBPyConnection], T],
        *,
        gives_way: bool,
    ) -> None:
        """`fill` makes what is to be in `file`, which it finds attached as `name`, in one transaction.

        Where it `gives_way` it is called on a thread of low priority, so it should leave all work to DuckDB:
        while it holds Python's lock, others wait for it. `database` is the one whose limits it goes by.
        """
        self._gives_way = gives_way
        self._database = database
        self._name = name
        self._file = file
        self._fill = fill
        self._lock = threading.Lock()
        self._is_interrupted = False
        self._connection: duckdb.DuckDBPyConnection | None = None  # while it fills

    def run(self) -> T:
        """What `fill` gives, once the file is closed. Raises what it raises, `Closed`, `duckdb.Error`."""
        start = _give_way if self._gives_way else None  # for good: no thread may raise its priority again
        with ThreadPoolExecutor(1, thread_name_prefix=f"write-{self._name}", initializer=start) as thread:
            return thread.submit(self._write).result()

    def interrupt(self) -> None:
        """Let what `fill` does in DuckDB end with an error, or the next thing that it would do."""
        with self._lock:
            self._is_interrupted = True
            if self._connection is not None:
                self._connection.interrupt()

    def _write(self) -> T:
        ((spill, threads),) = (
            self._database.cursor()
            .execute("SELECT current_setting('temp_directory'), current_setting('threads')")
            .fetchall()
        )
        # A thread that is given a core has it for some milliseconds, however low its priority is.
        share = [f"SET GLOBAL threads = {max(1, threads // THREAD_SHARE)}"] if self._gives_way else []
        whole = database_memory(self._database.cursor).limit
        limit = max(whole // MEMORY_SHARE, min(whole, MEMORY_MIN))
        with closing(
            open_database(
                readable=[self._file.path.parent],
                memory_limit=f"{limit}B",
                temp_directory=Path(f"{spill}-{self._name}"),
                settings=[*FILE_SETTINGS, *share],
            )
        ) as connection:
            connection.execute(f"ATTACH {literal(str(self._file.path))} AS {self._name}")
            self._set_connection(connection)
            try:
                with transaction(connection):
                    filled = self._fill(connection)
            finally:
                self._set_connection(None)
            connection.execute(f"DETACH {self._name}")
            return filled

    def _set_connection(self, connection: duckdb.DuckDBPyConnection | None) -> None:
        with self._lock:
            if self._is_interrupted and connection is not None:
                raise Closed("what was written was given up")
            self._connection = connection


def _give_way() -> None:
    """Let this thread, and those that it starts, run at low priority; where threads have one of their own."""
    if sys.platform == "linux":
        thread = threading.get_native_id()
        niceness = os.getpriority(os.PRIO_PROCESS, thread)
        os.setpriority(os.PRIO_PROCESS, thread, min(niceness + NICENESS, 19))
