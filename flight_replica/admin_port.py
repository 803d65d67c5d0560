"""The admin port of a server's process, as its configuration wants it."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flight_replica.access import ServerAccess
    from flight_replica.admin.server import AdminServer
    from flight_replica.config import ServerConfig
    from flight_replica.control.control import Control
    from flight_replica.reloading import Reloading


def open_admin(
    closing: ExitStack,
    control: Control,
    config: ServerConfig,
    access: ServerAccess,
    reloading: Reloading,
) -> AdminServer | None:
    """The port, with the Flight port's logins and certificates; None where there is to be none.

    It ends with `closing`. Raises `ConfigError` when the address can't be used.
    """
    if config.admin.listen is None:
        return None
    from flight_replica.admin.server import AdminServer

    server = AdminServer(control, *config.admin.listen, logins=access.logins, tls=access.tls)
    closing.callback(server.close)
    reloading.on_tls(server.use_tls)
    control.serves("admin", server.uri)
    return server
