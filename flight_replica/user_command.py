"""The command `user`: who is in a users file, with which password and rights."""

from __future__ import annotations

import argparse
import getpass
import sys
from pathlib import Path

from flight_replica.errors import ConfigError


def add_user_command(parser: argparse.ArgumentParser) -> None:
    """FILE NAME --read … --write … --ddl --remove."""
    parser.add_argument("file", type=Path, metavar="FILE", help="the users file; made where there is none")
    parser.add_argument("name", metavar="NAME")
    parser.add_argument(
        "--read",
        action="append",
        metavar="PATTERN",
        help="a table that the user may read, or several by * and ? (repeatable; default: as before, or all)",
    )
    parser.add_argument(
        "--write",
        action="append",
        metavar="PATTERN",
        help="a table whose rows it may change at a primary (repeatable; default: as before, or none)",
    )
    parser.add_argument(
        "--ddl", action="store_true", help="it may create, drop and alter the tables it may write"
    )
    parser.add_argument(
        "--admin",
        action="store_true",
        help="it may see and change what servers do: status of all, other users' queries, pause, rebase",
    )
    parser.add_argument("--remove", action="store_true", help="remove the user")
    parser.set_defaults(run=_user)


def _user(options: argparse.Namespace) -> int:
    """Servers take the changed file at the next call."""
    from flight_replica.flightsql.users import TableNames, User, UsersFile, check_user_name, save_user

    check_user_name(options.name)
    account = UsersFile(options.file).account(options.name) if options.file.exists() else None
    if options.remove:
        if account is None:
            raise ConfigError(f"users file {options.file} has no user {options.name!r}")
        save_user(options.file, account.user, None)
        return 0
    before = account.user if account is not None else User(options.name)
    user = User(
        options.name,
        before.read if options.read is None else TableNames(tuple(options.read)),
        before.write if options.write is None else TableNames(tuple(options.write)),
        before.may_change_tables or options.ddl,
        before.may_administer or options.admin,
    )
    save_user(options.file, user, _new_password(options.name))
    return 0


def _new_password(name: str) -> str:
    """From the terminal, twice, or the first line of what is piped in."""
    if sys.stdin.isatty():
        password = getpass.getpass(f"password of {name}: ")
        if getpass.getpass("again: ") != password:
            raise ConfigError("the two passwords differ")
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    if not password:
        raise ConfigError("the password is empty")
    return password
