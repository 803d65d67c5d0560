"""Faults for tests: a TCP proxy that cuts, delays, stalls and truncates, feeds that lie, a full disk."""

from __future__ import annotations

import contextlib
import resource
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Self

import pyarrow as pa

from flight_replica.log.source import FeedMark
from flight_replica.log.wire import decode_mark, encode_mark

Message = tuple[pa.RecordBatch, bytes]  # a batch of a follow stream and its serialized mark


class TcpProxy:
    """Between a client and the server on `port`: bytes pass both ways until a fault is asked for.

    Faults touch open connections and later ones alike until `heal`. `close` ends every thread.
    """

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._changed = threading.Condition()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._is_stalled = False
        self._delay_seconds = 0.0
        self._bytes_left: int | None = None  # to the client, before it is cut off
        self._is_closed = False
        self.connection_count = 0
        self._threads: list[threading.Thread] = []
        self._spawn(self._accept)

    def lead_to(self, port: int) -> None:
        """Connections from now on go to the server on `port`."""
        self._target = ("127.0.0.1", port)

    def cut(self) -> None:
        """Reset every open connection; new ones are taken."""
        with self._changed:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                _reset(end)

    def stall(self) -> None:
        """Pass nothing on, with every connection open, until `heal`."""
        with self._changed:
            self._is_stalled = True

    def delay(self, seconds: float) -> None:
        """Hold every piece of data for so long."""
        with self._changed:
            self._delay_seconds = seconds

    def truncate_after(self, byte_count: int) -> None:
        """Pass that many bytes more to clients, then cut in the middle of whatever is sent."""
        with self._changed:
            self._bytes_left = byte_count

    def heal(self) -> None:
        """No fault any more; what was held back is passed on."""
        with self._changed:
            self._is_stalled, self._delay_seconds, self._bytes_left = False, 0.0, None
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        # On Linux only shutdown wakes a thread in accept.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(5)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _spawn(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, name="tcp-proxy", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
            except OSError:
                if self._is_closed:
                    return
                client.close()
                continue
            with self._changed:
                self._pairs.append((client, server))
                self.connection_count += 1
            self._spawn(self._pump, client, server, False)
            self._spawn(self._pump, server, client, True)

    def _pump(self, source: socket.socket, sink: socket.socket, is_to_client: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                allowed = self._allowed(data, is_to_client)
                sink.sendall(allowed)
                if len(allowed) < len(data):
                    break
        _reset(source)
        _reset(sink)

    def _allowed(self, data: bytes, is_to_client: bool) -> bytes:
        """What of `data` may pass, once it may."""
        with self._changed:
            if self._delay_seconds:
                self._changed.wait_for(
                    lambda: self._is_closed or not self._delay_seconds, self._delay_seconds
                )
            self._changed.wait_for(lambda: self._is_closed or not self._is_stalled)
            if self._bytes_left is None or not is_to_client:
                return data
            data = data[: self._bytes_left]
            self._bytes_left -= len(data)
            return data


def duplicated(messages: Iterable[Message]) -> Iterator[Message]:
    """Every batch twice."""
    for message in messages:
        yield message
        yield message


def swapped(messages: Iterable[Message]) -> Iterator[Message]:
    """The second batch before the first one, and so on."""
    pairs = iter(messages)
    for first in pairs:
        second = next(pairs, None)
        if second is not None:
            yield second
        yield first


def forged(forge: Callable[[pa.RecordBatch, FeedMark], tuple[pa.RecordBatch, FeedMark]]) -> Fault:
    """Each batch as `forge` changes it."""

    def apply(messages: Iterable[Message]) -> Iterator[Message]:
        for batch, data in messages:
            other, mark = forge(batch, decode_mark(data))
            yield other, encode_mark(mark)

    return apply


Fault = Callable[[Iterable[Message]], Iterator[Message]]


def _reset(end: socket.socket) -> None:
    """Close with RST, so that the peer notices at once and nothing lingers."""
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.shutdown(socket.SHUT_RDWR)
    end.close()


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """This process can write to no file within the block, as where the disk is full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
