"""The command line's `sql`: statements of the command line, a file or a pipe, or the interactive shell."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from flight_replica.connecting import adbc_options, add_client_access, endpoint
from flight_replica.errors import Cancelled, ConfigError

if TYPE_CHECKING:
    from flight_replica.shell.connection import SqlConnection

FORMATS = ("table", "csv", "json", "jsonl", "parquet", "arrow")
CTRL_C, BROKEN_PIPE = 130, 141  # exit codes, as shells have them
USAGE = 2

_DESCRIPTION = """Runs a statement and prints its rows; where they stand is told on stderr. Without one,
statements are read from --file or the standard input, each ended by `;`; at a terminal this is an interactive
shell."""


def add_sql_command(parser: argparse.ArgumentParser) -> None:
    """The options of `sql`."""
    parser.description = _DESCRIPTION
    parser.add_argument("uri", metavar="URI", help="grpc://HOST:PORT of a replica or primary")
    parser.add_argument("statement", metavar="STATEMENT", nargs="?")
    parser.add_argument(
        "--file", type=Path, metavar="FILE", help="read statements from this file; - is the standard input"
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        help="json is one array, jsonl a line a row, arrow the IPC file format "
        "(default: by the ending of --output, else table)",
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="write rows to this file, which is there once it is whole"
    )
    add_client_access(parser)
    parser.set_defaults(run=_sql)


def _sql(options: argparse.Namespace) -> int:
    if options.statement is not None and options.file is not None:
        return _usage("give STATEMENT or --file, not both")
    at_terminal = options.statement is None and options.file is None and sys.stdin.isatty()
    statements = [] if at_terminal else _statements(options)
    if not statements and not at_terminal:
        return _usage("there is no statement: give STATEMENT, or --file, or one on the standard input")
    access = _access(options)

    from flight_replica.shell.connection import SqlConnection

    with closing(SqlConnection(options.uri, access)) as connection:
        if at_terminal and sys.stdout.isatty() and options.output is None:
            from flight_replica.shell.shell import Shell

            return Shell(connection, options.format).run()
        if at_terminal:
            return _usage("there is no statement, and the output is no terminal")
        try:
            _run_all(connection, statements, options)
        except Cancelled:
            return CTRL_C
        except BrokenPipeError:  # who reads has had enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return BROKEN_PIPE
    return 0


def _usage(problem: str) -> int:
    print(f"flight-replica sql: {problem}; flight-replica sql --help tells more", file=sys.stderr)
    return USAGE


def _access(options: argparse.Namespace) -> Callable[[], Mapping[str, str]]:
    """The driver's options, as they are now. Wrong ones are told at once."""
    at = endpoint(options.uri, options)
    adbc_options(at)
    return lambda: adbc_options(at)


def _statements(options: argparse.Namespace) -> list[str]:
    if options.statement is not None:
        return [options.statement] if options.statement.strip() else []
    from flight_replica.shell.statements import split

    found, rest = split(_text(options.file))
    return [*found, rest] if rest else found


def _text(file: Path | None) -> str:
    try:
        if file is None or str(file) == "-":
            return sys.stdin.buffer.read().decode()
        return file.read_text()
    except OSError as error:
        raise ConfigError(f"--file {file} can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file or 'the standard input'} isn't UTF-8: {error}") from error


def _run_all(connection: SqlConnection, statements: list[str], options: argparse.Namespace) -> None:
    from flight_replica.shell.formats import BINARY, format_of, opened

    form = format_of(options.output, options.format)
    if form in BINARY and options.output is None and sys.stdout.isatty():
        raise ConfigError(f"--format {form} isn't for a terminal: say --output FILE")
    if form in BINARY and len(statements) > 1:
        raise ConfigError(f"--format {form} is of one statement, there are {len(statements)}")
    with ExitStack() as files:
        out: BinaryIO = sys.stdout.buffer
        if options.output is not None:
            out = files.enter_context(opened(options.output))
        for statement in statements:
            _run(connection, statement, form, out, options.output)


def _run(connection: SqlConnection, statement: str, form: str, out: BinaryIO, output: Path | None) -> None:
    from flight_replica.client import freshness
    from flight_replica.progress import counting
    from flight_replica.shell.connection import Answer
    from flight_replica.shell.formats import write

    def written(answer: Answer) -> list[str]:
        with counting(f"writing {output}", is_shown=output is not None) as report:
            write(answer, form, out, report)
            out.flush()
        return freshness(answer.schema)

    for line in connection.run(statement, written):
        print(line, file=sys.stderr)
