"""JDBC connections and statements of the Java client program, as Python objects for the tests."""

from __future__ import annotations

import itertools
from urllib.parse import quote

from tests.clients.programs import Program

Row = tuple[object, ...]

_numbers = itertools.count()


class Jdbc:
    """What connects: one JVM, any number of connections."""

    def __init__(self, program: Program) -> None:
        self._program = program

    def connect(self, address: str, *, is_encrypted: bool = False, **properties: object) -> Connection:
        """`properties` go into the URL, with `_` for `-` in names of call headers (`merutable_…`)."""
        given = {"useEncryption": "true" if is_encrypted else "false"}
        for name, value in properties.items():
            spelled = name.replace("_", "-") if name.startswith("merutable_") else name
            given[spelled] = quote(str(value), safe="/.")
        text = "&".join(f"{name}={value}" for name, value in given.items())
        name = f"connection{next(_numbers)}"
        self._program.do("open", **{"as": name, "url": f"jdbc:arrow-flight-sql://{address}/?{text}"})
        return Connection(self._program, name)


class Connection:
    """One JDBC connection. Every method raises `ClientError` for what the driver throws."""

    def __init__(self, program: Program, name: str) -> None:
        self._program = program
        self._name = name

    def call(self, method: str, *arguments: object) -> object:
        return self._program.do("call", on=self._name, method=method, arguments=arguments)

    def rows(self, sql: str, *, getter: str = "getObject", timeout_seconds: int = 0) -> list[Row]:
        """The rows of `Statement.executeQuery`, each value taken with `getter`."""
        answer = self._program.do(
            "query", connection=self._name, sql=sql, getter=getter, timeout_seconds=timeout_seconds
        )
        return _rows(answer)

    def columns(self, sql: str) -> list[dict[str, object]]:
        """What ResultSetMetaData says: label, name, type, precision, scale."""
        answer = self._program.do("columns", connection=self._name, sql=sql)
        assert isinstance(answer, list)
        return answer

    def count(self, sql: str) -> tuple[int, int]:
        """How many rows, and the sum of their first column."""
        count, total = self._program.do("count", connection=self._name, sql=sql)  # type: ignore[misc]
        return count, total

    def statement(self) -> Statement:
        name = f"statement{next(_numbers)}"
        self._program.do("statement", connection=self._name, **{"as": name})
        return Statement(self._program, name)

    def prepare(self, sql: str) -> Statement:
        name = f"statement{next(_numbers)}"
        self._program.do("prepare", connection=self._name, sql=sql, **{"as": name})
        return Statement(self._program, name)

    def metadata(self, method: str, *arguments: object) -> list[dict[str, object]]:
        """The rows of a method of DatabaseMetaData that gives a result set."""
        answer = self._program.do("call", on=f"{self._name}.metadata", method=method, arguments=arguments)
        assert isinstance(answer, dict)
        return [dict(zip(answer["columns"], row, strict=True)) for row in answer["rows"]]

    def every_metadata(self) -> dict[str, dict[str, object]]:
        """Each method of DatabaseMetaData without arguments: {"ok": answer} or {"error": …}, by its name."""
        answer = self._program.do("every_metadata", connection=self._name)
        assert isinstance(answer, dict)
        return answer


class Statement:
    """A JDBC statement, prepared or not."""

    def __init__(self, program: Program, name: str) -> None:
        self._program = program
        self._name = name

    def call(self, method: str, *arguments: object) -> object:
        return self._program.do("call", on=self._name, method=method, arguments=arguments)

    def rows(self) -> list[Row]:
        """Execute a prepared query."""
        return _rows(self.call("executeQuery"))

    def parameter_types(self) -> list[str]:
        """The type of each parameter, in the driver's words: those of Arrow."""
        answer = self._program.do("parameters", on=self._name)
        assert isinstance(answer, list)
        return answer

    def start(self, sql: str) -> None:
        """Execute a query in a thread of the program's; `join` gives its rows."""
        self._program.do("start", on=self._name, sql=sql)

    def start_count(self, sql: str, pause_at: int) -> None:
        """As `start`, with the rows counted alone, and a pause at so many until `go_on`."""
        self._program.do("start_count", on=self._name, sql=sql, pause_at=pause_at)

    def counted(self) -> int:
        """How many rows have come so far."""
        count = self._program.do("counted", on=self._name)
        assert isinstance(count, int)
        return count

    def go_on(self) -> None:
        self._program.do("go_on", on=self._name)

    def waits_for_rows(self) -> bool:
        """Whether some query has its schema and not yet its rows. To cancel earlier is a race in the driver,
        which then may leave the stream open."""
        return bool(self._program.do("waits_for_rows"))

    def join(self) -> list[Row]:
        return _rows(self._program.do("join", on=self._name))

    def close(self) -> None:
        self.call("close")


def _rows(answer: object) -> list[Row]:
    assert isinstance(answer, dict)
    return [tuple(row) for row in answer["rows"]]
