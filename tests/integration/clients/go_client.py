"""Connections of the Go client program, as Python objects for the tests."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from tests.clients.programs import Program, answer_of

Row = tuple[object, ...]

_numbers = itertools.count()


class Go:
    """What connects: one Go process, any number of connections."""

    def __init__(self, program: Program) -> None:
        self._program = program

    def open(self, address: str, *, login: str = "", parameters: str = "timeout=20s") -> Database:
        """A database/sql pool. `login` is `user:password@`, `parameters` those of the driver's URL."""
        name = f"database{next(_numbers)}"
        self._program.do("open", url=f"flightsql://{login}{address}?{parameters}", **{"as": name})
        return Database(self._program, name)

    def raw(self, address: str, **headers: str) -> Raw:
        """The Flight SQL client itself; `headers` with `_` for `-` go with each call."""
        name = f"raw{next(_numbers)}"
        given = {key.replace("_", "-"): value for key, value in headers.items()}
        self._program.do("raw_open", url=address, headers=given, **{"as": name})
        return Raw(self._program, name)


class Session:
    """What runs SQL: a database, a transaction, a prepared statement. Raises `ClientError`."""

    def __init__(self, program: Program, name: str) -> None:
        self._program = program
        self._name = name

    def rows(self, sql: str, *arguments: object, timeout_ms: int = 0) -> list[Row]:
        return _rows(self._do("query", sql=sql, arguments=arguments, timeoutms=timeout_ms))

    def count(self, sql: str) -> Sequence[int]:
        """How many rows, and the sum of their first column."""
        return self._do("count", sql=sql)  # type: ignore[return-value]

    def execute(self, sql: str, *arguments: object) -> object:
        """The number of rows affected."""
        return self._do("exec", sql=sql, arguments=arguments)

    def _do(self, verb: str, **fields: object) -> object:
        return self._program.do(verb, on=self._name, **fields)


class Transaction(Session):
    def commit(self) -> None:
        self._do("commit")

    def rollback(self) -> None:
        self._do("rollback")


class Prepared(Session):
    def close(self) -> None:
        self._do("close_statement")


class Database(Session):
    def begin(self) -> Transaction:
        name = f"transaction{next(_numbers)}"
        self._do("begin", **{"as": name})
        return Transaction(self._program, name)

    def prepare(self, sql: str) -> Prepared:
        name = f"statement{next(_numbers)}"
        self._do("prepare", sql=sql, **{"as": name})
        return Prepared(self._program, name)

    def start(self, sql: str) -> Running:
        """Query in a goroutine."""
        name = f"running{next(_numbers)}"
        self._do("start", sql=sql, **{"as": name})
        return Running(self._program, name)

    def close(self) -> None:
        self._do("close")


class Running:
    def __init__(self, program: Program, name: str) -> None:
        self._program = program
        self._name = name

    def cancel(self) -> None:
        """Cancel the context of the query."""
        self._program.do("cancel", on=self._name)

    def join(self) -> list[Row]:
        answer = self._program.do("join", on=self._name)
        assert isinstance(answer, dict)
        return _rows(answer_of(answer))


class Raw:
    """Verbs are the methods of arrow-go's flightsql.Client in small letters: `catalogs`, `tables`, …"""

    def __init__(self, program: Program, name: str) -> None:
        self._program = program
        self._name = name

    def do(self, verb: str, **fields: object) -> object:
        return self._program.do(f"raw_{verb}", on=self._name, **fields)

    def rows(self, verb: str, **fields: object) -> list[dict[str, object]]:
        answer = self.do(verb, **fields)
        assert isinstance(answer, list)
        return answer


def _rows(answer: object) -> list[Row]:
    assert isinstance(answer, dict)
    return [tuple(row) for row in answer["rows"]]
