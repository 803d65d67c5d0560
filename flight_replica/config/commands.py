"""The configuration of each server: `ServeConfig`, `PrimaryConfig`, `FeedConfig`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated
from uuid import UUID

from pydantic import Field

from flight_replica.config.kinds import (
    ABOVE_ZERO,
    BASE,
    COLUMNS,
    COUNT,
    MEMORY,
    PATH,
    PLACE,
    SECONDS,
    SECONDS_ABOVE_ZERO,
    SEQ,
    SIZE,
    SIZE_ABOVE_ZERO,
    SWITCH,
    TEXT,
    TEXT_COLUMNS,
    UUID_TEXT,
)
from flight_replica.config.sections import Primary, ServerConfig, State
from flight_replica.config.settings import Section, setting

__all__ = ["CONFIGS", "FeedConfig", "FeedTable", "PrimaryConfig", "ServeConfig", "ServedTable"]

_MEMORY = "DuckDB's memory limit, such as 4GB (default: 80 % of the machine's)"


class ServedTable(Section):
    """One that is stated by hand, or `text` of one that is followed."""

    section_title = "tables, each by its name"

    base: Annotated[str | None, BASE] = setting(
        None,
        "serve this table without a primary (repeatable): NAME=merutable:CATALOG_DIR, "
        "NAME=iceberg:METADATA_FILE, NAME=iceberg:catalog:CATALOG/NAMESPACE.TABLE (a catalog that pyiceberg "
        "is configured for) or NAME=flight:grpc://HOST:PORT[/TABLE]; a catalog directory or mirror may lie "
        "in an object store (s3://BUCKET/PREFIX)",
        flag="--base",
        metavar="NAME=KIND:PLACE",
        example='"merutable:/data/events"',
    )
    feed: Annotated[str | None, TEXT] = setting(
        None,
        "keep a --base fresh by the feed at grpc://HOST:PORT[/TABLE]; whether they fit together is "
        "checked first (default: the base is served as it lies)",
        flag="--feed",
        metavar="NAME=URI",
        example='"grpc://127.0.0.1:4711"',
    )
    lineage: Annotated[UUID | None, UUID_TEXT] = setting(
        None,
        "the history that a --base is of; needed where an Iceberg table that doesn't say it joins a --feed",
        flag="--lineage",
        metavar="NAME=UUID",
        example='"3f2b8a52-6d0e-4c1b-9a77-1f0c5d9e2b10"',
    )
    schema_file: Annotated[Path | None, PATH] = setting(
        None,
        "merutable's schema JSON of a --base whose catalog has no commit yet",
        flag="--schema",
        metavar="NAME=FILE",
        example='"events.schema.json"',
    )
    key: Annotated[tuple[str, ...] | None, COLUMNS] = setting(
        None,
        "the primary key of an Iceberg --base that doesn't say it",
        flag="--key",
        metavar="NAME=COLUMN,…",
        example='["id"]',
    )
    base_seq: Annotated[int | None, SEQ] = setting(
        None,
        "the seq of an Iceberg --base that doesn't say it",
        flag="--base-seq",
        metavar="NAME=N",
        example="4107",
    )
    text: Annotated[str | None, TEXT_COLUMNS] = setting(
        None,
        "byte columns of a table that are text, * for all; with ? behind it a column is served as "
        "bytes where it holds anything else, without it that is an error",
        flag="--text",
        metavar="NAME=COLUMN,…",
        example='"*"',
    )
    insert_only: Annotated[bool, SWITCH] = setting(
        False,
        "no row of this table was ever changed or deleted: lets the engine's own Iceberg export be a "
        "--base, which doesn't tell such rows from live ones",
        flag="--insert-only",
        metavar="NAME",
    )


class ServeConfig(ServerConfig):
    """A replica."""

    command = "serve"

    data: Annotated[Path | None, PLACE] = setting(
        None,
        "where the replica keeps files (default: a temporary folder)",
        flag="--data",
        metavar="DIR",
        example='"replica"',
    )
    memory_limit: Annotated[int | None, MEMORY] = setting(
        None, _MEMORY, flag="--memory-limit", metavar="SIZE", example='"4GB"'
    )
    primary: Primary = Primary()
    tables: Mapping[str, ServedTable] = Field(default_factory=dict)
    state: State = State()


class Retention(Section):
    section_title = "what a feed keeps for replicas that are behind"

    ops: Annotated[int, ABOVE_ZERO] = setting(
        2_000_000,
        "newest ops that a table's feed keeps for replicas that are behind",
        flag="--retain-ops",
        metavar="N",
    )
    seconds: Annotated[float, SECONDS_ABOVE_ZERO] = setting(
        86_400.0, "age beyond which a feed keeps no op", flag="--retain-seconds", metavar="S"
    )
    interval_seconds: Annotated[float, SECONDS_ABOVE_ZERO] = setting(
        5.0, "how often older ops are looked for and let go"
    )
    recent_bytes_max: Annotated[int, SIZE_ABOVE_ZERO] = setting(
        64 << 20, "ops of a table kept in memory for those who follow it; older ones are read from disk"
    )


class Base(Section):
    section_title = "the bases that a primary publishes"

    publish_seconds: Annotated[float, SECONDS] = setting(
        10.0, "how often changed rows go to a table's Iceberg base", flag="--base-seconds", metavar="S"
    )
    publish_ops: Annotated[int, COUNT] = setting(
        100_000, "newer ops than the base has, after which it is published at once"
    )
    grace_seconds: Annotated[float, SECONDS] = setting(
        600.0, "how long old snapshots, and the files of dropped tables, stay"
    )


class Writes(Section):
    section_title = "writes at a primary"

    ingest_bytes_max: Annotated[int, SIZE_ABOVE_ZERO] = setting(
        1 << 30, "Arrow bytes of one ingest, which is one commit in memory"
    )
    transaction_bytes_max: Annotated[int, SIZE] = setting(
        256 << 20, "Arrow bytes of the ops of one write transaction, in memory"
    )
    group_max: Annotated[int, ABOVE_ZERO] = setting(256, "writes that share one durable commit")


class PrimaryConfig(ServerConfig):
    """The reference primary."""

    command = "primary"

    data: Annotated[Path, PLACE] = setting(
        ..., "where everything is kept", flag="--data", metavar="DIR", example='"primary"'
    )
    memory_limit: Annotated[int | None, MEMORY] = setting(
        None, _MEMORY, flag="--memory-limit", metavar="SIZE", example='"4GB"'
    )
    retention: Retention = Retention()
    base: Base = Base()
    writes: Writes = Writes()


class FeedTable(Section):
    """One that an engine on this host writes."""

    section_title = "tables, each by its name"

    catalog: Annotated[Path | None, PLACE] = setting(
        None,
        "a table, by the directories that its engine keeps it in (repeatable); %2C is a comma in a "
        "path. Nothing is ever written there",
        flag="--table",
        metavar="NAME=CATALOG_DIR,WAL_DIR",
        example='"/data/events"',
    )
    wal: Annotated[Path | None, PLACE] = setting(
        None,
        "the directory of its engine's log; on the command line with --table",
        example='"/data/events/wal"',
    )
    publish: Annotated[str, TEXT] = setting(
        "flight",
        "where replicas get a table's base: from its catalog or mirror, as they can reach it, or over "
        "this port",
        flag="--publish",
        metavar="NAME=merutable:URI|flight",
    )
    schema_file: Annotated[Path | None, PATH] = setting(
        None,
        "merutable's schema JSON of a table: before its first flush, or when columns were added that "
        "no file has yet",
        flag="--schema",
        metavar="NAME=FILE",
        example='"events.schema.json"',
    )
    text: Annotated[str | None, TEXT_COLUMNS] = setting(
        None,
        "byte columns of a table that are text, * for all; bytes that are none stop its feed, with "
        "column and key",
        flag="--text",
        metavar="NAME=COLUMN,…",
        example='"*"',
    )
    level_targets: Annotated[int | None, COUNT] = setting(
        None,
        "the smallest number of level targets that the table's engine was ever opened with (its own "
        "default is 4); not stated, the files tell as much as they can",
        flag="--level-targets",
        metavar="NAME=N",
        example="4",
    )


class FeedConfig(ServerConfig):
    """The feed server beside running engines."""

    command = "feed"

    data: Annotated[Path | None, PLACE] = setting(
        None,
        "where recent ops and each table's lineage are kept, best on the file system of the tables "
        "(default: a temporary folder, so that a restart forgets them)",
        flag="--data",
        metavar="DIR",
        example='"feed"',
    )
    memory_limit: Annotated[int | None, MEMORY] = setting(
        None, _MEMORY, flag="--memory-limit", metavar="SIZE", example='"1GB"'
    )
    accept_damaged_log: Annotated[bool, SWITCH] = setting(
        False,
        "go on behind damage of a log as the engine itself does, without the ops that were lost, under "
        "a new lineage",
        flag="--accept-damaged-log",
    )
    retain_bytes: Annotated[int, SIZE_ABOVE_ZERO] = setting(
        1 << 30,
        "of each table's recent ops on disk, for replicas that are slow",
        flag="--retain-bytes",
        metavar="N",
    )
    tables: Mapping[str, FeedTable] = Field(default_factory=dict)


CONFIGS: tuple[type[ServerConfig], ...] = (ServeConfig, PrimaryConfig, FeedConfig)
