"""CREATE TABLE, DROP TABLE and ADD COLUMN at the primary, read from their tokens.

Only what a table here can have is understood: columns with a type, NOT NULL, a literal DEFAULT, and one
primary key. Everything else is refused by its name. What types and defaults mean: `declared.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flight_replica.errors import InvalidStatement, NotAllowed, SchemaMismatch
from flight_replica.schema import Column, TableSchema
from flight_replica.sql.declared import declared
from flight_replica.sql.statement import Token, fold, kind_of, single, tokens, unquoted
from flight_replica.sql.walk import HIDDEN_COLUMNS

__all__ = ["AddColumn", "CreateTable", "DropTable", "parse_ddl"]

# What may stand after a column's type; the first of these ends the type.
_CONSTRAINTS = ("NOT", "NULL", "DEFAULT", "PRIMARY", "UNIQUE", "CHECK", "FOREIGN", "REFERENCES")
_AFTER_TYPE = (*_CONSTRAINTS, "COLLATE", "CONSTRAINT", "GENERATED", "AS", "USING")


@dataclass(frozen=True, slots=True)
class CreateTable:
    """CREATE TABLE; raises nothing by itself, whether the name is taken is the engine's to say."""

    name: str
    schema: TableSchema
    if_not_exists: bool

    @property
    def primary_key(self) -> tuple[str, ...]:
        return self.schema.primary_key


@dataclass(frozen=True, slots=True)
class DropTable:
    """DROP TABLE."""

    name: str
    if_exists: bool


@dataclass(frozen=True, slots=True)
class AddColumn:
    """ALTER TABLE … ADD COLUMN; rows from before hold the column's default."""

    table: str
    column: Column
    if_not_exists: bool


Ddl = CreateTable | DropTable | AddColumn


def parse_ddl(sql: str) -> Ddl:
    """The change of tables in `sql`.

    Raises `InvalidStatement` for what DuckDB can't parse, `NotAllowed` for what isn't supported, with
    its name, `SchemaMismatch` for a table that can't be replicated.
    """
    text = single(sql)
    kind = kind_of(text)
    reader = _Reader(tokens(text))
    match kind:
        case "CREATE":
            return _create(reader)
        case "DROP":
            return _drop(reader)
        case "ALTER":
            return _alter(reader)
    raise NotAllowed(f"{kind} statements aren't allowed here, only CREATE TABLE, DROP TABLE and ADD COLUMN")


class _Reader:
    """Tokens from left to right."""

    def __init__(self, words: Sequence[Token]) -> None:
        self._words = words
        self._at = 0

    @property
    def is_at_end(self) -> bool:
        return self._at >= len(self._words)

    def sees(self, *words: str) -> bool:
        return self._at < len(self._words) and self._words[self._at].says(*words)

    def takes(self, *words: str) -> bool:
        """Whether these words come next; they are read then."""
        found = self._words[self._at : self._at + len(words)]
        is_next = len(found) == len(words) and all(a.says(b) for a, b in zip(found, words, strict=True))
        self._at += len(words) * is_next
        return is_next

    def needs(self, *words: str) -> None:
        if not self.takes(*words):
            raise NotAllowed(f"{self.rest()} isn't allowed here; expected {' '.join(words)}")

    def name(self) -> str:
        """A plain name, `main.` before it left out."""
        if self._at + 1 < len(self._words) and self._words[self._at + 1].says("."):
            if fold(unquoted(self._words[self._at].text)) != "main":
                raise NotAllowed(f"{self.rest()}: a table has no schema here")
            self._at += 2
        if self.is_at_end:
            raise InvalidStatement("a name is missing at the end of the statement")
        word = self._words[self._at]
        if not (word.is_word or word.text.startswith('"')):
            raise NotAllowed(f"{self.rest()} isn't allowed here; expected a name")
        self._at += 1
        name = unquoted(word.text)
        if fold(name) in HIDDEN_COLUMNS:
            raise NotAllowed(f"the name '{fold(name)}' isn't allowed in a statement")
        return name

    def text_until(self, *words: str) -> str:
        """The text up to one of `words`, a comma or closing bracket outside of brackets, or the end."""
        start, depth = self._at, 0
        while self._at < len(self._words):
            if depth == 0 and self.sees(*words, ",", ")"):
                break
            depth += self.sees("(", "[") - self.sees(")", "]")
            self._at += 1
        return " ".join(word.text for word in self._words[start : self._at])

    def end(self) -> None:
        if not self.is_at_end:
            raise NotAllowed(f"{self.rest()} isn't allowed here")

    def rest(self) -> str:
        """The next words, for messages."""
        return " ".join(word.text for word in self._words[self._at : self._at + 3])[:100] or "the end"


@dataclass(frozen=True, slots=True)
class _ColumnText:
    name: str
    type: str
    is_not_null: bool
    is_key: bool
    default: str | None


def _create(reader: _Reader) -> CreateTable:
    reader.needs("CREATE")
    if not reader.takes("TABLE"):
        raise NotAllowed(f"CREATE {reader.rest()} isn't allowed here, only CREATE TABLE")
    if_not_exists = reader.takes("IF", "NOT", "EXISTS")
    name = reader.name()
    if reader.sees("AS"):
        raise NotAllowed("CREATE TABLE AS isn't allowed here: a table needs a primary key")
    reader.needs("(")
    columns, key = _elements(reader)
    reader.end()
    return CreateTable(name, _schema(name, columns, key), if_not_exists)


def _elements(reader: _Reader) -> tuple[list[_ColumnText], list[str]]:
    """What stands in the brackets of CREATE TABLE: columns, and the key as it is declared."""
    columns: list[_ColumnText] = []
    keys: list[list[str]] = []
    while True:
        if reader.takes("PRIMARY", "KEY"):
            reader.needs("(")
            keys.append(_names(reader))
        elif reader.sees("UNIQUE", "CHECK", "FOREIGN", "CONSTRAINT", "EXCLUDE", "LIKE"):
            raise NotAllowed(f"{reader.rest()} isn't allowed here: a table has a primary key only")
        else:
            columns.append(_column(reader))
        if not reader.takes(","):
            break
    reader.needs(")")
    keys += [[column.name] for column in columns if column.is_key]
    if len(keys) > 1:
        raise InvalidStatement("a table has one primary key; write PRIMARY KEY (a, b) for several columns")
    return columns, keys[0] if keys else []


def _names(reader: _Reader) -> list[str]:
    names = [reader.name()]
    while reader.takes(","):
        names.append(reader.name())
    reader.needs(")")
    return names


def _column(reader: _Reader) -> _ColumnText:
    name = reader.name()
    kind = reader.text_until(*_AFTER_TYPE)
    is_not_null, is_key, default = False, False, None
    while not (reader.is_at_end or reader.sees(",", ")")):
        if reader.takes("NOT", "NULL"):
            is_not_null = True
        elif reader.takes("NULL"):
            pass
        elif reader.takes("PRIMARY", "KEY"):
            is_key = True
        elif default is None and reader.takes("DEFAULT"):
            default = reader.text_until(*_AFTER_TYPE)
            if default == "" and reader.takes("NULL"):
                default = "NULL"
        else:
            raise NotAllowed(f"column '{name}': {reader.rest()} isn't allowed here")
    return _ColumnText(name, kind, is_not_null, is_key, default)


def _drop(reader: _Reader) -> DropTable:
    reader.needs("DROP")
    if not reader.takes("TABLE"):
        raise NotAllowed(f"DROP {reader.rest()} isn't allowed here, only DROP TABLE")
    if_exists = reader.takes("IF", "EXISTS")
    name = reader.name()
    reader.end()
    return DropTable(name, if_exists)


def _alter(reader: _Reader) -> AddColumn:
    reader.needs("ALTER")
    if not reader.takes("TABLE"):
        raise NotAllowed(f"ALTER {reader.rest()} isn't allowed here, only ALTER TABLE … ADD COLUMN")
    if reader.sees("IF"):
        raise NotAllowed("ALTER TABLE IF EXISTS isn't allowed here")
    table = reader.name()
    if not reader.takes("ADD"):
        raise NotAllowed(f"ALTER TABLE … {reader.rest()} isn't allowed here, only ADD COLUMN")
    if reader.sees("PRIMARY", "CONSTRAINT", "UNIQUE", "CHECK", "FOREIGN"):
        raise NotAllowed(f"ADD {reader.rest()} isn't allowed here, only ADD COLUMN")
    reader.takes("COLUMN")
    if_not_exists = reader.takes("IF", "NOT", "EXISTS")
    text = _column(reader)
    reader.end()
    column = _as_column(text, False)
    if text.is_key or not (column.nullable or column.default is not None):
        raise NotAllowed(
            f"column '{text.name}': an added column is nullable or has a default, and isn't a key"
        )
    return AddColumn(table, column, if_not_exists)


def _schema(table: str, texts: Sequence[_ColumnText], key: Sequence[str]) -> TableSchema:
    by_name = {fold(text.name): text.name for text in texts}
    if len(by_name) != len(texts):
        raise InvalidStatement(f"table '{table}': two columns of one name")
    if not key:
        raise NotAllowed(f"table '{table}' has no PRIMARY KEY: rows are replicated by their key")
    if missing := [name for name in key if fold(name) not in by_name]:
        raise InvalidStatement(f"table '{table}': key column '{missing[0]}' is none of its columns")
    names = tuple(by_name[fold(name)] for name in key)
    return TableSchema(tuple(_as_column(text, text.name in names) for text in texts), names)


def _as_column(text: _ColumnText, is_key: bool) -> Column:
    try:
        kind, value = declared(text.type, text.default)
    except (SchemaMismatch, InvalidStatement) as error:
        raise type(error)(f"column '{text.name}': {error}") from error
    return Column(text.name, kind, not (is_key or text.is_not_null), value)
