"""`open`: from what a program says of its tables to a replica that follows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from flight_replica.errors import ConfigError
from flight_replica.flightsql.tls import check_ca, check_pair, read_pem
from flight_replica.library.replica import Replica
from flight_replica.log.credentials import basic, bearer
from flight_replica.log.feed_client import Endpoint
from flight_replica.replica.service import ReplicaService
from flight_replica.replica.stated import StatedBase, StatedTable
from flight_replica.replica.upstream import Upstream
from flight_replica.state.workspace import Workspace

__all__ = ["Access", "Table", "open"]


@dataclass(frozen=True, slots=True)
class Access:
    """How to connect to a server, and as whom. Secrets stay out of `repr`."""

    ca: Path | str | None = None  # PEM file: the CA of the server's certificate; None: the system's
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)  # a bearer token, instead of user and password
    certificate: Path | str | None = None  # PEM files: this client's own, with its key
    key: Path | str | None = None

    def endpoint(self, uri: str) -> Endpoint:
        """Raises `ConfigError` for what doesn't go together or can't be read."""
        if (self.certificate is None) != (self.key is None):
            raise ConfigError("certificate and key go together")
        if (self.user is None) != (self.password is None):
            raise ConfigError("user and password go together")
        if self.token is not None and self.user is not None:
            raise ConfigError("give a token, or user and password")
        pair = ca = authorization = None
        if self.certificate is not None and self.key is not None:
            check_pair(Path(self.certificate), Path(self.key))
            pair = (read_pem(Path(self.certificate), "certificate"), read_pem(Path(self.key), "key"))
        if self.ca is not None:
            check_ca(Path(self.ca))
            ca = read_pem(Path(self.ca), "ca")
        if self.user is not None and self.password is not None:
            password = self.password
            authorization = basic(self.user, lambda: password)
        elif self.token is not None:
            token = self.token
            authorization = bearer(lambda: token)
        return Endpoint(uri, tls_root_certs=ca, authorization=authorization, client_certificate=pair)


@dataclass(frozen=True, slots=True)
class Table:
    """A table whose base, and feed if there is one, are named by hand, as `serve` takes them."""

    base: str  # merutable:PLACE, iceberg:PLACE or flight:URI
    feed: str | None = None  # grpc://HOST:PORT[/TABLE]
    key: Sequence[str] | None = None  # of an Iceberg table that doesn't say it
    base_seq: int | None = None
    lineage: UUID | str | None = None


def open(
    primary: str | None = None,
    *,
    tables: Sequence[str] | Mapping[str, Table] = (),
    access: Access | None = None,
    data: Path | str | None = None,
    memory_limit: str | None = None,
    wait_seconds: float = 60.0,
) -> Replica:
    """A replica inside this process, whose tables can be queried.

    Either of the tables of `primary` (`grpc://HOST:PORT`, also of another replica): `tables` names some, the
    default is all that it lists, now and later. Or of tables by hand: `tables` says of each where its base
    and its feed are. State lies in `data`, by default in a temporary folder that goes with the replica.
    `memory_limit` is DuckDB's, such as "2GiB". Waits up to `wait_seconds` for the first rows.

    Raises `ConfigError` for what can't be right, `Unavailable` where nobody answers or the time is up.
    """
    by_hand = tables if isinstance(tables, Mapping) else {}
    if (primary is None) == (not by_hand):
        raise ConfigError("give either a primary, or tables with a base each")
    if isinstance(tables, str):
        raise ConfigError(f"tables are a list of names, such as [{tables!r}]")
    access = access or Access()
    upstream = Upstream(access.endpoint(primary)) if primary is not None else None
    with ExitStack() as undo:
        if upstream is not None:
            undo.callback(upstream.close)
            upstream.tables()  # a wrong address is told at once
        workspace = Workspace(Path(data) if data is not None else None, memory_limit=memory_limit)
        undo.callback(workspace.close)
        stated = {name: _stated(name, table, access, workspace) for name, table in by_hand.items()}
        for each in stated.values():
            undo.callback(each.close)
            each.check()
        names = [] if isinstance(tables, Mapping) else list(tables)
        service = ReplicaService(workspace, upstream=upstream, names=names, fixed=stated)
        undo.pop_all()
    with ExitStack() as undo:
        replica = undo.enter_context(Replica(service))
        replica.wait_until_serving(names or list(by_hand), wait_seconds)
        undo.pop_all()
    return replica


def _stated(name: str, table: Table, access: Access, workspace: Workspace) -> StatedTable:
    kind, _, place = table.base.partition(":")
    if kind not in ("merutable", "iceberg", "flight") or not place:
        raise ConfigError(
            f"table {name!r}: base {table.base!r} isn't KIND:PLACE, of merutable, iceberg, flight"
        )
    try:
        lineage = UUID(str(table.lineage)) if table.lineage is not None else None
    except ValueError as error:
        raise ConfigError(f"table {name!r}: lineage {table.lineage!r} isn't a UUID") from error
    base = StatedBase(kind, place, key=table.key, base_seq=table.base_seq)
    return StatedTable(
        name, base, access.endpoint(""), workspace.new_folder, lineage=lineage, feed=table.feed
    )
