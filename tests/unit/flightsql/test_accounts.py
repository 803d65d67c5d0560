"""Passwords, the users file, and how often a login may fail."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from flight_replica.errors import ConfigError, Unauthenticated
from flight_replica.flightsql import login_limits
from flight_replica.flightsql.login_limits import FailedLogins
from flight_replica.flightsql.passwords import PasswordHash, decode_hash, hash_password
from flight_replica.flightsql.users import (
    EVERY_TABLE,
    NO_TABLE,
    TableNames,
    User,
    UsersFile,
    save_user,
)
from tests.accounts import write_users


def _hash(password: str) -> PasswordHash:
    return hash_password(password, n=16, p=1)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


# --- passwords ----------------------------------------------------------------------------------------


def test_a_hash_matches_its_password_alone_also_after_writing_and_reading() -> None:
    kept = decode_hash(_hash("pässword").encode())
    assert kept.matches("pässword")
    assert not kept.matches("passwörd")
    assert not kept.matches("")


def test_two_hashes_of_one_password_differ() -> None:
    assert _hash("x").encode() != _hash("x").encode()


def test_a_decoy_costs_the_same_and_matches_nothing() -> None:
    kept = _hash("x")
    decoy = kept.decoy()
    assert (decoy.n, decoy.r, decoy.p, decoy.salt) == (kept.n, kept.r, kept.p, kept.salt)
    assert not decoy.matches("x")


def test_a_new_hash_costs_what_is_recommended() -> None:
    kept = hash_password("x")
    assert (kept.n, kept.r, kept.p) == (16_384, 8, 5)


@pytest.mark.parametrize(
    "text",
    [
        "secret",
        "",
        "scrypt$16$8$1$AA==",
        "scrypt$16$8$1$AA==$AA==",
        "scrypt$17$8$1$AA==$" + "A" * 43 + "=",
        "scrypt$4294967296$8$1$AA==$" + "A" * 43 + "=",
        "scrypt$16$8$1$!!$" + "A" * 43 + "=",
        "md5$16$8$1$AA==$" + "A" * 43 + "=",
    ],
)
def test_what_is_no_hash_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        decode_hash(text)
    assert text == "" or text not in str(caught.value)


def test_a_hash_stays_out_of_repr() -> None:
    assert repr(_hash("x")) == "PasswordHash(***)"


# --- the users file -----------------------------------------------------------------------------------


def test_the_file_says_what_each_user_may_do(tmp_path: Path) -> None:
    users = UsersFile(
        write_users(
            tmp_path / "users.json",
            ann={"password": "a", "read": ["orders", "Item_*"], "write": ["orders"], "ddl": True},
            bob={"password": "b"},
        )
    )
    ann, bob = users.account("ann"), users.account("bob")
    assert ann is not None and bob is not None
    assert ann.user == User("ann", TableNames(("orders", "Item_*")), TableNames(("orders",)), True)
    assert bob.user == User("bob", EVERY_TABLE, NO_TABLE, False)
    assert users.account("Ann") is None


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("orders", "orders", True),
        ("orders", "ORDERS", True),
        ("Orders", "orders", True),
        ("orders", "orders2", False),
        ("orders", "my orders", False),
        ("o*", "orders", True),
        ("o?ders", "orders", True),
        ("*", "a\nb", True),
        ("a", "a\n", False),
        ("a.b", "axb", False),
        ("straße", "STRAßE", True),
        ("i", "İ", False),
    ],
)
def test_patterns_are_matched_whole_and_without_case(pattern: str, name: str, fits: bool) -> None:
    assert (name in TableNames((pattern,))) is fits


def test_a_user_is_saved_and_found_again_and_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "users.json"
    save_user(path, User("ann", TableNames(("orders",)), NO_TABLE, False), "secret")
    save_user(path, User("bob"), "other")
    users = UsersFile(path)
    ann = users.account("ann")
    assert ann is not None and ann.password.matches("secret")
    assert ann.user == User("ann", TableNames(("orders",)))
    assert path.stat().st_mode & 0o777 == 0o600
    assert "secret" not in path.read_text()
    save_user(path, User("bob"), None)
    assert users.account("bob") is None
    assert [entry.name for entry in tmp_path.iterdir()] == ["users.json"]


def test_a_changed_file_counts_at_the_next_look(tmp_path: Path) -> None:
    path = write_users(tmp_path / "users.json", ann={"password": "a"})
    users = UsersFile(path)
    write_users(path, bob={"password": "b"})
    assert users.account("ann") is None
    assert users.account("bob") is not None


def test_a_file_that_turns_bad_changes_nothing_and_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_users(tmp_path / "users.json", ann={"password": "a"})
    users = UsersFile(path)
    path.write_text('{"users": {"ann": {"password": "plaintext"}}}')
    with caplog.at_level(logging.ERROR):
        assert users.account("ann") is not None
        assert users.account("ann") is not None
        path.unlink()
        assert users.account("ann") is not None
    assert len(caplog.records) == 2
    assert "plaintext" not in caplog.text


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", "no JSON"),
        ("[]", "expected"),
        ('{"users": {}, "more": 1}', "expected"),
        ('{"users": {"a": 1}}', "user 'a': expected an object"),
        ('{"users": {"a:b": {}}}', "without ':'"),
        ('{"users": {"": {}}}', "not empty"),
        ('{"users": {"a": {"pasword": "x"}}}', "unknown keys"),
        ('{"users": {"a": {}}}', "hash is missing"),
        ('{"users": {"a": {"password": "x", "read": "orders"}}}', "read is a list"),
        ('{"users": {"a": {"password": "x", "write": [1]}}}', "write is a list"),
        ('{"users": {"a": {"password": "x", "ddl": "yes"}}}', "ddl is true or false"),
    ],
)
def test_a_wrong_file_is_refused_with_place_and_reason(tmp_path: Path, document: str, message: str) -> None:
    path = tmp_path / "users.json"
    path.write_text(document)
    with pytest.raises(ConfigError, match=r"users\.json") as caught:
        UsersFile(path)
    assert message in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        UsersFile(tmp_path / "users.json")


def test_saving_into_a_wrong_file_leaves_it_alone(tmp_path: Path) -> None:
    path = tmp_path / "users.json"
    path.write_text(json.dumps({"users": {"ann": {"password": "oops"}}}))
    before = path.read_text()
    with pytest.raises(ConfigError):
        save_user(path, User("bob"), "x")
    assert path.read_text() == before


# --- failed logins ------------------------------------------------------------------------------------


def test_after_five_failures_a_user_waits_ten_seconds_for_each_next_try() -> None:
    clock = Clock()
    failed = FailedLogins(clock)
    for _ in range(5):
        failed.check("ann")
        failed.failed("ann")
    with pytest.raises(Unauthenticated, match=r"try again in 10\.0 s"):
        failed.check("ann")
    failed.check("bob")
    clock.now += 10.0
    failed.check("ann")
    failed.failed("ann")
    with pytest.raises(Unauthenticated, match=r"try again in 10\.0 s"):
        failed.check("ann")


def test_a_login_that_succeeds_begins_the_count_anew() -> None:
    failed = FailedLogins(Clock())
    for _ in range(4):
        failed.failed("ann")
    failed.succeeded("ann")
    for _ in range(4):
        failed.failed("ann")
    failed.check("ann")


def test_guesses_at_many_names_end_at_the_count_of_all() -> None:
    clock = Clock()
    failed = FailedLogins(clock)
    for number in range(int(login_limits.ALL_FAILURES_MAX)):
        failed.failed(f"user {number}")
    with pytest.raises(Unauthenticated, match="too many logins failed"):
        failed.check("one more")
    clock.now += 1.0
    failed.check("one more")


def test_names_are_forgotten_when_their_failures_count_no_more() -> None:
    clock = Clock()
    failed = FailedLogins(clock)
    for number in range(1000):
        failed.failed(f"user {number}")
        clock.now += login_limits.ALL_SECONDS
    assert failed.names <= login_limits.USER_SECONDS / login_limits.ALL_SECONDS + 1
