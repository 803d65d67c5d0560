"""`Parsed`: a statement of our own that many sessions run again and again, parsed once."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb

__all__ = ["Parsed"]


class Parsed:
    """One statement. Thread-safe: each run works on a copy of what was parsed."""

    def __init__(self, sql: str) -> None:
        self._sql = sql
        self._statement: duckdb.Statement | None = None  # by the first session that runs it

    def run(
        self, session: duckdb.DuckDBPyConnection, parameters: Sequence[object] = ()
    ) -> duckdb.DuckDBPyConnection:
        """As `session.execute`: the session, whose result it is."""
        if self._statement is None:
            (self._statement,) = session.extract_statements(self._sql)
        return session.execute(self._statement, parameters)
