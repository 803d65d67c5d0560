"""The command `feed`: the feed server beside running merutable engines."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from typing import TYPE_CHECKING

from flight_replica.access import server_access
from flight_replica.arrow_alone import keep_pandas_out
from flight_replica.config import FeedConfig, Loaded, add_flags
from flight_replica.config.command_line import configured
from flight_replica.config.commands import FeedTable
from flight_replica.config.kinds import memory_text
from flight_replica.errors import ConfigError
from flight_replica.listening import serve_until_signal
from flight_replica.stopping import HangUps
from flight_replica.table_options import schema_file

if TYPE_CHECKING:
    from flight_replica.beside.history import EngineTableSettings

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
    add_flags(parser, FeedConfig)
    parser.set_defaults(run=_feed)


def _feed(options: argparse.Namespace) -> int:
    keep_pandas_out()

    from flight_replica.beside.engine_table import EngineTable
    from flight_replica.beside.publication import Publication
    from flight_replica.beside.service import FeedService, wall_clock_us
    from flight_replica.replica.steering import FixedSteering
    from flight_replica.state.workspace import Workspace

    hang_ups = HangUps()
    loaded = configured(options, FeedConfig)
    config = loaded.config
    settings = {name: _settings(name, stated, loaded) for name, stated in config.tables.items()}
    places = {
        name: stated.publish.partition(":")[2]
        for name, stated in config.tables.items()
        if stated.publish != "flight"
    }
    access = server_access(config)
    with ExitStack() as undo:
        workspace = Workspace(config.data, memory_limit=memory_text(config.memory_limit))
        undo.callback(workspace.close)
        directory = workspace.directory / "tables"
        tables = []
        for name, table_settings in settings.items():
            tables.append(EngineTable(name, table_settings, directory, wall_clock_us))
            undo.callback(tables[-1].close)
        published = {name: Publication(name, uri) for name, uri in places.items()}
        service = FeedService(workspace, tables, published)
        undo.pop_all()
    return serve_until_signal(service, loaded, access, hang_ups, FixedSteering(service))


def _settings(name: str, stated: FeedTable, loaded: Loaded[FeedConfig]) -> EngineTableSettings:
    from flight_replica.beside.history import EngineTableSettings
    from flight_replica.text_columns import TextColumns

    assert stated.catalog is not None and stated.wal is not None, "checked when it was loaded"
    for what, path in (("catalog", stated.catalog), ("log", stated.wal)):
        if not path.is_dir():
            raise ConfigError(f"table {name!r}: the {what} directory {path} doesn't exist")
    schema = None
    if stated.schema_file is not None:
        schema = schema_file(loaded.place(("tables", name, "schema_file")), stated.schema_file)
    settings = EngineTableSettings(
        catalog=stated.catalog,
        log=stated.wal,
        schema=schema,
        level_targets=stated.level_targets,
        texts=TextColumns.parse(stated.text) if stated.text is not None else TextColumns(),
        accept_damage=loaded.config.accept_damaged_log,
        retain_bytes=loaded.config.retain_bytes,
    )
    settings.check(name)
    return settings
