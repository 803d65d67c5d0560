"""The command line, `flight-replica primary|serve|…`. Parsing and the life of a process."""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeAlias

from flight_replica.access import add_server_access, server_access
from flight_replica.connecting import adbc_options, add_client_access, endpoint
from flight_replica.errors import ConfigError, DatabaseLost, ReplicaError
from flight_replica.schema import TableSchema
from flight_replica.stopping import StopSignal
from flight_replica.user_command import add_user_command

if TYPE_CHECKING:
    from flight_replica.access import ServerAccess
    from flight_replica.base.source import BaseSource
    from flight_replica.flightsql.service import Service

    class ClosableService(Service, Protocol):
        def check(self) -> None:
            """Raise `DatabaseLost` when no statement can be answered any more."""
            ...

        def close(self) -> None: ...


TRACEBACK_FRAMES = 50
PRIMARY = "primary-"  # how the options begin that say how a replica connects to its primary

_EPILOG = """examples:
  flight-replica primary --data ./primary --listen 127.0.0.1:4711
  flight-replica serve --primary grpc://127.0.0.1:4711 --listen 127.0.0.1:4712
  flight-replica sql grpc://127.0.0.1:4712 "SELECT count(*) FROM orders"
  flight-replica demo --seconds 60
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 done, 1 failed with one line on stderr, 2 wrong usage."""
    options = _parser().parse_args(arguments)
    _start_logging(options.log_level)
    # Only plain exceptions reach some gRPC codes, and pyarrow sends their traceback to the client:
    # without entries there is nothing to send (docs/decisions/0003).
    sys.tracebacklimit = 0
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except (ReplicaError, OSError) as error:
        print(f"flight-replica: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _start_logging(level: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    logging.getLogger("pyiceberg").setLevel(logging.WARNING)  # it reports every file it opens


class _Formatter(logging.Formatter):
    """One line an event, whatever names are in it; tracebacks in full, whatever `sys.tracebacklimit` is."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return super().formatMessage(record).replace("\n", "\\n").replace("\r", "\\r")

    def formatException(self, ei: Any) -> str:
        return "".join(traceback.format_exception(*ei, limit=TRACEBACK_FRAMES)).rstrip()


class _Parser(argparse.ArgumentParser):
    """Tells wrong usage in one line, as every other failure is told."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; {self.prog} --help tells more\n")


def _parser() -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = _Parser(
        prog="flight-replica",
        description="A live read replica for merutable tables that speaks Arrow Flight SQL.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"flight-replica {version('flight-replica')}")
    parser.add_argument(
        "--log-level",
        default="info",
        choices=["debug", "info", "warning", "error"],
        help="least severe messages on stderr (default: %(default)s)",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_primary(commands)
    _add_serve(commands)
    _add_demo(commands)
    _add_clients(commands)
    add_user_command(
        commands.add_parser(
            "user",
            help="add a user to a users file, change or remove it",
            description="Adds NAME to the users file of --auth basic, or changes its password and rights. "
            "The password is asked for at the terminal, or is the first line of the input. Servers that "
            "run take the changed file at once.",
        )
    )
    return parser


_Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def _add_primary(commands: _Commands) -> None:
    parser = commands.add_parser(
        "primary",
        help="run the reference primary: tables you write over Flight SQL, with a change feed",
        description="Runs the reference primary. It keeps its tables in DIR and takes SQL writes and bulk "
        "ingest from any Flight SQL client. A write is answered once it is durable.",
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="where everything is kept")
    _add_listen(parser)
    parser.add_argument(
        "--new-lineage",
        action="store_true",
        help="after restoring DIR from a backup: replicas load every table afresh",
    )
    parser.add_argument(
        "--retain-ops",
        type=_positive,
        default=2_000_000,
        metavar="N",
        help="newest ops that a table's feed keeps for replicas that are behind (default: %(default)s)",
    )
    parser.add_argument(
        "--retain-seconds",
        type=_positive,
        default=86_400,
        metavar="S",
        help="age beyond which a feed keeps no op (default: %(default)s)",
    )
    parser.add_argument(
        "--base-seconds",
        type=float,
        default=10.0,
        metavar="S",
        help="how often changed rows go to a table's Iceberg base (default: %(default)s)",
    )
    add_server_access(parser)
    parser.set_defaults(run=_primary)


def _add_serve(commands: _Commands) -> None:
    parser = commands.add_parser(
        "serve",
        help="run a replica",
        description="Runs a replica: follows the tables of a primary (or of another replica), or serves "
        "tables as they lie in a merutable catalog or an Iceberg table, over Flight SQL.",
    )
    parser.add_argument("--primary", metavar="URI", help="grpc://HOST:PORT of what to follow")
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
        help="serve this table without a primary (repeatable): NAME=merutable:CATALOG_DIR or "
        "NAME=iceberg:METADATA_FILE",
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
    _add_listen(parser)
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


def _add_demo(commands: _Commands) -> None:
    parser = commands.add_parser(
        "demo",
        help="a primary, a live writer and a replica, watched",
        description="Starts a primary with a table of orders, a writer that keeps changing it and a replica, "
        "each in a process of its own; shows how fresh the replica is and how fast it answers; at the end "
        "compares both row by row.",
    )
    parser.add_argument(
        "--seconds", type=_seconds, metavar="S", help="how long to run (default: until Ctrl-C)"
    )
    parser.add_argument(
        "--rows", type=_positive, default=1_000_000, help="orders to begin with (default: %(default)s)"
    )
    parser.add_argument("--rate", type=_positive, default=3_000, help="ops a second (default: %(default)s)")
    parser.set_defaults(run=_demo, log_level="warning")
    writer = commands.add_parser("demo-writer", description="The writer of `demo`; runs until it is ended.")
    writer.add_argument("uri")
    writer.add_argument("--rows", type=_positive, required=True)
    writer.add_argument("--rate", type=_positive, required=True)
    writer.set_defaults(run=_demo_writer)


def _add_clients(commands: _Commands) -> None:
    sql = commands.add_parser("sql", help="run one statement and print its rows")
    sql.add_argument("uri", metavar="URI", help="grpc://HOST:PORT of a replica or primary")
    sql.add_argument("statement", metavar="STATEMENT")
    sql.add_argument(
        "--format", choices=["table", "csv", "json"], default="table", help="(default: %(default)s)"
    )
    add_client_access(sql)
    sql.set_defaults(run=_sql)
    status = commands.add_parser("status", help="how every table of a server is, and how fresh")
    status.add_argument("uri", metavar="URI", help="grpc://HOST:PORT of a replica or primary")
    add_client_access(status)
    status.set_defaults(run=_status)


def _add_listen(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--listen",
        type=_address,
        default=("127.0.0.1", 0),
        metavar="HOST:PORT",
        help="address to serve on; port 0 picks a free one (default: 127.0.0.1:0)",
    )


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} isn't HOST:PORT")
    return host.strip("[]"), int(port)


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} isn't a number above 0")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds > 0:
        raise argparse.ArgumentTypeError(f"{text!r} isn't a number above 0")
    return seconds


# --- servers ----------------------------------------------------------------------------------------


def _primary(options: argparse.Namespace) -> int:
    from flight_replica.primary.service import PrimaryService
    from flight_replica.primary.settings import PrimarySettings

    settings = PrimarySettings(
        retention_ops=options.retain_ops,
        retention_seconds=options.retain_seconds,
        publish_seconds=options.base_seconds,
    )
    access = server_access(options)
    service = PrimaryService.open(options.data, settings, new_lineage=options.new_lineage)
    return _serve_until_signal(service, options.listen, access)


def _serve(options: argparse.Namespace) -> int:
    from flight_replica.replica.service import ReplicaService
    from flight_replica.replica.upstream import Upstream, as_it_lies
    from flight_replica.state.workspace import Workspace

    if (options.primary is None) == (not options.base):
        raise ConfigError("give either --primary, or one --base or more")
    if options.table and options.primary is None:
        raise ConfigError("--table goes with --primary")
    fixed = {name: partial(as_it_lies, base) for name, base in _stated_bases(options).items()}
    access = server_access(options)
    upstream = None
    if options.primary is not None:
        upstream = Upstream(endpoint(options.primary, options, PRIMARY))
    if upstream is not None:
        upstream.tables()  # a wrong address is told at once, not waited for
    workspace = Workspace(options.data, memory_limit=options.memory_limit)
    service = ReplicaService(workspace, upstream=upstream, names=options.table, fixed=fixed)
    return _serve_until_signal(service, options.listen, access)


def _stated_bases(options: argparse.Namespace) -> dict[str, BaseSource]:
    """The `--base` options with what `--schema`, `--key` and `--base-seq` say of them."""
    from flight_replica.base.iceberg import IcebergBase
    from flight_replica.base.merutable import MerutableBase
    from flight_replica.replica.published import EmptyUntilFlushed, local_path

    schemas, keys, seqs = (
        _pairs(getattr(options, name), f"--{name}") for name in ("schema", "key", "base_seq")
    )
    bases: dict[str, BaseSource] = {}
    for name, place in _pairs(options.base, "--base").items():
        kind, _, path = place.partition(":")
        if kind == "merutable":
            schema = _schema_file(schemas.pop(name)) if name in schemas else None
            base = MerutableBase(local_path(path), table=name, schema=schema)
            bases[name] = EmptyUntilFlushed(base, name, schema) if schema is not None else base
        elif kind == "iceberg":
            key = keys.pop(name).split(",") if name in keys else None
            seq = _seq(seqs.pop(name), name) if name in seqs else None
            bases[name] = IcebergBase(path, table=name, primary_key=key, base_seq=seq)
        else:
            raise ConfigError(f"--base {name}={place}: the kind is merutable or iceberg, not {kind!r}")
    for option, left in (("--schema", schemas), ("--key", keys), ("--base-seq", seqs)):
        for name in left:
            raise ConfigError(f"{option} {name}=…: there is no --base {name}=… that it goes with")
    return bases


def _pairs(options: Sequence[str], option: str) -> dict[str, str]:
    """`NAME=VALUE` options by name."""
    pairs: dict[str, str] = {}
    for text in options:
        name, separator, value = text.partition("=")
        if not (name and separator and value):
            raise ConfigError(f"{option} {text}: expected NAME=…")
        if name in pairs:
            raise ConfigError(f"{option} {text}: {name} is given twice")
        pairs[name] = value
    return pairs


def _seq(text: str, name: str) -> int:
    if not text.isdigit():
        raise ConfigError(f"--base-seq {name}={text}: {text!r} isn't a seq")
    return int(text)


def _schema_file(path: str) -> TableSchema:
    try:
        document = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"schema file {path} can't be read: {error}") from error
    return TableSchema.from_engine_json(document)


def _serve_until_signal(service: ClosableService, address: tuple[str, int], access: ServerAccess) -> int:
    """Serve until SIGTERM or SIGINT, then end every stream and close the service."""
    from flight_replica.flightsql.server import FlightSqlServer

    stop = StopSignal()
    with ExitStack() as closing:
        closing.callback(service.close)
        _check_listen(address)
        server = FlightSqlServer(service, *address, logins=access.logins, tls=access.tls)
        closing.callback(server.close)
        print(f"listening on {access.scheme}://{address[0]}:{server.port}", flush=True)
        while not stop.wait(1.0):
            _end_if_lost(service)
    return 0


def _end_if_lost(service: ClosableService) -> None:
    """End the process when its database is lost: only a new process mends that, and nothing is unsaved."""
    try:
        service.check()
    except DatabaseLost as error:
        logging.getLogger(__name__).error("%s", error)
        print(f"flight-replica: {error}", file=sys.stderr, flush=True)
        os._exit(1)  # to close things in order needs the database


def _check_listen(address: tuple[str, int]) -> None:
    """Raise `ConfigError` where the address can't be listened on: the Flight server doesn't say why."""
    host, port = address
    try:
        family, kind, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
            tried.bind(place)
            tried.listen()
    except OSError as error:
        raise ConfigError(f"--listen {host}:{port}: {error.strerror or error}") from error


# --- clients ----------------------------------------------------------------------------------------


def _demo(options: argparse.Namespace) -> int:
    from flight_replica.demo import run_demo

    return run_demo(options.seconds, options.rows, options.rate)


def _demo_writer(options: argparse.Namespace) -> int:
    from flight_replica.demo_writer import write_orders

    return write_orders(options.uri, options.rows, options.rate)


def _sql(options: argparse.Namespace) -> int:
    from flight_replica.client import print_rows, query

    access = adbc_options(endpoint(options.uri, options))
    print_rows(query(options.uri, options.statement, access), options.format)
    return 0


def _status(options: argparse.Namespace) -> int:
    from flight_replica.client import print_status, query

    access = adbc_options(endpoint(options.uri, options))
    print_status(query(options.uri, "SELECT * FROM merutable_status()", access))
    return 0


if __name__ == "__main__":
    sys.exit(main())
