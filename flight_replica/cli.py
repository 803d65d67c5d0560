"""The command line, `flight-replica primary|serve|…`. Parsing and the life of a process."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from flight_replica.arrow_alone import keep_pandas_out
from flight_replica.completion_command import add_completion_command
from flight_replica.errors import ConfigError, ReplicaError
from flight_replica.logs.setup import LEVELS, LogFormat, report_failure, report_fault, start_logging
from flight_replica.operating.commands import add_operating_commands
from flight_replica.sql_command import add_sql_command
from flight_replica.stopping import HangUps, hear_terminate
from flight_replica.table_options import above_zero
from flight_replica.user_command import add_user_command
from flight_replica.verify_command import add_verify_command

if TYPE_CHECKING:
    from flight_replica.config import PrimaryConfig
    from flight_replica.primary.settings import PrimarySettings

_EPILOG = """examples:
  flight-replica primary --data ./primary --listen 127.0.0.1:4711
  flight-replica serve --primary grpc://127.0.0.1:4711 --listen 127.0.0.1:4712
  flight-replica sql grpc://127.0.0.1:4712 "SELECT count(*) FROM orders"
  flight-replica demo --seconds 60
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 done, 1 failed with one line on stderr, 2 wrong usage, 130 Ctrl-C."""
    options = _parser().parse_args(arguments)
    start_logging(options.log_level or "info", LogFormat(options.log_format or "human"))
    # Only plain exceptions reach some gRPC codes, and pyarrow sends their traceback to the client:
    # without entries there is nothing to send (docs/decisions/0003).
    sys.tracebacklimit = 0
    run: Callable[[argparse.Namespace], int] = options.run
    hear_terminate()
    try:
        return run(options)
    except ConfigError as error:
        for line in error.lines:
            report_failure(ConfigError(line))
        return 1
    except (ReplicaError, OSError) as error:
        report_failure(error)
        return 1
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        report_fault(error)
        return 1


class _Parser(argparse.ArgumentParser):
    """Tells wrong usage in one line, as every other failure is told.

    `fill` adds what belongs to it once it is used: one command's options aren't worth loading for another.
    """

    _is_mixing = False

    def __init__(
        self, *args: Any, fill: Callable[[argparse.ArgumentParser], None] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._fill = fill

    def be_filled(self) -> None:
        """Add what belongs to it, unless that is done."""
        fill, self._fill = self._fill, None
        if fill is not None:
            fill(self)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; {self.prog} --help tells more\n")

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        """Options may stand between URI and STATEMENT: argparse alone takes the latter for left out."""
        self.be_filled()
        if self._is_mixing or not any(action.nargs == "?" for action in self._get_positional_actions()):
            return super().parse_known_args(args, namespace)
        self._is_mixing = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._is_mixing = False


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="flight-replica",
        description="A live read replica for merutable tables that speaks Arrow Flight SQL.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"flight-replica {version('flight-replica')}")
    parser.add_argument(
        "--log-level",
        choices=LEVELS,
        help="least severe messages on stderr (default: info)",
    )
    parser.add_argument(
        "--log-format",
        choices=[str(kind) for kind in LogFormat],
        help="lines for people, or one JSON object an event (default: human)",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_primary(commands)
    commands.add_parser(
        "serve",
        fill=_fill_serve,
        help="run a replica",
        description="Runs a replica: follows the tables of a primary (or of another replica), or serves "
        "tables whose base, and feed if there is one, are named one by one, over Flight SQL.",
    )
    commands.add_parser(
        "feed",
        fill=_fill_feed,
        help="run the feed server beside a running merutable engine",
        description="Runs the feed server: reads the log and the files of tables that merutable engines "
        "on this host write, and serves each as a live change feed and as rows, for replicas anywhere.",
    )
    _add_demo(commands)
    _add_clients(commands)
    add_verify_command(
        commands.add_parser("verify", help="whether two servers have the same rows, and which differ")
    )
    commands.add_parser(
        "config",
        fill=_fill_config,
        help="check a configuration file, show what is in effect, or print an example",
        description="The configuration of primary, serve and feed: --config FILE, in TOML.",
    )
    add_user_command(
        commands.add_parser(
            "user",
            help="add a user to a users file, change or remove it",
            description="Adds NAME to the users file of --auth basic, or changes its password and rights. "
            "The password is asked for at the terminal, or is the first line of the input. Servers that "
            "run take the changed file at once.",
        )
    )
    add_completion_command(
        commands.add_parser("completion", help="a script by which bash, zsh or fish completes all this"),
        _whole_parser,
    )
    return parser


_Commands: TypeAlias = "argparse._SubParsersAction[_Parser]"


def _whole_parser() -> argparse.ArgumentParser:
    """The parser with every command's options."""
    parser = _parser()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                command.be_filled()
    return parser


def _fill_serve(parser: argparse.ArgumentParser) -> None:
    from flight_replica.serve_command import add_serve_command

    add_serve_command(parser)


def _fill_feed(parser: argparse.ArgumentParser) -> None:
    from flight_replica.feed_command import add_feed_command

    add_feed_command(parser)


def _fill_config(parser: argparse.ArgumentParser) -> None:
    from flight_replica.config_command import add_config_command

    add_config_command(parser)


def _add_primary(commands: _Commands) -> None:
    commands.add_parser(
        "primary",
        fill=_fill_primary,
        help="run the reference primary: tables you write over Flight SQL, with a change feed",
        description="Runs the reference primary. It keeps its tables in DIR and takes SQL writes and bulk "
        "ingest from any Flight SQL client. A write is answered once it is durable.",
    )


def _fill_primary(parser: argparse.ArgumentParser) -> None:
    from flight_replica.config import PrimaryConfig, add_flags

    add_flags(parser, PrimaryConfig)
    parser.add_argument(
        "--new-lineage",
        action="store_true",
        help="after restoring DIR from a backup: replicas load every table afresh; for this start alone, "
        "so no file says it",
    )
    parser.set_defaults(run=_primary)


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
        "--rows", type=above_zero, default=1_000_000, help="orders to begin with (default: %(default)s)"
    )
    parser.add_argument("--rate", type=above_zero, default=3_000, help="ops a second (default: %(default)s)")
    parser.set_defaults(run=_demo, log_level="warning")
    writer = commands.add_parser("demo-writer", description="The writer of `demo`; runs until it is ended.")
    writer.add_argument("uri")
    writer.add_argument("--rows", type=above_zero, required=True)
    writer.add_argument("--rate", type=above_zero, required=True)
    writer.set_defaults(run=_demo_writer)


def _add_clients(commands: _Commands) -> None:
    add_sql_command(commands.add_parser("sql", help="run statements, or the interactive shell"))
    add_operating_commands(commands)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds > 0:
        raise argparse.ArgumentTypeError(f"{text!r} isn't a number above 0")
    return seconds


# --- servers ----------------------------------------------------------------------------------------


def primary_settings(config: PrimaryConfig) -> PrimarySettings:
    """What a primary takes of its configuration."""
    from flight_replica.config.kinds import memory_text
    from flight_replica.primary.settings import PrimarySettings

    return PrimarySettings(
        retention_ops=config.retention.ops,
        retention_seconds=config.retention.seconds,
        retention_interval_seconds=config.retention.interval_seconds,
        recent_ops_bytes=config.retention.recent_bytes_max,
        publish_seconds=config.base.publish_seconds,
        publish_ops=config.base.publish_ops,
        base_grace_seconds=config.base.grace_seconds,
        ingest_bytes_max=config.writes.ingest_bytes_max,
        transaction_bytes_max=config.writes.transaction_bytes_max,
        group_writes_max=config.writes.group_max,
        memory_limit=memory_text(config.memory_limit),
    )


def _primary(options: argparse.Namespace) -> int:
    keep_pandas_out()

    from flight_replica.access import server_access
    from flight_replica.config import PrimaryConfig
    from flight_replica.config.command_line import configured
    from flight_replica.listening import serve_until_signal
    from flight_replica.primary.service import PrimaryService

    hang_ups = HangUps()
    loaded = configured(options, PrimaryConfig)
    config = loaded.config
    access = server_access(config)
    settings = primary_settings(config)
    service = PrimaryService.open(config.data, settings, new_lineage=options.new_lineage)
    return serve_until_signal(service, loaded, access, hang_ups)


# --- clients ----------------------------------------------------------------------------------------


def _demo(options: argparse.Namespace) -> int:
    from flight_replica.demo import run_demo

    return run_demo(options.seconds, options.rows, options.rate)


def _demo_writer(options: argparse.Namespace) -> int:
    from flight_replica.demo_writer import write_orders

    return write_orders(options.uri, options.rows, options.rate)


if __name__ == "__main__":
    sys.exit(main())
