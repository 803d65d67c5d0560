"""Whether a port can be listened on: pyarrow's server doesn't say why it can't."""

from __future__ import annotations

import ipaddress
import os
import socket
import time
from typing import Any

from flight_replica.errors import Unavailable

LOOK_SECONDS = 0.0002
_OWN_FILES = "/dev/fd"  # this process's open files, by number


def in_uri(host: str) -> str:
    """As a host stands in front of `:port`: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def check_free(address: tuple[str, int]) -> None:
    """Raise OSError where nobody can listen, or somebody does; port 0 is any."""
    with _bound(address) as tried:
        tried.listen()


def stop_listening(address: tuple[str, int]) -> bool:
    """Let nobody connect to this process there any more; whether there was one to stop.

    pyarrow's server can only stop to listen by ending its connections too. So its listening socket is found
    among the process's, and shut down under it: gRPC takes that for an error of `accept`, says so on stderr,
    and goes on with the connections that it has.
    """
    stopped = False
    host, port = _place(address)
    for name in os.listdir(_OWN_FILES):
        try:
            found = socket.socket(fileno=os.dup(int(name)))
        except OSError:  # no socket, or closed meanwhile
            continue
        with found:
            if _is_listening(found) and _place(found.getsockname()) == (host, port):
                found.shutdown(socket.SHUT_RDWR)
                stopped = True
    return stopped


def _is_listening(found: socket.socket) -> bool:
    is_tcp = found.family in (socket.AF_INET, socket.AF_INET6) and found.type == socket.SOCK_STREAM
    return is_tcp and bool(found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def _place(address: tuple[Any, ...]) -> tuple[object, int]:
    """Address and port, the same for 127.0.0.1, localhost and ::ffff:127.0.0.1, and for all of a host's."""
    place = socket.getaddrinfo(address[0], address[1], type=socket.SOCK_STREAM)[0][4]
    host = ipaddress.ip_address(str(place[0]).partition("%")[0])
    if isinstance(host, ipaddress.IPv6Address) and host.ipv4_mapped is not None:
        host = host.ipv4_mapped
    return None if host.is_unspecified else host, int(place[1])


def wait_until_free(address: tuple[str, int], seconds: float) -> None:
    """Wait for whoever listens to stop. Raises `Unavailable` when the time is up."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            # Bound, but not listening: else a client could connect here, and would be cut off.
            return _bound(address).close()
        except OSError as error:
            if time.monotonic() >= deadline:
                raise Unavailable(f"port {address[1]}: {error.strerror}, for {seconds:g} s") from error
        time.sleep(LOOK_SECONDS)


def _bound(address: tuple[str, int]) -> socket.socket:
    host, port = address
    family, kind, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    bound = socket.socket(family, kind)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
        bound.bind(place)
    except BaseException:
        bound.close()
        raise
    return bound
