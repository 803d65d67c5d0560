"""The live stream, read as a browser reads it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx


@contextmanager
def live(client: httpx.Client) -> Iterator[Iterator[dict[str, Any]]]:
    """The messages of a stream, while it is open."""
    with client.stream("GET", "/api/live", timeout=30.0) as answer:
        assert answer.status_code == 200, answer.status_code
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield _messages(answer)


def _messages(answer: httpx.Response) -> Iterator[dict[str, Any]]:
    event = ""
    for line in answer.iter_lines():
        name, _, value = line.partition(": ")
        if name == "event":
            event = value
        elif name == "data":
            assert event == "now"
            yield json.loads(value)


def now(client: httpx.Client) -> dict[str, Any]:
    """How the server is, as a page hears it when it opens."""
    with live(client) as messages:
        return next(messages)
