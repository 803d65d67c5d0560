"""Which call of a client an event is of: its request id.

A client may give its own, in the header `x-request-id`; every other call gets one. It is in each log line of
the call, goes back in the same header, and stands in the text of errors that only the log explains.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from contextvars import ContextVar, Token
from typing import TypeVar

T = TypeVar("T")

HEADER = "x-request-id"
_SANE = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")

_current: ContextVar[str | None] = ContextVar("request_id", default=None)


def request_id_of(given: str | None) -> str:
    """The client's own id where it gives one that is fit for a log line, else a new one."""
    if given is not None and _SANE.fullmatch(given):
        return given
    return f"{random.getrandbits(64):016x}"  # it is no secret, and the system's are dearer


def current_request() -> str | None:
    """The id of the call that this thread works for now, None for none."""
    return _current.get()


class in_request:
    """What this thread logs in the block is of that call. No generator, which takes twice the time."""

    __slots__ = ("_request_id", "_token")

    def __init__(self, request_id: str | None) -> None:
        self._request_id = request_id

    def __enter__(self) -> None:
        self._token: Token[str | None] = _current.set(self._request_id)

    def __exit__(self, *_: object) -> None:
        _current.reset(self._token)


def items_in_request(request_id: str | None, items: Iterator[T]) -> Iterator[T]:
    """The same items; what is logged while one is made is of that call. Closes `items` with itself.

    The id is set for each item anew: between two of them the thread may do other work, or be another one.
    """
    try:
        while True:
            with in_request(request_id):
                try:
                    item = next(items)
                except StopIteration:
                    return
            yield item
    finally:
        close = getattr(items, "close", None)
        if close is not None:
            with in_request(request_id):
                close()
