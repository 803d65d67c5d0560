"""`Upstream`: the server that a replica follows, asked for its tables; and each table's way from there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pyarrow as pa

from flight_replica.base.flight import FlightBase, server_and_table
from flight_replica.base.text_base import OnDemandTextBase
from flight_replica.errors import FeedError, TableNotFound
from flight_replica.log.change_feed import ChangeFeedLogSource
from flight_replica.log.feed_client import Endpoint, FeedClient
from flight_replica.log.text_log import TextLog
from flight_replica.replica.published import Opening, PublishedBase, PublishedTable
from flight_replica.sql.statement import fold
from flight_replica.text_columns import TextChoice, TextColumns

_COLUMNS = [
    "table_name",
    "lineage",
    "table_uuid",
    "low_water",
    "high_water",
    "base_kind",
    "base_uri",
    "base_version",
    "base_seq",
]


class Upstream:
    """Any server that answers `merutable_tables()`. Thread-safe; one connection, made anew after an error."""

    def __init__(self, endpoint: Endpoint, texts: Mapping[str, TextColumns] | None = None) -> None:
        """`texts`: by table, which of its byte columns are served as text."""
        self._endpoint = endpoint
        self._choice_by_table = {name: TextChoice(columns) for name, columns in (texts or {}).items()}
        self._lock = threading.Lock()
        self._client: FeedClient | None = None

    @property
    def uri(self) -> str:
        return self._endpoint.uri

    def tables(self) -> dict[str, PublishedTable]:
        """Every table by its name. Raises `Unavailable` when it doesn't answer."""
        return {table.name: table for table in _published(self._ask("SELECT * FROM merutable_tables()"))}

    def table(self, name: str) -> PublishedTable:
        """The table of this name, exactly or else without regard to case. Raises `TableNotFound`,
        `Unavailable`."""
        tables = self.tables()
        like = (table for other, table in tables.items() if fold(other) == fold(name))
        found = tables.get(name) or next(like, None)
        if found is None:
            raise TableNotFound(f"{self.uri} has no table {name!r}")
        return found

    def open(self, name: str, new_folder: Callable[[], Path]) -> Opening:
        """The table's log and base for its present lineage. Raises `TableNotFound`, `Unavailable`.

        `new_folder` gives a place for a base that has to be fetched.
        """
        published = self.table(name)
        log = ChangeFeedLogSource(self._endpoint, name, lineage=published.lineage)

        def over_flight(uri: str | None) -> FlightBase:
            server, table = (self._endpoint.uri, name) if uri is None else server_and_table(uri, name)
            at = replace(self._endpoint, uri=server)
            return FlightBase(at, table, new_folder(), serve_as=name, lineage=published.lineage)

        try:
            base = PublishedBase(lambda: self.table(name), log.schema, over_flight)
            choice = self._choice_by_table.get(name)
            if choice is None:
                return Opening(log, base, base.begin, published.high_water)
            in_text = OnDemandTextBase(base, base, choice)
            return Opening(TextLog(log, choice), in_text, base.begin, published.high_water)
        except BaseException:
            log.close()
            raise

    def _ask(self, sql: str) -> pa.Table:
        with self._lock:
            if self._client is None:
                self._client = FeedClient(self._endpoint)
            client = self._client
        try:
            return client.query(sql)
        except BaseException:
            with self._lock:
                if self._client is client:
                    self._client = None
            client.close()
            raise

    def close(self) -> None:
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()


def _published(answer: pa.Table) -> list[PublishedTable]:
    missing = set(_COLUMNS) - set(answer.schema.names)
    if missing:
        raise FeedError(f"merutable_tables() lacks the columns {sorted(missing)}")
    rows = answer.select(_COLUMNS).to_pylist()
    return [PublishedTable(row.pop("table_name"), UUID(row.pop("lineage")), **row) for row in rows]
