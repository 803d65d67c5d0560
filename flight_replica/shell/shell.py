"""`Shell`: SQL at a terminal: statements, answers with their freshness, commands that begin with a dot."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import BinaryIO

from prompt_toolkit.utils import get_cwidth

from flight_replica.client import freshness
from flight_replica.errors import Cancelled, ConfigError, ReplicaError, TableNotFound
from flight_replica.progress import counting
from flight_replica.shell.connection import Answer, SqlConnection
from flight_replica.shell.formats import BINARY, FORMATS, TABLE, format_of, opened, write
from flight_replica.shell.prompt import Prompt
from flight_replica.shell.statements import split
from flight_replica.shell.words import Names
from flight_replica.text_table import printable

__all__ = ["Shell"]

HELP = """\
A statement ends with ; and may take several lines. Ctrl-C ends the one that runs, Ctrl-D the shell.

.tables             the tables of the server, and how fresh they are          \\dt
.describe TABLE     its columns, types and key                                \\d TABLE
.format [FORMAT]    how rows are shown: table, csv, json, jsonl, parquet, arrow
.output [FILE]      write rows to FILE; without one, show them here again
.timing [on|off]    show how long each statement took                         \\timing
.help               this                                                      \\?
.quit               end                                                       \\q"""

_ALIASES = {"\\dt": ".tables", "\\d": ".describe", "\\timing": ".timing", "\\?": ".help", "\\q": ".quit"}
_TABLES = """SELECT table_name, state, visible_seq, high_water, lag_ms FROM merutable_status() ORDER BY ALL"""
_NAMES = """SELECT table_name, column_name FROM information_schema.columns
ORDER BY table_name, ordinal_position"""
_COLUMNS = """SELECT column_name, data_type, is_nullable, k.ordinal_position AS key_place
FROM information_schema.columns c LEFT JOIN information_schema.key_column_usage k
USING (table_name, column_name) WHERE lower(table_name) = lower('{}') ORDER BY c.ordinal_position"""


class Shell:
    """One shell on one connection, which stays its owner's. For the main thread."""

    def __init__(self, connection: SqlConnection, form: str | None = None) -> None:
        self._connection = connection
        self._form = form or TABLE
        self._output: Path | None = None
        self._begun: set[Path] = set()  # files that were written to since .output named them
        self._is_timed = True
        self._prompt = Prompt(self._names)
        self._is_over = False

    def run(self) -> int:
        """Until .quit or Ctrl-D; the exit code."""
        print(f"{printable(self._connection.uri)}; .help tells more, .quit ends")
        self._try(self._greet)
        while not self._is_over:
            try:
                text = self._prompt.ask()
            except KeyboardInterrupt:
                continue
            except EOFError:
                break
            self._try(partial(self._obey, text))
        return 0

    def _greet(self) -> None:
        """A server that isn't there is told before anything is typed."""
        count = len(self._prompt.load_names().columns)
        print(f"{count} {'table' if count == 1 else 'tables'}")

    def _try(self, work: Callable[[], object]) -> None:
        """Whatever fails is one line, and the shell goes on."""
        try:
            work()
        except Cancelled:
            print("cancelled", file=sys.stderr, flush=True)
        except (ReplicaError, OSError) as error:
            _flush()
            print(f"error: {printable(str(error))}", file=sys.stderr, flush=True)
        except KeyboardInterrupt:
            print("cancelled", file=sys.stderr, flush=True)

    def _obey(self, text: str) -> None:
        stripped = text.strip()
        if stripped.startswith((".", "\\")):
            self._command(stripped.rstrip(";").strip())
            return
        found, rest = split(text)
        for statement in [*found, rest] if rest else found:
            self._statement(statement)

    # --- statements -------------------------------------------------------------------------------

    def _statement(self, statement: str) -> None:
        began = time.monotonic()
        lines = self._show(statement) if self._output is None else self._save(statement, self._output)
        seconds = time.monotonic() - began
        if self._is_timed:
            lines.append(f"{seconds * 1000:.0f} ms" if seconds < 10 else f"{seconds:.1f} s")
        if lines:
            print(f"[{'; '.join(lines)}]", flush=True)
        self._prompt.forget_names()  # the statement may have made or dropped one

    def _show(self, statement: str) -> list[str]:
        if self._form in BINARY:
            raise ConfigError(f"{self._form} isn't for a terminal: say .output FILE, or .format table")
        if self._form != TABLE:
            return self._connection.run(statement, lambda answer: self._written(answer, sys.stdout.buffer))
        page = io.BytesIO()
        lines = self._connection.run(statement, lambda answer: self._written(answer, page))
        show_page(page.getvalue().decode())
        return lines

    def _written(self, answer: Answer, out: BinaryIO) -> list[str]:
        write(answer, self._form, out)
        out.flush()
        return freshness(answer.schema)

    def _save(self, statement: str, path: Path) -> list[str]:
        """Rows into the file: behind those of earlier statements where the format can be gone on with."""

        def written(answer: Answer) -> list[str]:
            with ExitStack() as files, counting(f"writing {path}") as report:
                goes_on = path in self._begun and self._form not in BINARY
                out = files.enter_context(path.open("ab") if goes_on else opened(path))
                count = write(answer, self._form, out, report)
            return [f"{count} rows to {path}", *freshness(answer.schema)]

        lines = self._connection.run(statement, written)
        self._begun.add(path)
        return lines

    def _names(self) -> Names:
        """What the server has, for completion; over a connection of its own, in a thread of the prompt."""
        columns: dict[str, list[str]] = {}

        def read(answer: Answer) -> None:
            for batch in answer:
                for table, column in zip(*(part.to_pylist() for part in batch.columns), strict=True):
                    columns.setdefault(table, []).append(column)

        with closing(self._connection.another()) as connection:
            connection.run(_NAMES, read)
        return Names(columns)

    # --- commands ---------------------------------------------------------------------------------

    def _command(self, text: str) -> None:
        name, _, rest = text.partition(" ")
        rest = rest.strip()
        name = ".tables" if name == "\\d" and not rest else _ALIASES.get(name, name)
        match name:
            case ".tables":
                if not self._plainly(_TABLES):
                    print("no tables")
            case ".describe":
                self._describe(rest)
            case ".format":
                self._set_format(rest)
            case ".output":
                self._set_output(rest)
            case ".timing":
                self._set_timing(rest)
            case ".help":
                print(HELP)
            case ".quit" | ".exit":
                self._is_over = True
            case _:
                raise ConfigError(f"there is no command {name}: .help tells which there are")

    def _describe(self, name: str) -> None:
        if not name:
            raise ConfigError(".describe needs a table's name")
        bare = name[1:-1].replace('""', '"') if name.startswith('"') and name.endswith('"') else name
        if not self._plainly(_COLUMNS.format(bare.replace("'", "''"))):
            raise TableNotFound(f"there is no table {bare!r}")

    def _plainly(self, statement: str) -> int:
        """Show rows as a table, whatever the format is, if there are any; how many."""
        page = io.BytesIO()
        count = self._connection.run(statement, lambda answer: write(answer, TABLE, page))
        if count:
            show_page(page.getvalue().decode())
        return count

    def _set_format(self, name: str) -> None:
        if name and name not in FORMATS:
            raise ConfigError(f"there is no format {name}: there are {', '.join(FORMATS)}")
        self._form = name or self._form
        print(f"format {self._form}")

    def _set_output(self, name: str) -> None:
        if not name:
            self._output = None
            self._form = TABLE if self._form in BINARY else self._form
            print("rows are shown here")
            return
        self._output = Path(name).expanduser()
        self._form = format_of(self._output, None if self._form == TABLE else self._form)
        self._begun.discard(self._output)
        print(f"rows go to {self._output} as {self._form}")

    def _set_timing(self, word: str) -> None:
        if word not in ("", "on", "off"):
            raise ConfigError(f".timing is on or off, not {word}")
        self._is_timed = word == "on" if word else not self._is_timed
        print(f"timing {'on' if self._is_timed else 'off'}")


def show_page(text: str) -> None:
    """Print the text, by a pager where it is larger than the terminal: $PAGER, else less."""
    size = shutil.get_terminal_size()
    lines = text.splitlines()
    fits = len(lines) < size.lines - 1 and all(get_cwidth(line) <= size.columns for line in lines)
    pager = os.environ.get("PAGER", "less")
    if fits or not pager or shutil.which(pager.split()[0]) is None:
        sys.stdout.write(text)
        _flush()
        return
    environment = {"LESS": "-FRSX", **os.environ}
    with subprocess.Popen(pager, shell=True, stdin=subprocess.PIPE, env=environment) as process:
        try:
            process.communicate(text.encode())
        except KeyboardInterrupt:  # less takes it for its own
            process.wait()


def _flush() -> None:
    sys.stdout.flush()
