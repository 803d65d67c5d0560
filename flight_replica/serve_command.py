"""The command `serve`: a replica of a primary's tables, or of tables stated one by one."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from flight_replica.access import server_access
from flight_replica.arrow_alone import keep_pandas_out
from flight_replica.config import ServeConfig, add_flags
from flight_replica.config.command_line import configured
from flight_replica.config.commands import ServedTable
from flight_replica.config.kinds import memory_text
from flight_replica.config.loading import load
from flight_replica.connecting import primary_endpoint
from flight_replica.errors import ConfigError
from flight_replica.listening import serve_until_signal
from flight_replica.stopping import HangUps
from flight_replica.table_options import schema_file

if TYPE_CHECKING:
    from flight_replica.replica.stated import StatedTable
    from flight_replica.schema import TableSchema
    from flight_replica.state.workspace import Workspace

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


def add_serve_command(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add_flags(parser, ServeConfig)
    parser.set_defaults(run=_serve)


def _serve(options: argparse.Namespace) -> int:
    keep_pandas_out()

    from flight_replica.replica.service import ReplicaService
    from flight_replica.replica.stats import ReplicaSettings
    from flight_replica.replica.steering import ReplicaSteering
    from flight_replica.replica.upstream import Upstream
    from flight_replica.state.workspace import Workspace
    from flight_replica.text_columns import TextColumns

    hang_ups = HangUps()
    loaded = configured(options, ServeConfig)
    config = loaded.config
    schemas = {
        name: schema_file(loaded.place(("tables", name, "schema_file")), stated.schema_file)
        for name, stated in config.tables.items()
        if stated.schema_file is not None
    }
    access = server_access(config)
    upstream = None
    if config.primary.uri is not None:
        texts = {
            name: TextColumns.parse(stated.text) for name, stated in config.tables.items() if stated.text
        }
        upstream = Upstream(primary_endpoint(config.primary.uri, config.primary), texts)
        upstream.tables()  # a wrong address is told at once, not waited for
    with ExitStack() as undo:
        workspace = Workspace(config.data, memory_limit=memory_text(config.memory_limit))
        undo.callback(workspace.close)
        tables = {
            name: _stated_table(name, stated, schemas.get(name), config, workspace)
            for name, stated in config.tables.items()
            if stated.base is not None
        }
        for table in tables.values():
            undo.callback(table.close)
            table.check()
        settings = ReplicaSettings(**config.state.model_dump())
        names = config.primary.tables
        service = ReplicaService(workspace, upstream=upstream, names=names, fixed=tables, settings=settings)
        undo.pop_all()
    steering = ReplicaSteering(service, partial(_stated_at_run_time, config, workspace))
    return serve_until_signal(service, loaded, access, hang_ups, steering)


_STATED_OPTIONS = ("base", "feed", "key", "base_seq", "lineage", "schema", "text", "insert_only")


def _stated_at_run_time(
    running: ServeConfig, workspace: Workspace, name: str, options: Mapping[str, str]
) -> StatedTable:
    """A table that an operator adds: as flags of `serve` state it, checked like one of these.

    Raises `ConfigError`.
    """
    given = {key.replace("-", "_"): value for key, value in options.items()}
    unknown = sorted(set(given) - set(_STATED_OPTIONS))
    if unknown:
        raise ConfigError(f"table {name!r}: no option {unknown[0]!r}, only {', '.join(_STATED_OPTIONS)}")
    if "=" in name or "base" not in given:
        raise ConfigError(f"table {name!r}: a stated table needs a base, and a name without '='")
    is_insert_only = given.pop("insert_only", "false")
    if is_insert_only not in ("true", "false"):
        raise ConfigError(f"table {name!r}: insert_only is true or false")
    flags: dict[str, object] = {key: [f"{name}={value}"] for key, value in given.items()}
    if is_insert_only == "true":
        flags["insert_only"] = [name]
    stated = load(ServeConfig, flags, {}).config.tables[name]
    schema = None
    if stated.schema_file is not None:
        schema = schema_file(f"table {name!r}", stated.schema_file)
    table = _stated_table(name, stated, schema, running, workspace)
    try:
        table.check()
    except BaseException:
        table.close()
        raise
    return table


def _stated_table(
    name: str, stated: ServedTable, schema: TableSchema | None, config: ServeConfig, workspace: Workspace
) -> StatedTable:
    from flight_replica.replica.stated import StatedBase, StatedTable
    from flight_replica.text_columns import TextColumns

    assert stated.base is not None, "a table that is stated"
    kind, _, place = stated.base.partition(":")
    base = StatedBase(
        kind,
        place,
        key=stated.key,
        base_seq=stated.base_seq,
        schema=schema,
        is_insert_only=stated.insert_only,
    )
    return StatedTable(
        name,
        base,
        primary_endpoint("", config.primary),
        workspace.new_folder,
        lineage=stated.lineage,
        feed=stated.feed,
        texts=TextColumns.parse(stated.text) if stated.text is not None else None,
    )
