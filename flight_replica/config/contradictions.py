"""Settings that are right one by one and don't go together."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from urllib.parse import urlsplit

from flight_replica.config.commands import FeedConfig, ServeConfig, ServedTable
from flight_replica.config.kinds import Address
from flight_replica.config.sections import Access, Primary, ServerConfig
from flight_replica.config.settings import EACH, SettingPath
from flight_replica.errors import ConfigError

__all__ = ["Contradiction", "contradictions", "is_loopback", "ports_of"]

Names = Callable[[SettingPath], str]  # how the reader of an error knows a setting

# What is said of a table besides its base, and the kinds of base that it goes with.
_KINDS_OF_CLAIM = {
    "schema_file": ("merutable",),
    "key": ("iceberg",),
    "base_seq": ("iceberg",),
    "lineage": ("iceberg", "merutable", "flight"),
    "feed": ("iceberg", "merutable", "flight"),
    "text": ("iceberg", "merutable"),
    "insert_only": ("iceberg",),
}
_JWT = ("jwt_secret_file", "jwks", "jwt_audience", "jwt_issuer", "jwt_read")
_ANY_BASE = ("tables", EACH, "base")
_ANY_CATALOG = ("tables", EACH, "catalog")


@dataclass(frozen=True, slots=True)
class Contradiction:
    """What doesn't go together."""

    text: str
    paths: tuple[SettingPath, ...]  # of the settings that it is about; the first one given is where to look
    is_of_one: bool = False  # the text doesn't name the first of them
    is_missing: bool = False  # what has to be said isn't


def contradictions(config: ServerConfig, name: Names) -> Iterator[Contradiction]:
    """All in the configuration."""
    yield from _of_access(config.access, name)
    yield from _of_reach(config, name)
    match config:
        case ServeConfig():
            yield from _of_connecting(config.primary, name)
            yield from _of_origins(config, name)
        case FeedConfig():
            yield from _of_feed(config, name)


def _of_access(access: Access, name: Names) -> Iterator[Contradiction]:
    def at(*keys: str) -> tuple[SettingPath, ...]:
        return tuple(("access", key) for key in keys)

    auth, users, audience, secret, jwks = (
        name(path) for path in at("auth", "users", "jwt_audience", "jwt_secret_file", "jwks")
    )
    cert, key, ca = (name(path) for path in at("tls_cert", "tls_key", "mtls_ca"))
    if (access.auth == "basic") != (access.users is not None):
        yield Contradiction(f"{auth} basic and {users} FILE go together", at("auth", "users"))
    for given in _JWT:
        if access.auth != "jwt" and getattr(access, given) is not None:
            yield Contradiction(f"{name(('access', given))} goes with {auth} jwt", at(given, "auth"))
    if access.auth == "jwt" and access.jwt_audience is None:
        yield Contradiction(
            f"{auth} jwt needs {audience}: tokens for other services are none for this one",
            at("auth", "jwt_audience"),
        )
    # A secret in the variable may be set for another server, so it may stand beside a JWKS file.
    has_secret = access.jwt_secret_file is not None or (access.jwt_secret is not None and access.jwks is None)
    if access.auth == "jwt" and has_secret == (access.jwks is not None):
        yield Contradiction(
            f"{auth} jwt: give either a secret (HS256), {secret}, or a JWKS file (RS256, ES256), {jwks}",
            at("auth", "jwt_secret_file", "jwks", "jwt_secret"),
        )
    if (access.tls_cert is None) != (access.tls_key is None):
        yield Contradiction(f"{cert} and {key} go together", at("tls_cert", "tls_key"))
    elif access.tls_cert is None and access.mtls_ca is not None:
        yield Contradiction(f"{ca} needs {cert} and {key}", at("mtls_ca", "tls_cert", "tls_key"))


def _of_connecting(primary: Primary, name: Names) -> Iterator[Contradiction]:
    def at(*keys: str) -> tuple[SettingPath, ...]:
        return tuple(("primary", key) for key in keys)

    user, password_file, cert, key = (
        name(("primary", key)) for key in ("user", "password_file", "cert", "key")
    )
    if (primary.cert is None) != (primary.key is None):
        yield Contradiction(f"{cert} and {key} go together", at("cert", "key"))
    if primary.user is not None and primary.password_file is None and primary.password is None:
        yield Contradiction(
            f"{user} needs a password: {password_file} or its variable",
            at("user", "password_file", "password"),
        )
    if primary.user is None and primary.password_file is not None:
        yield Contradiction(f"{password_file} goes with {user}", at("password_file", "user"))


def _of_reach(config: ServerConfig, name: Names) -> Iterator[Contradiction]:
    """Refuse to be open to the world by accident."""
    yield from _of_ports(config, name)
    access = config.access
    if access.auth != "none" or access.allow_open or access.mtls_ca is not None:
        return
    auth, ca, allow_open = (name(("access", key)) for key in ("auth", "mtls_ca", "allow_open"))
    for path, address in ports_of(config).items():
        if not is_loopback(address[0]):
            yield Contradiction(
                f"{name(path)} {address[0]}: without {auth} everybody there could read everything; "
                f"choose {auth} basic or jwt, or {ca}, or say {allow_open}",
                (path, ("access", "auth"), ("access", "mtls_ca"), ("access", "allow_open")),
            )


def ports_of(config: ServerConfig) -> dict[SettingPath, Address]:
    """Where it is to listen, by the setting that says so."""
    ports = {("listen",): config.listen, ("admin", "listen"): config.admin.listen}
    ports["http", "listen"] = config.http.listen
    return {path: address for path, address in ports.items() if address is not None}


def _of_ports(config: ServerConfig, name: Names) -> Iterator[Contradiction]:
    for (one, address), (other, same) in combinations(ports_of(config).items(), 2):
        if address == same and address[1] != 0:
            yield Contradiction(f"{name(one)} and {name(other)} are the same address", (other, one))


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _of_origins(config: ServeConfig, name: Names) -> Iterator[Contradiction]:
    uri, tables = ("primary", "uri"), ("primary", "tables")
    bases = tuple(("tables", table, "base") for table, stated in config.tables.items() if stated.base)
    if (config.primary.uri is None) == (not bases):
        yield Contradiction(
            f"give either {name(uri)}, or one {name(_ANY_BASE)} or more", (*bases, uri, _ANY_BASE)
        )
    if config.primary.tables and config.primary.uri is None:
        yield Contradiction(f"{name(tables)} goes with {name(uri)}", (tables, uri))
    if "@" in (config.primary.uri or ""):
        user = name(("primary", "user"))
        yield Contradiction(f"{name(uri)} has a user in it, which would be shown: say {user} for it", (uri,))
    address = urlsplit(config.primary.uri or "")
    if address.netloc and (path := address.path.strip("/")):
        yield Contradiction(
            f"{name(uri)} names a server: say {name(tables)} {path} for one table of it", (uri,)
        )
    if config.primary.uri is not None or bases:
        for table, stated in config.tables.items():
            yield from _of_served(table, stated, config, name)


def _of_served(table: str, stated: ServedTable, config: ServeConfig, name: Names) -> Iterator[Contradiction]:
    at = ("tables", table)
    base = (*at, "base")
    if stated.text is not None:
        yield from _of_text((*at, "text"), stated.text)
    kind = None
    if stated.base is not None:
        kind, _, place = stated.base.partition(":")
        if not place.removeprefix("s3://"):
            yield Contradiction("expected a place behind the kind", (base,), True)
        if kind not in ("merutable", "iceberg", "flight"):
            yield Contradiction(f"the kind is merutable, iceberg or flight, not {kind!r}", (base,), True)
            return
    for claim, kinds in _KINDS_OF_CLAIM.items():
        value = getattr(stated, claim)
        if value is None or value is False:
            continue
        if claim == "text" and config.primary.uri is not None:
            continue  # of a table that is followed
        here = (*at, claim)
        if kind is None:
            yield Contradiction(f"there is no {name(base)} that it goes with", (here, base, _ANY_BASE), True)
        elif kind not in kinds:
            yield Contradiction(f"it doesn't go with a {name(_ANY_BASE)} of kind {kind}", (here, base), True)


def _of_feed(config: FeedConfig, name: Names) -> Iterator[Contradiction]:
    if not config.tables:
        yield Contradiction(f"give one {name(_ANY_CATALOG)} or more", (_ANY_CATALOG,), is_missing=True)
    for table, stated in config.tables.items():
        at = ("tables", table)
        catalog, wal = (*at, "catalog"), (*at, "wal")
        if stated.catalog is None:
            for claim in type(stated).model_fields:
                if claim in stated.model_fields_set and claim != "catalog":
                    text = f"there is no {name(catalog)} that it goes with"
                    yield Contradiction(text, ((*at, claim), catalog, _ANY_CATALOG), True)
        elif stated.wal is None:
            yield Contradiction(f"{name(catalog)} needs {name(wal)}", (catalog, wal))
        kind, _, uri = stated.publish.partition(":")
        if stated.publish != "flight" and (kind != "merutable" or not uri):
            yield Contradiction("expected merutable:URI or flight", ((*at, "publish"),), True)
        if stated.text is not None:
            yield from _of_text((*at, "text"), stated.text, may_be_lenient=False)


def _of_text(path: SettingPath, columns: str, *, may_be_lenient: bool = True) -> Iterator[Contradiction]:
    from flight_replica.text_columns import TextColumns

    try:
        texts = TextColumns.parse(columns)
    except ConfigError as error:
        yield Contradiction(str(error), (path,), True)
        return
    if not may_be_lenient and (texts.lenient or texts.rest == "*?"):
        yield Contradiction("a feed's columns are text or bytes for good, so none with ?", (path,), True)
