"""`Guard`: what every request passes before anything looks at it, and what every response carries.

Refused are other names than this server's, what a browser asks for on behalf of another site, and bodies
that are too large or too slow. Who asks, and whether a change carries its login's token: visitors.py.
"""

from __future__ import annotations

import asyncio
import logging

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flight_replica.http.hosts import Hosts
from flight_replica.http.limits import HttpLimits
from flight_replica.logs.request import HEADER, in_request, request_id_of

_log = logging.getLogger(__name__)

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
SECURITY_HEADERS = {
    "content-security-policy": "default-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'; object-src 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # `no-referrer` would take the Origin header off our own forms.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}


class Guard:
    """ASGI middleware around the whole application. Logs what fails unexpectedly, once."""

    def __init__(self, app: ASGIApp, hosts: Hosts, limits: HttpLimits) -> None:
        self._app = app
        self._hosts = hosts
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http", "neither lifespan nor websockets are served"
        request_id = request_id_of(Headers(scope=scope).get(HEADER))
        with in_request(request_id):
            await self._answer(request_id, scope, receive, send)

    async def _answer(self, request_id: str, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def send_guarded(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                headers[HEADER] = request_id
            await send(message)

        try:
            answer = self._refusal(scope) or await self._pass_on(scope, receive, send_guarded)
        except Exception:
            # Starlette has answered before it raises again; a response that was cut can't be mended.
            _log.exception("request failed method=%s path=%s", scope["method"], scope["path"])
            answer = None if has_begun else _refused(500, unexpected(request_id))
        if answer is not None:
            await answer(scope, receive, send_guarded)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> Response | None:
        """Let the application answer; a response where the body doesn't come as it should."""
        if scope["method"] in SAFE_METHODS:
            await self._app(scope, receive, send)
            return None
        try:
            body = await asyncio.wait_for(self._body(receive), self._limits.body_seconds)
        except TimeoutError:
            return _refused(408, f"the body took longer than {self._limits.body_seconds:g} s")
        if body is None:
            return _refused(413, f"the body is over {self._limits.body_bytes_max} bytes")
        await self._app(scope, _replayed(body, receive), send)
        return None

    async def _body(self, receive: Receive) -> bytes | None:
        """The request's body, None for one that is too long."""
        parts: list[bytes] = []
        length, is_more = 0, True
        while is_more:
            message = await receive()
            part = message.get("body", b"")
            length += len(part)
            if length > self._limits.body_bytes_max:
                return None
            parts.append(part)
            is_more = message.get("more_body", False)
        return b"".join(parts)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if sum(len(name) + len(value) for name, value in headers.raw) > self._limits.header_bytes_max:
            return _refused(431, f"the headers are over {self._limits.header_bytes_max} bytes")
        hosts = headers.getlist("host")
        if len(hosts) != 1:
            return _refused(400, "a request has one Host header")
        if hosts[0] not in self._hosts:
            return _refused(
                421, f"this server isn't called {hosts[0][:100]!r}; http.hosts names what it is called"
            )
        if int(headers.get("content-length", "0")) > self._limits.body_bytes_max:
            return _refused(413, f"the body is over {self._limits.body_bytes_max} bytes")
        if is_of_another_site(scope["method"], headers):
            return _refused(403, "the request comes from a page of another site")
        return None


def is_of_another_site(method: str, headers: Headers) -> bool:
    """Whether a browser says that a page of another origin asks. To open a page from elsewhere is right."""
    site, mode = headers.get("sec-fetch-site"), headers.get("sec-fetch-mode")
    is_read = method in SAFE_METHODS
    if site not in (None, "same-origin", "none") and not (is_read and mode == "navigate"):
        return True
    origin = headers.get("origin")
    return (
        origin is not None
        and not is_read
        and origin.partition("://")[2].casefold() != headers["host"].casefold()
    )


def unexpected(request_id: str | None) -> str:
    """What is said of an error that only the log explains."""
    return f"internal error {request_id}: the server's log says more"


def _refused(status: int, text: str) -> Response:
    return PlainTextResponse(text + "\n", status, {"connection": "close"})


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Gives the body that was read already, and then what comes."""
    is_given = False

    async def give() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return give
