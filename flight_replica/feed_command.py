"""The command `feed`: the feed server beside running merutable engines."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from flight_replica.access import add_server_access, server_access
from flight_replica.errors import ConfigError
from flight_replica.listening import add_listen, serve_until_signal
from flight_replica.table_options import above_zero, pairs, schema_file
from flight_replica.text_columns import TextColumns

if TYPE_CHECKING:
    from flight_replica.beside.history import EngineTableSettings

RETAIN_BYTES = 1 << 30

_EPILOG = """example:
  beside an engine that keeps its table in /data/events:
    flight-replica feed --table events=/data/events,/data/events/wal --data ./feed --listen 0.0.0.0:4711 \\
      --auth basic --users users.json
  on another host:
    flight-replica serve --primary grpc://10.0.0.1:4711
"""


def add_feed_command(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--table",
        action="append",
        required=True,
        metavar="NAME=CATALOG_DIR,WAL_DIR",
        help="a table, by the directories that its engine keeps it in (repeatable); %%2C is a comma in a "
        "path. Nothing is ever written there",
    )
    parser.add_argument(
        "--publish",
        action="append",
        default=[],
        metavar="NAME=merutable:URI|flight",
        help="where replicas get a table's base: from its catalog or mirror, as they can reach it, or over "
        "this port (default: flight)",
    )
    parser.add_argument(
        "--schema",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="merutable's schema JSON of a table: before its first flush, or when columns were added that "
        "no file has yet",
    )
    parser.add_argument(
        "--text",
        action="append",
        default=[],
        metavar="NAME=COLUMN,…",
        help="byte columns of a table that are text, * for all; bytes that are none stop its feed, with "
        "column and key",
    )
    parser.add_argument(
        "--level-targets",
        action="append",
        default=[],
        metavar="NAME=N",
        help="the smallest number of level targets that the table's engine was ever opened with (its own "
        "default is 4); not stated, the files tell as much as they can",
    )
    parser.add_argument(
        "--accept-damaged-log",
        action="store_true",
        help="go on behind damage of a log as the engine itself does, without the ops that were lost, under "
        "a new lineage",
    )
    add_listen(parser)
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="where recent ops and each table's lineage are kept, best on the file system of the tables "
        "(default: a temporary folder, so that a restart forgets them)",
    )
    parser.add_argument(
        "--retain-bytes",
        type=above_zero,
        default=RETAIN_BYTES,
        metavar="N",
        help="of each table's recent ops on disk, for replicas that are slow (default: %(default)s)",
    )
    parser.add_argument(
        "--memory-limit",
        metavar="SIZE",
        help="DuckDB's memory limit, such as 1GB (default: 80 %% of the machine's)",
    )
    add_server_access(parser)
    parser.set_defaults(run=_feed)


def _feed(options: argparse.Namespace) -> int:
    from flight_replica.beside.engine_table import EngineTable
    from flight_replica.beside.publication import Publication
    from flight_replica.beside.service import FeedService, wall_clock_us
    from flight_replica.state.workspace import Workspace

    settings = _tables(options)
    places = _publications(options.publish, settings)
    access = server_access(options)
    with ExitStack() as undo:
        workspace = Workspace(options.data, memory_limit=options.memory_limit)
        undo.callback(workspace.close)
        directory = workspace.directory / "tables"
        tables = []
        for name, table_settings in settings.items():
            tables.append(EngineTable(name, table_settings, directory, wall_clock_us))
            undo.callback(tables[-1].close)
        published = {name: Publication(name, uri) for name, uri in places.items()}
        service = FeedService(workspace, tables, published)
        undo.pop_all()
    return serve_until_signal(service, options.listen, access)


def _tables(options: argparse.Namespace) -> dict[str, EngineTableSettings]:
    from flight_replica.beside.history import EngineTableSettings

    schemas, targets = pairs(options.schema, "--schema"), pairs(options.level_targets, "--level-targets")
    texts = pairs(options.text, "--text")
    tables = {}
    for name, place in pairs(options.table, "--table").items():
        catalog, log = _directories(name, place)
        tables[name] = EngineTableSettings(
            catalog=catalog,
            log=log,
            schema=schema_file(name, schemas.pop(name)) if name in schemas else None,
            level_targets=_number(name, targets.pop(name)) if name in targets else None,
            texts=_texts(name, texts.pop(name)) if name in texts else TextColumns(),
            accept_damage=options.accept_damaged_log,
            retain_bytes=options.retain_bytes,
        )
        tables[name].check(name)
    for option, left in (("--schema", schemas), ("--text", texts), ("--level-targets", targets)):
        for name in left:
            raise ConfigError(f"{option} {name}=…: there is no --table {name}=… that it goes with")
    return tables


def _directories(name: str, place: str) -> tuple[Path, Path]:
    parts = place.split(",")
    if len(parts) != 2 or not all(parts):
        raise ConfigError(
            f"--table {name}={place}: expected NAME=CATALOG_DIR,WAL_DIR (%2C is a comma in a path)"
        )
    catalog, log = (Path(unquote(part)) for part in parts)
    for what, path in (("catalog", catalog), ("log", log)):
        if not path.is_dir():
            raise ConfigError(f"--table {name}=…: the {what} directory {path} doesn't exist")
    return catalog, log


def _publications(options: Sequence[str], tables: dict[str, EngineTableSettings]) -> dict[str, str]:
    """Table -> URI, for those that are published in files."""
    places = {}
    for name, text in pairs(options, "--publish").items():
        kind, _, uri = text.partition(":")
        if name not in tables:
            raise ConfigError(f"--publish {name}=…: there is no --table {name}=… that it goes with")
        if text == "flight":
            continue
        if kind != "merutable" or not uri:
            raise ConfigError(f"--publish {name}={text}: expected merutable:URI or flight")
        places[name] = uri
    return places


def _texts(name: str, text: str) -> TextColumns:
    texts = TextColumns.parse(text)
    if texts.lenient or texts.rest == "*?":
        raise ConfigError(
            f"--text {name}={text}: a feed's columns are text or bytes for good, so none with ?"
        )
    return texts


def _number(name: str, text: str) -> int:
    if not text.isdecimal():
        raise ConfigError(f"--level-targets {name}={text}: {text!r} isn't a number")
    return int(text)
