"""The command `serve`: a replica of a primary's tables, or of tables stated one by one."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from uuid import UUID

from flight_replica.access import add_server_access, server_access
from flight_replica.connecting import add_client_access, endpoint
from flight_replica.errors import ConfigError
from flight_replica.listening import add_listen, serve_until_signal
from flight_replica.table_options import pairs, schema_file
from flight_replica.text_columns import TextColumns

if TYPE_CHECKING:
    from flight_replica.replica.stated import StatedBase, StatedTable
    from flight_replica.state.workspace import Workspace

PRIMARY = "primary-"  # how the options begin that say how a replica connects to its primary

_EPILOG = """examples:
  every table of a primary, wherever their bases lie:
    flight-replica serve --primary grpc://10.0.0.1:4711
  a catalog of the engine, kept fresh by a feed server:
    flight-replica serve --base events=merutable:/data/events --feed events=grpc://10.0.0.1:4711
  an Iceberg table of another writer at a known seq of a feed:
    flight-replica serve --base t=iceberg:/lake/t/metadata/v7.metadata.json --key t=id --base-seq t=4107 \\
      --lineage t=0b9c… --feed t=grpc://10.0.0.1:4711
  a copy of a table as it is now:
    flight-replica serve --base t=flight:grpc://10.0.0.1:4711
"""

# What each option says about a table, besides --base and --feed, and the kinds of base it goes with.
_CLAIMS = {
    "--schema": ("merutable",),
    "--key": ("iceberg",),
    "--base-seq": ("iceberg",),
    "--lineage": ("iceberg", "merutable", "flight"),
    "--feed": ("iceberg", "merutable", "flight"),
    "--text": ("iceberg", "merutable"),
}


def add_serve_command(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--primary",
        metavar="URI",
        help="grpc://HOST:PORT of what to follow; it says where its bases lie, and one that this host can't "
        "read comes over the same port",
    )
    parser.add_argument(
        "--table",
        action="append",
        default=[],
        metavar="NAME",
        help="follow this table only (repeatable; default: every table, also those that come later)",
    )
    parser.add_argument(
        "--base",
        action="append",
        default=[],
        metavar="NAME=KIND:PLACE",
        help="serve this table without a primary (repeatable): NAME=merutable:CATALOG_DIR, "
        "NAME=iceberg:METADATA_FILE, NAME=iceberg:catalog:CATALOG/NAMESPACE.TABLE (a catalog that pyiceberg "
        "is configured for) or NAME=flight:grpc://HOST:PORT[/TABLE]; a catalog directory or mirror may lie "
        "in an object store (s3://BUCKET/PREFIX)",
    )
    parser.add_argument(
        "--feed",
        action="append",
        default=[],
        metavar="NAME=URI",
        help="keep a --base fresh by the feed at grpc://HOST:PORT[/TABLE]; whether they fit together is "
        "checked first (default: the base is served as it lies)",
    )
    parser.add_argument(
        "--lineage",
        action="append",
        default=[],
        metavar="NAME=UUID",
        help="the history that a --base is of; needed where an Iceberg table that doesn't say it joins a "
        "--feed",
    )
    parser.add_argument(
        "--schema",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="merutable's schema JSON of a --base whose catalog has no commit yet",
    )
    parser.add_argument(
        "--key",
        action="append",
        default=[],
        metavar="NAME=COLUMN,…",
        help="the primary key of an Iceberg --base that doesn't say it",
    )
    parser.add_argument(
        "--base-seq",
        action="append",
        default=[],
        metavar="NAME=N",
        help="the seq of an Iceberg --base that doesn't say it",
    )
    parser.add_argument(
        "--text",
        action="append",
        default=[],
        metavar="NAME=COLUMN,…",
        help="byte columns of a table that are text, * for all; with ? behind it a column is served as "
        "bytes where it holds anything else, without it that is an error",
    )
    parser.add_argument(
        "--insert-only",
        action="append",
        default=[],
        metavar="NAME",
        help="no row of this table was ever changed or deleted: lets the engine's own Iceberg export be a "
        "--base, which doesn't tell such rows from live ones",
    )
    add_listen(parser)
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="where the replica keeps files (default: a temporary folder)"
    )
    parser.add_argument(
        "--memory-limit",
        metavar="SIZE",
        help="DuckDB's memory limit, such as 4GB (default: 80 %% of the machine's)",
    )
    add_server_access(parser)
    add_client_access(parser, PRIMARY)
    parser.set_defaults(run=_serve)


def _serve(options: argparse.Namespace) -> int:
    from flight_replica.replica.service import ReplicaService
    from flight_replica.replica.upstream import Upstream
    from flight_replica.state.workspace import Workspace

    if (options.primary is None) == (not options.base):
        raise ConfigError("give either --primary, or one --base or more")
    if options.table and options.primary is None:
        raise ConfigError("--table goes with --primary")
    address = urlsplit(options.primary or "")
    if address.netloc and (path := address.path.strip("/")):
        raise ConfigError(f"--primary names a server: say --table {path} for one table of it")
    bases, claims = _bases(options)
    access = server_access(options)
    upstream = None
    if options.primary is not None:
        texts = {name: TextColumns.parse(text) for name, text in claims["--text"].items()}
        upstream = Upstream(endpoint(options.primary, options, PRIMARY), texts)
        upstream.tables()  # a wrong address is told at once, not waited for
    with ExitStack() as undo:
        workspace = Workspace(options.data, memory_limit=options.memory_limit)
        undo.callback(workspace.close)
        tables = {name: _stated_table(name, base, claims, options, workspace) for name, base in bases.items()}
        for table in tables.values():
            undo.callback(table.close)
            table.check()
        service = ReplicaService(workspace, upstream=upstream, names=options.table, fixed=tables)
        undo.pop_all()
    return serve_until_signal(service, options.listen, access)


def _stated_table(
    name: str,
    base: StatedBase,
    claims: dict[str, dict[str, str]],
    options: argparse.Namespace,
    workspace: Workspace,
) -> StatedTable:
    from flight_replica.replica.stated import StatedTable

    lineage, texts = claims["--lineage"].get(name), claims["--text"].get(name)
    return StatedTable(
        name,
        base,
        endpoint("", options, PRIMARY),
        workspace.new_folder,
        lineage=_uuid(lineage, name) if lineage is not None else None,
        feed=claims["--feed"].get(name),
        texts=TextColumns.parse(texts) if texts is not None else None,
    )


def _bases(options: argparse.Namespace) -> tuple[dict[str, StatedBase], dict[str, dict[str, str]]]:
    """The `--base` options by table with what others say of them, and all claims by option and table."""
    from flight_replica.replica.stated import StatedBase

    claims = {
        option: pairs(getattr(options, option.removeprefix("--").replace("-", "_")), option)
        for option in _CLAIMS
    }
    places = pairs(options.base, "--base")
    kinds = {name: place.partition(":")[0] for name, place in places.items()}
    for name, kind in kinds.items():
        if not places[name].partition(":")[2].removeprefix("s3://"):
            raise ConfigError(f"--base {name}={places[name]}: expected a place behind the kind")
        if kind not in ("merutable", "iceberg", "flight"):
            raise ConfigError(
                f"--base {name}={places[name]}: the kind is merutable, iceberg or flight, not {kind!r}"
            )
    for option, stated in claims.items():
        for name in stated:
            if option == "--text" and options.primary is not None:
                continue  # of a table that is followed
            if name not in kinds:
                raise ConfigError(f"{option} {name}=…: there is no --base {name}=… that it goes with")
            if kinds[name] not in _CLAIMS[option]:
                raise ConfigError(f"{option} {name}=…: it doesn't go with a --base of kind {kinds[name]}")
    for name in options.insert_only:
        if kinds.get(name) != "iceberg":
            raise ConfigError(f"--insert-only {name}: there is no --base {name}=iceberg:… that it goes with")
    bases = {}
    for name, place in places.items():
        key, seq, schema = (claims[option].get(name) for option in ("--key", "--base-seq", "--schema"))
        bases[name] = StatedBase(
            kinds[name],
            place.partition(":")[2],
            key=key.split(",") if key is not None else None,
            base_seq=_seq(seq, name) if seq is not None else None,
            schema=schema_file(name, schema) if schema is not None else None,
            is_insert_only=name in options.insert_only,
        )
    return bases, claims


def _seq(text: str, name: str) -> int:
    if not text.isdecimal():
        raise ConfigError(f"--base-seq {name}={text}: {text!r} isn't a seq")
    return int(text)


def _uuid(text: str, name: str) -> UUID:
    try:
        return UUID(text)
    except ValueError as error:
        raise ConfigError(f"--lineage {name}={text}: {text!r} isn't a UUID") from error
