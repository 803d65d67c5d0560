"""The parsers of the operator's commands, and what each does."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from flight_replica.connecting import add_client_access, endpoint
from flight_replica.errors import ConfigError

if TYPE_CHECKING:
    from flight_replica._pb import admin_pb2 as pb
    from flight_replica.admin.client import AdminClient

NOT_WELL = 3  # the exit code of `status` where a table isn't serving

_ADMIN = "grpc://HOST:PORT of the server's admin port (--admin-listen)"
Commands = Any  # argparse's subparsers, whose class has no public name


def add_operating_commands(commands: Commands) -> None:
    _add_status(commands)
    _add_tables(commands)
    for name, text in (
        ("pause", "apply nothing to a table: queries get it as it stands, and are told how old that is"),
        ("resume", "follow a paused table again"),
        ("rebase", "adopt a table's newest base now, while the present state serves"),
        ("compact", "make a table's state anew in the order of its key, while the present state serves"),
    ):
        parser = _add(commands, name, text, _TABLE_COMMANDS[name])
        parser.add_argument("table", metavar="TABLE")
    _add(
        commands, "queries", "statements under way, or with --slow those that took long", _queries
    ).add_argument(
        "--slow", action="store_true", help="those that have ended and took long, the newest first"
    )
    cancel = _add(commands, "cancel", "end a statement; its client is told who did it", _cancel)
    cancel.add_argument("id", metavar="ID", help="as `queries` shows it")
    sessions = _add(commands, "sessions", "clients that hold something, or run a statement", _sessions)
    sessions.add_argument("--end", metavar="ID", help="end what this one runs and holds")
    pins = _add(commands, "pins", "moments that clients hold by name", _pins)
    pins.add_argument("--release", nargs=2, metavar=("USER", "NAME"), help="end this one ('' is nobody)")
    level = _add(
        commands, "log-level", "show the least severe messages that are logged, or change it", _log_level
    )
    level.add_argument("level", nargs="?", choices=["debug", "info", "warning", "error"], metavar="LEVEL")


def _add(commands: Commands, name: str, text: str, run: Callable[[argparse.Namespace], int]) -> Any:
    parser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.add_argument("uri", metavar="URI", help=_ADMIN)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    add_client_access(parser)
    parser.set_defaults(run=run)
    return parser


def _client(options: argparse.Namespace) -> AdminClient:
    from flight_replica.admin.client import AdminClient

    return AdminClient(endpoint(options.uri, options))


def _document(message: Any) -> str:
    from flight_replica.operating.values import as_json

    return json.dumps(as_json(message), ensure_ascii=False)


def _tell(options: argparse.Namespace, message: Any, lines: Sequence[str]) -> int:
    for line in [_document(message)] if options.json else lines:
        print(line)
    return 0


# --- status ---------------------------------------------------------------------------------------------


def _add_status(commands: Commands) -> None:
    status = commands.add_parser(
        "status",
        help="how a server and its tables are, and how fresh",
        description="Shows the server, its tables and what runs, on one screen. At a Flight port it is the "
        "rows of merutable_status(). Exit code: 0 every table is serving, 3 some table isn't.",
    )
    status.add_argument(
        "uri", metavar="URI", help="grpc://HOST:PORT of the server's admin port, or Flight port"
    )
    status.add_argument("--watch", action="store_true", help="go on until q or Ctrl-C, drawn in place")
    status.add_argument(
        "--interval",
        type=_interval,
        default=1.0,
        metavar="S",
        help="seconds between two, from 0.1 to 60 (default: %(default)g)",
    )
    status.add_argument(
        "--json", action="store_true", help="print one JSON document; with --watch one a line, as they come"
    )
    add_client_access(status)
    status.set_defaults(run=_status)


def _interval(text: str) -> float:
    from flight_replica.admin.limits import DEFAULT_ADMIN_LIMITS as limits

    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not limits.interval_seconds_min <= seconds <= limits.interval_seconds_max:
        raise argparse.ArgumentTypeError(f"{text!r} isn't a number of seconds from 0.1 to 60")
    return seconds


def _status(options: argparse.Namespace) -> int:
    from flight_replica.client import print_status
    from flight_replica.operating.screen import screen
    from flight_replica.operating.statuses import Statuses

    statuses = Statuses(endpoint(options.uri, options))
    try:
        if options.watch:
            return _watch(options, statuses)
        status = statuses.now()
        if options.json:
            print(_document(status))
        elif statuses.rows is not None:
            print_status(statuses.rows, sys.stdout)
        else:
            print(*screen(status), sep="\n")
        return 0 if all(table.state == "serving" for table in status.tables) else NOT_WELL
    finally:
        statuses.close()


def _watch(options: argparse.Namespace, statuses: Any) -> int:
    from flight_replica.operating.screen import screen
    from flight_replica.operating.watching import watch_in_lines, watch_in_terminal

    def watch() -> Any:
        return statuses.watch(options.interval)

    if options.json:
        watch_in_lines(watch, _document)
    elif sys.stdin.isatty() and sys.stdout.isatty():
        watch_in_terminal(watch)
    else:
        watch_in_lines(watch, lambda status: "\n".join([*screen(status), ""]))
    return 0


# --- tables -----------------------------------------------------------------------------------------------


def _add_tables(commands: Commands) -> None:
    tables = _add(
        commands, "tables", "the tables of a server; `add` one or `remove` one at run time", _tables
    )
    tables.add_argument("action", nargs="?", choices=["add", "remove"], help="until the server starts anew")
    tables.add_argument("table", nargs="?", metavar="TABLE")
    tables.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="add a table that isn't of the primary, as `serve` states it: --set base=merutable:/data/events "
        "--set feed=grpc://HOST:PORT (repeatable; also key, base-seq, lineage, schema, text, insert-only)",
    )


def _tables(options: argparse.Namespace) -> int:
    from flight_replica._pb import admin_pb2 as pb
    from flight_replica.operating.screen import table_lines

    if (options.action is None) != (options.table is None):
        raise ConfigError(f"{options.action or 'tables'}: which table?")
    with _client(options) as client:
        if options.action is None:
            status = client.status()
            return _tell(options, pb.ServerStatus(tables=status.tables), table_lines(status.tables))
        if options.action == "remove":
            done = client.call("RemoveTable", pb.TableRequest(table=options.table))
            return _tell(options, done, [f"table {options.table} is served no longer"])
        done = client.call("AddTable", pb.AddTableRequest(table=options.table, options=_stated(options.set)))
        return _tell(options, done, [f"table {options.table} is being loaded"])


def _stated(texts: Sequence[str]) -> dict[str, str]:
    """The `NAME=VALUE` of --set."""
    found = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not (name and separator and value):
            raise ConfigError(f"--set {text}: expected NAME=VALUE")
        found[name] = value
    return found


def _pause(options: argparse.Namespace) -> int:
    with _client(options) as client:
        table = client.call("PauseTable", _table(options))
        return _tell(options, table, [f"table {table.name} is paused at seq {table.visible_seq}"])


def _resume(options: argparse.Namespace) -> int:
    with _client(options) as client:
        table = client.call("ResumeTable", _table(options))
        return _tell(options, table, [f"table {table.name} follows from seq {table.visible_seq}"])


def _rebase(options: argparse.Namespace) -> int:
    with _client(options) as client:
        return _rebased(options, client.call("RebaseTable", _table(options)))


def _compact(options: argparse.Namespace) -> int:
    with _client(options) as client:
        return _rebased(options, client.call("CompactTable", _table(options)))


def _table(options: argparse.Namespace) -> pb.TableRequest:
    from flight_replica._pb import admin_pb2 as pb

    return pb.TableRequest(table=options.table)


def _rebased(options: argparse.Namespace, done: Any) -> int:
    where = f"base at seq {done.base_seq}, visible seq {done.visible_seq}, {done.state_kind}"
    return _tell(options, done, [f"table {done.table}: {where}, after {done.seconds:.1f} s"])


_TABLE_COMMANDS = {"pause": _pause, "resume": _resume, "rebase": _rebase, "compact": _compact}


# --- statements, sessions, pins, the log ------------------------------------------------------------------


def _queries(options: argparse.Namespace) -> int:
    from flight_replica._pb import admin_pb2 as pb
    from flight_replica.operating.lists import slow_lines
    from flight_replica.operating.screen import query_lines

    with _client(options) as client:
        if options.slow:
            slow = client.call("ListSlowQueries", pb.ListSlowQueriesRequest())
            return _tell(options, slow, slow_lines(slow.queries))
        found = client.call("ListQueries", pb.ListQueriesRequest())
        return _tell(options, found, query_lines(found.queries))


def _cancel(options: argparse.Namespace) -> int:
    from flight_replica._pb import admin_pb2 as pb

    with _client(options) as client:
        query = client.call("CancelQuery", pb.CancelQueryRequest(id=options.id))
        return _tell(options, query, [f"query {query.id} is cancelled, after {query.seconds:.1f} s"])


def _sessions(options: argparse.Namespace) -> int:
    from flight_replica._pb import admin_pb2 as pb
    from flight_replica.operating.lists import session_lines

    with _client(options) as client:
        if options.end is not None:
            ended = client.call("EndSession", pb.EndSessionRequest(id=options.end))
            return _tell(options, ended, [f"session {ended.id} is ended, with {ended.queries} queries"])
        found = client.call("ListSessions", pb.ListSessionsRequest())
        return _tell(options, found, session_lines(found.sessions))


def _pins(options: argparse.Namespace) -> int:
    from flight_replica._pb import admin_pb2 as pb
    from flight_replica.operating.lists import pin_lines

    with _client(options) as client:
        if options.release is not None:
            user, name = options.release
            done = client.call("ReleasePin", pb.ReleasePinRequest(user=user, name=name))
            return _tell(options, done, [f"pin {name} is released"])
        found = client.call("ListPins", pb.ListPinsRequest())
        return _tell(options, found, pin_lines(found.pins))


def _log_level(options: argparse.Namespace) -> int:
    from flight_replica._pb import admin_pb2 as pb

    with _client(options) as client:
        if options.level is None:
            found = client.call("GetLogLevel", pb.GetLogLevelRequest())
            return _tell(options, found, [found.level])
        done = client.call("SetLogLevel", pb.SetLogLevelRequest(level=options.level))
        return _tell(options, done, [f"log level {options.level}, before {done.before}"])
