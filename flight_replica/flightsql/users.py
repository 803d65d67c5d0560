"""Who a call can be from, and the file that says so.

`User` is a name and what it may do; `rights.py` holds it to that. `UsersFile` is the JSON file of users
with passwords, read again when it changes:

    {"users": {"ann": {"password": "scrypt$…", "read": ["orders", "items_*"], "write": [], "ddl": false,
        "admin": false}}}

Only `password` must be there. Without `read` every table may be read, without `write` none written.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass, field
from fnmatch import translate
from functools import lru_cache
from pathlib import Path
from re import Pattern, compile

from flight_replica.errors import ConfigError
from flight_replica.flightsql.passwords import PasswordHash, decode_hash, hash_password
from flight_replica.flightsql.reloaded import ReloadedFile
from flight_replica.sql.statement import fold

_KEYS = frozenset({"password", "read", "write", "ddl", "admin"})


@dataclass(frozen=True, slots=True)
class TableNames:
    """The tables whose name fits one of the patterns: `*` any run, `?` one sign, case doesn't count."""

    patterns: tuple[str, ...]

    def __contains__(self, name: object) -> bool:
        assert isinstance(name, str), "a table's name"
        return any(_compiled(pattern).match(fold(name)) for pattern in self.patterns)


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> Pattern[str]:
    return compile(translate(fold(pattern)))


EVERY_TABLE = TableNames(("*",))
NO_TABLE = TableNames(())


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who calls. Never a secret in here."""

    name: str
    read: TableNames = EVERY_TABLE
    write: TableNames = NO_TABLE  # of those that it may read
    may_change_tables: bool = False  # CREATE, DROP and ALTER those that it may write
    may_administer: bool = False  # see and change what the server does, and for whom

    @property
    def may_all(self) -> bool:
        return self.read == self.write == EVERY_TABLE and self.may_change_tables


ANYBODY = User("", EVERY_TABLE, EVERY_TABLE, True, True)  # a caller where nobody is asked who he is
NOBODY = User("", NO_TABLE)  # a caller who hasn't said yet who he is


@dataclass(frozen=True, slots=True)
class Account:
    """A user with a password."""

    user: User
    password: PasswordHash = field(repr=False)


@dataclass(frozen=True, slots=True)
class UsersChange:
    """Names of users."""

    added: list[str]
    removed: list[str]
    changed: list[str]


class UsersFile:
    """The accounts of a JSON file, as it is now. Thread-safe."""

    def __init__(self, path: Path) -> None:
        """Raises `ConfigError` naming what is wrong in the file."""
        self._file = ReloadedFile(path, _read)

    @staticmethod
    def check(path: Path) -> None:
        """Raise `ConfigError` naming what is wrong in the file."""
        _read(path)

    def use(self, path: Path) -> UsersChange:
        """Take the accounts of this file from now on. Raises `ConfigError`, and then changes nothing."""
        newer = ReloadedFile(path, _read)
        old, self._file = self._file.last, newer
        new = newer.last
        return UsersChange(
            added=sorted(new.keys() - old.keys()),
            removed=sorted(old.keys() - new.keys()),
            changed=sorted(name for name in old.keys() & new.keys() if old[name] != new[name]),
        )

    def account(self, name: str) -> Account | None:
        """The user's account, None where there is none."""
        return self._file.read().get(name)

    def decoy(self) -> PasswordHash:
        """What to check an unknown user's password against, so that it takes as long as a known one's."""
        for account in self._file.read().values():
            return account.password.decoy()
        return _standard_decoy()


@lru_cache(maxsize=1)
def _standard_decoy() -> PasswordHash:
    return hash_password("").decoy()


# --- the file -----------------------------------------------------------------------------------------


def save_user(path: Path, user: User, password: str | None) -> None:
    """Put the user into the file, which is made where there is none; no `password` takes it out.

    Raises `ConfigError`.
    """
    check_user_name(user.name)
    accounts = _read(path) if path.exists() else {}
    if password is None:
        accounts.pop(user.name, None)
    else:
        accounts[user.name] = Account(user, hash_password(password))
    document = {"users": {name: _entry(account) for name, account in sorted(accounts.items())}}
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # for its owner alone
    try:
        with os.fdopen(handle, "w") as file:
            json.dump(document, file, indent=2, ensure_ascii=False)
            file.write("\n")
        os.replace(name, path)
    except BaseException:
        Path(name).unlink()
        raise


def check_user_name(name: str) -> None:
    """Raises `ConfigError` for a name that a client couldn't send."""
    if not name or ":" in name or not name.isprintable():
        raise ConfigError(f"user {name!r}: a name is printable, not empty and without ':'")


def _entry(account: Account) -> dict[str, object]:
    user = account.user
    return {
        "password": account.password.encode(),
        "read": list(user.read.patterns),
        "write": list(user.write.patterns),
        "ddl": user.may_change_tables,
        "admin": user.may_administer,
    }


def _read(path: Path) -> dict[str, Account]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"users file {path} can't be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"users file {path} is no JSON text: {_place(error)}") from None
    entries = document.get("users") if isinstance(document, dict) else None
    if not isinstance(entries, dict) or set(document) != {"users"}:
        raise ConfigError(f'users file {path}: expected {{"users": {{NAME: {{…}}}}}}')
    accounts: dict[str, Account] = {}
    for name, entry in entries.items():
        try:
            accounts[name] = _account(name, entry)
        except ConfigError as error:
            raise ConfigError(f"users file {path}, user {name!r}: {error}") from error
    return accounts


def _place(error: ValueError) -> str:
    """Where the text goes wrong, without the text, which may hold a secret."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg}, line {error.lineno} column {error.colno}"
    return "not UTF-8"


def _account(name: str, entry: object) -> Account:
    check_user_name(name)
    if not isinstance(entry, dict):
        raise ConfigError("expected an object")
    unknown = sorted(set(entry) - _KEYS)
    if unknown:
        raise ConfigError(f"unknown keys {unknown}, known are {sorted(_KEYS)}")
    password = entry.get("password")
    if not isinstance(password, str):
        raise ConfigError("the password's hash is missing")
    may_change, may_administer = entry.get("ddl", False), entry.get("admin", False)
    for key, value in (("ddl", may_change), ("admin", may_administer)):
        if not isinstance(value, bool):
            raise ConfigError(f"{key} is true or false")
    read = table_names(entry.get("read"), EVERY_TABLE, "read")
    write = table_names(entry.get("write"), NO_TABLE, "write")
    return Account(User(name, read, write, may_change, may_administer), decode_hash(password))


def table_names(value: object, absent: TableNames, what: str) -> TableNames:
    """A list of patterns as JSON gives it; `absent` for none. Raises `ConfigError`."""
    if value is None:
        return absent
    if not isinstance(value, list) or not all(isinstance(pattern, str) for pattern in value):
        raise ConfigError(f"{what} is a list of tables' names or patterns")
    return TableNames(tuple(value))
