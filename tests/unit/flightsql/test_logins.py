"""User and password, tokens and JWTs as `authorization` headers, right and wrong."""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from flight_replica.errors import ConfigError, Unauthenticated
from flight_replica.flightsql import auth
from flight_replica.flightsql.auth import BasicLogins, JwtLogins, Login, OpenLogins, decode_basic
from flight_replica.flightsql.jwt_logins import JwtSettings, JwtVerifier
from flight_replica.flightsql.passwords import PasswordHash
from flight_replica.flightsql.tokens import Tokens
from flight_replica.flightsql.users import EVERY_TABLE, NO_TABLE, TableNames, UsersFile
from tests.accounts import write_users

SECRET = b"a secret of more than thirty-two bytes"
AUDIENCE = "replicas"


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def users(tmp_path: Path) -> Path:
    return write_users(
        tmp_path / "users.json", ann={"password": "a:pw", "read": ["orders"]}, bob={"password": "b-pw"}
    )


@pytest.fixture
def logins(users: Path, clock: Clock) -> BasicLogins:
    return BasicLogins(UsersFile(users), Tokens(seconds=100.0, now=clock), clock)


@pytest.fixture
def hashings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The passwords that were hashed."""
    found: list[str] = []
    matches = PasswordHash.matches

    def noted(kept: PasswordHash, password: str) -> bool:
        found.append(password)
        return matches(kept, password)

    monkeypatch.setattr(PasswordHash, "matches", noted)
    return found


def _basic(user: str, password: str, padded: bool = True) -> dict[str, list[str]]:
    text = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {"authorization": ["Basic " + (text if padded else text.rstrip("="))]}


def _bearer(token: str) -> dict[str, list[str]]:
    return {"authorization": [f"Bearer {token}"]}


def _token(login: Login) -> str:
    assert login.reply is not None
    scheme, _, token = login.reply.partition(" ")
    assert scheme == "Bearer"
    return token


# --- nobody asked -------------------------------------------------------------------------------------


def test_open_logins_let_everybody_in_and_give_a_token_at_the_handshake() -> None:
    logins = OpenLogins()
    for headers in ({}, _basic("x", "y"), _bearer("z"), {"authorization": ["nonsense"]}):
        assert logins.login(headers, is_handshake=False).user.may_all
    first, second = (logins.login({}, is_handshake=True) for _ in range(2))
    assert _token(first) == first.id != second.id


# --- user and password --------------------------------------------------------------------------------


@pytest.mark.parametrize("padded", [True, False])
def test_a_right_password_is_taken_in_the_handshake_and_on_every_call(
    logins: BasicLogins, padded: bool
) -> None:
    for is_handshake in (True, False):
        login = logins.login(_basic("ann", "a:pw", padded), is_handshake)
        assert login.user.name == "ann"
        assert login.user.read == TableNames(("orders",))
        assert (login.reply is not None) is is_handshake


@pytest.mark.parametrize(
    "headers",
    [
        _basic("ann", "b-pw"),
        _basic("ann", ""),
        _basic("carol", "a:pw"),
        _basic("ANN", "a:pw"),
        _basic("", ""),
        {"authorization": ["Basic"]},
        {"authorization": ["Basic !!!"]},
        {"authorization": ["Basic " + base64.b64encode(b"\xff\xfe:x").decode()]},
        {"authorization": ["Basic " + base64.b64encode(b"no colon").decode()]},
        {"authorization": ["Digest x"]},
        {"authorization": [""]},
        {"authorization": [*_basic("ann", "a:pw")["authorization"], "Bearer x"]},
        {"auth-token-bin": [b"\xff"]},
        {"auth-token-bin": [b""]},
        {},
    ],
)
def test_everything_else_is_refused(logins: BasicLogins, headers: auth.Headers) -> None:
    with pytest.raises(Unauthenticated):
        logins.login(headers, is_handshake=False)


def test_a_wrong_password_and_an_unknown_user_cannot_be_told_apart(
    logins: BasicLogins, hashings: list[str]
) -> None:
    texts = set()
    for user in ("ann", "nobody"):
        with pytest.raises(Unauthenticated) as caught:
            logins.login(_basic(user, "guess"), is_handshake=True)
        texts.add(str(caught.value))
    assert texts == {"wrong user or password"}
    assert hashings == ["guess", "guess"]


def test_a_password_is_hashed_once_however_many_calls_bring_it(
    logins: BasicLogins, hashings: list[str], clock: Clock
) -> None:
    for _ in range(100):
        logins.login(_basic("bob", "b-pw"), is_handshake=False)
    assert hashings == ["b-pw"]
    clock.now += auth.KNOWN_SECONDS
    logins.login(_basic("bob", "b-pw"), is_handshake=False)
    assert hashings == ["b-pw", "b-pw"]


def test_known_passwords_are_bounded(
    logins: BasicLogins, hashings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "KNOWN_MAX", 1)
    for user, password in (("ann", "a:pw"), ("bob", "b-pw"), ("ann", "a:pw")):
        logins.login(_basic(user, password), is_handshake=False)
    assert len(hashings) == 3


def test_a_changed_password_ends_the_old_one_its_tokens_and_its_calls(
    logins: BasicLogins, users: Path
) -> None:
    first = logins.login(_basic("bob", "b-pw"), is_handshake=True)
    assert first.is_good()
    write_users(users, bob={"password": "new"})
    assert not first.is_good()
    with pytest.raises(Unauthenticated, match="wrong user or password"):
        logins.login(_basic("bob", "b-pw"), is_handshake=False)
    with pytest.raises(Unauthenticated, match="another password"):
        logins.login(_bearer(_token(first)), is_handshake=False)
    assert logins.login(_basic("bob", "new"), is_handshake=False).user.name == "bob"


def test_guessing_is_stopped_but_lets_known_passwords_and_tokens_pass(
    logins: BasicLogins, clock: Clock, hashings: list[str]
) -> None:
    token = _token(logins.login(_basic("ann", "a:pw"), is_handshake=True))
    for number in range(5):
        with pytest.raises(Unauthenticated, match="wrong user or password"):
            logins.login(_basic("ann", f"guess {number}"), is_handshake=True)
    hashed = len(hashings)
    with pytest.raises(Unauthenticated, match=r"too many logins failed, try again in 10\.0 s"):
        logins.login(_basic("ann", "guess"), is_handshake=True)
    assert len(hashings) == hashed
    assert logins.login(_basic("ann", "a:pw"), is_handshake=True).user.name == "ann"
    assert logins.login(_bearer(token), is_handshake=False).user.name == "ann"
    assert logins.login(_basic("bob", "b-pw"), is_handshake=True).user.name == "bob"
    clock.now += 10.0
    with pytest.raises(Unauthenticated, match="wrong user or password"):
        logins.login(_basic("ann", "guess"), is_handshake=True)


def test_the_payload_of_a_handshake_gives_a_token_too(logins: BasicLogins) -> None:
    assert logins.login({}, is_handshake=True).user.read == NO_TABLE
    token = logins.exchange("bob", "b-pw")
    assert logins.login({"auth-token-bin": [token.encode()]}, is_handshake=False).user.name == "bob"
    with pytest.raises(Unauthenticated):
        logins.exchange("bob", "a:pw")


def test_nothing_secret_stands_in_repr(logins: BasicLogins) -> None:
    login = logins.login(_basic("bob", "b-pw"), is_handshake=True)
    assert _token(login) not in repr(login)
    assert "scrypt" not in repr(logins.login(_bearer(_token(login)), is_handshake=False))


@pytest.mark.parametrize("text", ["YTpi", "YTpiYw", "YTpiYw==", "YTpiYw="])
def test_base64_is_read_with_any_padding(text: str) -> None:
    assert decode_basic(text)[0] == "a"


# --- our tokens ---------------------------------------------------------------------------------------


def test_a_token_leads_to_its_user_and_login_until_its_time_is_over(
    logins: BasicLogins, clock: Clock
) -> None:
    first = logins.login(_basic("ann", "a:pw"), is_handshake=True)
    again = logins.login(_bearer(_token(first)), is_handshake=False)
    assert (again.user, again.id, again.reply) == (first.user, first.id, None)
    clock.now += 100.0
    with pytest.raises(Unauthenticated, match="expired"):
        logins.login(_bearer(_token(first)), is_handshake=False)


def test_half_way_the_client_gets_the_next_token_of_the_same_login(logins: BasicLogins, clock: Clock) -> None:
    first = logins.login(_basic("ann", "a:pw"), is_handshake=True)
    clock.now += 49.0
    assert logins.login(_bearer(_token(first)), is_handshake=False).reply is None
    clock.now += 1.0
    second = logins.login(_bearer(_token(first)), is_handshake=False)
    clock.now += 60.0
    third = logins.login(_bearer(_token(second)), is_handshake=False)
    assert first.id == second.id == third.id
    assert len({_token(first), _token(second), _token(third)}) == 3


def _claims(token: str) -> dict[str, Any]:
    return jwt.decode(token, options={"verify_signature": False})


def _tampered(token: str, **changes: object) -> str:
    head, _, signature = token.split(".")
    body = base64.urlsafe_b64encode(json.dumps(_claims(token) | changes).encode()).decode().rstrip("=")
    return f"{head}.{body}.{signature}"


@pytest.mark.parametrize(
    "forge",
    [
        lambda token: _tampered(token, sub="ann"),
        lambda token: _tampered(token, exp=9e9),
        lambda token: jwt.encode(_claims(token), None, "none"),
        lambda token: jwt.encode(_claims(token), b"another key of thirty-two bytes!", "HS256"),
        lambda token: token[:-2],
        lambda token: token.rpartition(".")[0] + ".",
        lambda token: "x",
        lambda token: "",
        lambda token: "a.b.c",
        lambda token: token + "é",
    ],
)
def test_a_token_that_was_changed_or_forged_is_refused(
    logins: BasicLogins, forge: Callable[[str], str]
) -> None:
    token = _token(logins.login(_basic("bob", "b-pw"), is_handshake=True))
    with pytest.raises(Unauthenticated):
        logins.login(_bearer(forge(token)), is_handshake=False)


def test_a_token_of_another_run_is_refused(logins: BasicLogins, users: Path, clock: Clock) -> None:
    other = BasicLogins(UsersFile(users), Tokens(seconds=100.0, now=clock), clock)
    token = _token(other.login(_basic("bob", "b-pw"), is_handshake=True))
    with pytest.raises(Unauthenticated, match="isn't one of this server's"):
        logins.login(_bearer(token), is_handshake=False)


# --- tokens of an issuer ------------------------------------------------------------------------------


def _jwt(key: Any = SECRET, algorithm: str = "HS256", headers: Any = None, **claims: object) -> str:
    given = {"sub": "ann", "aud": AUDIENCE, "exp": time.time() + 60, **claims}
    kept = {name: value for name, value in given.items() if value is not None}
    return jwt.encode(kept, key, algorithm, headers)


def _verified(token: str, settings: JwtSettings) -> Login:
    return JwtLogins(JwtVerifier(settings)).login(_bearer(token), is_handshake=False)


SHARED = JwtSettings(AUDIENCE, secret=SECRET, issuer="us")


def test_a_token_with_the_shared_secret_is_taken_with_its_claims() -> None:
    token = _jwt(iss="us", merutable_read=["orders"], merutable_write=["orders"], merutable_ddl=True)
    user = _verified(token, SHARED).user
    assert (user.name, user.read, user.write) == ("ann", TableNames(("orders",)), TableNames(("orders",)))
    assert user.may_change_tables


def test_without_claims_a_token_reads_what_the_server_says_and_writes_nothing() -> None:
    assert _verified(_jwt(iss="us"), SHARED).user.read == EVERY_TABLE
    restricted = JwtSettings(AUDIENCE, secret=SECRET, read=TableNames(("o*",)))
    user = _verified(_jwt(aud=["other", AUDIENCE]), restricted).user
    assert (user.read, user.write, user.may_change_tables) == (TableNames(("o*",)), NO_TABLE, False)


@pytest.mark.parametrize(
    ("token", "message"),
    [
        (lambda: _jwt(iss="us", exp=time.time() - 31), "expired"),
        (lambda: _jwt(iss="us", nbf=time.time() + 45), "not yet valid"),
        (lambda: _jwt(iss="us", exp=None), "exp"),
        (lambda: _jwt(iss="us", sub=None), "sub"),
        (lambda: _jwt(iss="us", sub=""), "sub is no name"),
        (lambda: _jwt(iss="us", aud="others"), "[Aa]udience"),
        (lambda: _jwt(iss="us", aud=None), "aud"),
        (lambda: _jwt(iss="them"), "issuer"),
        (lambda: _jwt(), "iss"),
        (lambda: _jwt(b"another secret of thirty-two bytes", iss="us"), "Signature"),
        (lambda: _jwt(None, "none", iss="us"), "alg"),
        (lambda: _jwt(SECRET + b"." * 64, "HS512", iss="us"), "alg"),
        (lambda: _tampered(_jwt(iss="us"), sub="root"), "Signature"),
        (lambda: "no token", "token refused"),
        (lambda: _jwt(iss="us", merutable_read="orders"), "merutable_read is a list"),
        (lambda: _jwt(iss="us", merutable_write=[1]), "merutable_write is a list"),
        (lambda: _jwt(iss="us", merutable_ddl="yes"), "merutable_ddl"),
    ],
)
def test_what_is_wrong_with_a_token_is_said_and_the_token_is_not(
    token: Callable[[], str], message: str
) -> None:
    text = token()
    with pytest.raises(Unauthenticated, match=message) as caught:
        _verified(text, SHARED)
    assert text not in str(caught.value)


def test_clocks_may_differ_by_the_leeway() -> None:
    assert _verified(_jwt(iss="us", exp=time.time() - 20), SHARED).user.name == "ann"
    strict = JwtSettings(AUDIENCE, secret=SECRET, leeway_seconds=0.0)
    with pytest.raises(Unauthenticated, match="expired"):
        _verified(_jwt(exp=time.time() - 1), strict)


def test_jwt_servers_take_nothing_but_bearer_tokens_and_give_them_back_at_the_handshake() -> None:
    logins = JwtLogins(JwtVerifier(SHARED))
    token = _jwt(iss="us")
    assert logins.login(_bearer(token), is_handshake=True).reply == f"Bearer {token}"
    for headers in ({}, _basic("ann", "x")):
        with pytest.raises(Unauthenticated, match="bearer tokens alone"):
            logins.login(headers, is_handshake=True)
    with pytest.raises(Unauthenticated):
        logins.exchange("ann", "x")


RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())


def _jwk(key: Any, key_id: str | None, **more: str) -> dict[str, Any]:
    algorithm = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
    found: dict[str, Any] = algorithm.to_jwk(key.public_key(), as_dict=True) | more
    return found if key_id is None else found | {"kid": key_id}


def _jwks(tmp_path: Path, *keys: dict[str, Any]) -> JwtSettings:
    path = tmp_path / "new.json"
    path.write_text(json.dumps({"keys": list(keys)}))
    return JwtSettings(AUDIENCE, jwks=path.replace(tmp_path / "jwks.json"))


def test_keys_of_a_jwks_file_verify_rs256_and_es256(tmp_path: Path) -> None:
    settings = _jwks(tmp_path, _jwk(RSA, "r"), _jwk(EC, "e"))
    assert _verified(_jwt(RSA, "RS256", {"kid": "r"}), settings).user.name == "ann"
    assert _verified(_jwt(EC, "ES256", {"kid": "e"}), settings).user.name == "ann"


@pytest.mark.parametrize(
    ("token", "message"),
    [
        (lambda: _jwt(RSA, "RS256", {"kid": "e"}), "alg"),
        (lambda: _jwt(RSA, "RS256", {"kid": "other"}), "kid is none of the keys"),
        (lambda: _jwt(RSA, "RS256"), "kid is none of the keys"),
        (lambda: _jwt(RSA, "RS384", {"kid": "r"}), "alg"),
        (lambda: _jwt(SECRET, "HS256", {"kid": "r"}), "alg"),
        (lambda: _jwt(None, "none", {"kid": "r"}), "alg"),
        (lambda: _jwt(ec.generate_private_key(ec.SECP256R1()), "ES256", {"kid": "e"}), "Signature"),
    ],
)
def test_a_token_needs_the_key_that_it_names(tmp_path: Path, token: Callable[[], str], message: str) -> None:
    settings = _jwks(tmp_path, _jwk(RSA, "r"), _jwk(EC, "e"))
    with pytest.raises(Unauthenticated, match=message):
        _verified(token(), settings)


def test_a_public_key_is_never_taken_for_a_shared_secret(tmp_path: Path) -> None:
    settings = _jwks(tmp_path, _jwk(RSA, "r"))
    key = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    unsigned = _jwt(SECRET, "HS256", {"kid": "r"}).rpartition(".")[0]
    signature = base64.urlsafe_b64encode(hmac.digest(key, unsigned.encode(), "sha256"))
    with pytest.raises(Unauthenticated, match="alg"):
        _verified(f"{unsigned}.{signature.decode().rstrip('=')}", settings)


def test_a_single_key_needs_no_kid(tmp_path: Path) -> None:
    assert _verified(_jwt(EC, "ES256"), _jwks(tmp_path, _jwk(EC, None))).user.name == "ann"


def test_a_changed_jwks_file_counts_at_once(tmp_path: Path) -> None:
    logins = JwtLogins(JwtVerifier(_jwks(tmp_path, _jwk(RSA, "old"))))
    new = _bearer(_jwt(EC, "ES256", {"kid": "new"}))
    with pytest.raises(Unauthenticated):
        logins.login(new, is_handshake=False)
    _jwks(tmp_path, _jwk(EC, "new"))
    assert logins.login(new, is_handshake=False).user.name == "ann"
    with pytest.raises(Unauthenticated):
        logins.login(_bearer(_jwt(RSA, "RS256", {"kid": "old"})), is_handshake=False)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (lambda path: JwtSettings(AUDIENCE), "either a secret"),
        (lambda path: JwtSettings(AUDIENCE, secret=b"x" * 31), "31 bytes"),
        (lambda path: JwtSettings(AUDIENCE, secret=SECRET, jwks=path), "either a secret"),
        (lambda path: JwtSettings(AUDIENCE, jwks=path / "missing"), "can't be read"),
        (lambda path: _jwks(path), "no key"),
        (lambda path: _jwks(path, _jwk(RSA, "r", use="enc")), "no key"),
        (lambda path: _jwks(path, {"kty": "oct", "k": "c2VjcmV0", "kid": "s"}), "no key"),
        (lambda path: _jwks(path, {"kty": "RSA", "kid": "s"}), "no key"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_the_start(
    tmp_path: Path, settings: Callable[[Path], JwtSettings], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        JwtVerifier(settings(tmp_path))
