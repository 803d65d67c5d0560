"""`Reloading`: a running server takes a changed configuration, as far as it can, without ending a call.

The file is read again with the same variables and flags. Users, certificates, limits and the log's level
change at once; what else is different is named, and needs a restart. What is wrong changes nothing.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from flight_replica.access import ServerAccess, server_limits, server_tls
from flight_replica.config import ConfigProblems, Loaded, ServerConfig
from flight_replica.config.settings import SettingPath, dotted
from flight_replica.config.showing import as_toml, values_of
from flight_replica.errors import ConfigError
from flight_replica.logs.setup import set_level

if TYPE_CHECKING:
    from flight_replica.flightsql.server import FlightSqlServer
    from flight_replica.flightsql.tls import ServerTls

logger = logging.getLogger(__name__)

_USERS = ("access", "users")
_CERTIFICATES = {("access", "tls_cert"), ("access", "tls_key"), ("access", "mtls_ca")}


class Reloading:
    """For the main thread. What is beside the Flight port joins by `on_tls` and `on_config`."""

    def __init__(self, loaded: Loaded[ServerConfig], access: ServerAccess, server: FlightSqlServer) -> None:
        self._loaded = loaded
        self._access = access
        self._tls = access.tls
        self._running = {path: value for path, _, value in values_of(loaded.config)}  # what is in effect
        self._tls_parts: list[Callable[[ServerTls], None]] = [server.use_tls]
        self._config_parts: list[Callable[[ServerConfig], None]] = [
            lambda config: server.use_limits(server_limits(config)),
            lambda config: set_level(config.log.level),
        ]

    def on_tls(self, use: Callable[[ServerTls], None]) -> None:
        """Call `use` with each newer certificate, for clients that connect from then on."""
        self._tls_parts.append(use)

    def on_config(self, use: Callable[[ServerConfig], None]) -> None:
        """Call `use` with each newer configuration; it takes what it can. Other settings are named by us."""
        self._config_parts.append(use)

    def reload(self) -> None:
        """Read everything again, and say what changed. What is wrong is told, and changes nothing.

        Raises `Unavailable` when another process has taken the port.
        """
        try:
            loaded = self._loaded.again()
            tls = server_tls(loaded.config.access)
            users = self._newer_users(loaded.config)
        except ConfigProblems as problems:
            for line in problems.lines:
                logger.error("configuration not taken, what is running stays error=%s", line)
            return
        except ConfigError as error:
            logger.error("configuration not taken, what is running stays error=%s", error)
            return
        changes = self._take(loaded)
        if users is not None:
            changes += self._access.use_users(users)
        changes += self._use_tls(tls)
        if not changes:
            logger.info("configuration read again, nothing changed")

    def _newer_users(self, config: ServerConfig) -> Path | None:
        """The users file to read now, which is right; None for a server that has none, or had none."""
        path = config.access.users
        if path is None or self._access.users is None:
            return None
        self._access.users.check(path)
        return path

    def _take(self, loaded: Loaded[ServerConfig]) -> int:
        """Change what can be; how many settings are different from what was running."""
        was_secure = self._tls is not None
        is_secure = loaded.config.access.tls_cert is not None
        found = {path: (setting, value) for path, setting, value in values_of(loaded.config)}
        changes = 0
        for path in dict.fromkeys([*self._running, *found]):
            old = self._running.get(path)
            setting, new = found.get(path, (None, None))
            if old == new:
                continue
            changes += 1
            is_taken = setting is not None and setting.is_reloaded
            if path in _CERTIFICATES and was_secure != is_secure:
                is_taken = False
            if path == _USERS and (old is None or new is None):
                is_taken = False
            self._tell(path, old, new, loaded, is_taken)
            if is_taken:
                self._running[path] = new
        for use in self._config_parts:
            use(loaded.config)
        return changes

    def _tell(
        self, path: SettingPath, old: object, new: object, loaded: Loaded[ServerConfig], is_taken: bool
    ) -> None:
        source = loaded.source(path)
        if is_taken:
            logger.info(
                "setting changed setting=%s old=%s new=%s source=%s",
                *(dotted(path), _text(old), _text(new), source.place or source.kind),
            )
        else:
            logger.warning(
                "setting needs a restart setting=%s running=%s new=%s source=%s",
                *(dotted(path), _text(old), _text(new), source.place or source.kind),
            )

    def _use_tls(self, tls: ServerTls | None) -> int:
        if tls is None or self._tls is None or tls == self._tls:
            return 0
        for use in self._tls_parts:
            use(tls)
        logger.info("certificate changed old=%s new=%s", _mark(self._tls), _mark(tls))
        self._tls = tls
        return 1


def _text(value: object) -> str:
    return "not set" if value is None else as_toml(value)


def _mark(tls: ServerTls) -> str:
    """Tells certificates apart in the log."""
    return hashlib.sha256(tls.certificate).hexdigest()[:16]
