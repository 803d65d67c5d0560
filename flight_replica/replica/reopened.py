"""Going on with the native state that an earlier process left, where it is one of the same table."""

from __future__ import annotations

import logging
import time

from flight_replica.errors import SchemaMismatch, StateNotUsable
from flight_replica.log.no_log import NoLog
from flight_replica.log.source import LogSource
from flight_replica.replica.widening import wider
from flight_replica.state.native_record import StateRecord
from flight_replica.state.native_state import NativeState, reopen_native
from flight_replica.state.workspace import Workspace

__all__ = ["reopened"]

_log = logging.getLogger(__name__)


def reopened(workspace: Workspace, table: str, log: LogSource, disk_bytes_max: int) -> NativeState | None:
    """The table at the seq that an earlier process had applied, to be followed from there by `log`.

    None where there is nothing to go on with. A file of another lineage, schema, key or program, or a
    damaged one, is set aside; one beyond `disk_bytes_max`, or of a table without a log, is removed.
    """
    began = time.monotonic()
    folder = workspace.native_folder(table)
    file = folder.take_up()
    if file is None:
        return None
    is_followed = not isinstance(log, NoLog)  # or else its base may have changed meanwhile
    if not is_followed or file.byte_count > disk_bytes_max:
        _log.info("native state not gone on with table=%s bytes=%d", table, file.byte_count)
        folder.forget()
        file.let_go()
        return None

    def check(record: StateRecord) -> None:
        if record.lineage != log.lineage:
            raise StateNotUsable(f"it is of lineage {record.lineage}, the log of {log.lineage}")
        try:
            wider(record.schema, log.schema)
        except SchemaMismatch as error:
            raise StateNotUsable(f"it has another schema: {error}") from error

    try:
        state = reopen_native(workspace.database, workspace.new_number(), file, check)
    except StateNotUsable:  # the line in the log is written where the file is set aside
        return None
    _log.info(
        "native state reopened table=%s visible_seq=%d seconds=%.3f",
        table,
        state.visible_seq,
        time.monotonic() - began,
    )
    return state
