"""`Hosts`: the names under which a server is asked. Others are refused: a page of somebody else's whose name
leads to this address (DNS rebinding) would be of our own origin otherwise."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence


class Hosts:
    """An address in digits leads nowhere else, so it is always right; names are right if they are known."""

    def __init__(self, listen: str, others: Sequence[str] = ()) -> None:
        """`listen` is where the server listens, `others` are names that lead there."""
        own = [listen, "localhost", socket.gethostname(), socket.getfqdn()]
        self._names = {name.casefold().rstrip(".") for name in (*own, *others)}

    def __contains__(self, authority: object) -> bool:
        """Whether a Host header, `NAME` or `NAME:PORT`, names this server."""
        assert isinstance(authority, str), "a Host header"
        name = host_of(authority)
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name.casefold().rstrip(".") in self._names
        return True


def host_of(authority: str) -> str:
    """The name or address in `HOST`, `HOST:PORT`, `[V6]` or `[V6]:PORT`."""
    if authority.startswith("["):
        return authority[1:].partition("]")[0]
    host, colon, port = authority.rpartition(":")
    return host if colon and port.isdecimal() else authority
