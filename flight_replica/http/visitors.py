"""`Visitors`: who a request is from, by its `authorization` header or by the cookie of a browser's login.

Logins are those of the Flight port. A browser's is kept here, as the token that the login gave: it is
checked anew by each request, so a user who is gone or has another password is out at once.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.requests import HTTPConnection

from flight_replica.errors import Forbidden, Unauthenticated
from flight_replica.flightsql.auth import JwtLogins, Login, Logins, OpenLogins
from flight_replica.flightsql.users import User
from flight_replica.http.limits import HttpLimits

CSRF_HEADER = "x-csrf-token"
_ID_BYTES = 32


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who asks. `csrf` is what a change has to carry; empty where nothing but the request says who it is."""

    user: User
    csrf: str = field(default="", repr=False)
    is_still_good: Callable[[], bool] = field(default=lambda: True, repr=False)


@dataclass(slots=True)
class _BrowserLogin:
    token: str = field(repr=False)  # what the Flight port would take as a bearer token
    csrf: str = field(repr=False)
    used_at: float  # monotonic seconds


class Visitors:
    """Owns the browsers' logins. Thread-safe; checking a password takes about 0.2 s."""

    def __init__(self, logins: Logins, limits: HttpLimits, now: Callable[[], float] = time.monotonic) -> None:
        self._logins = logins
        self._limits = limits
        self._now = now
        self._lock = threading.Lock()
        self._browsers: OrderedDict[bytes, _BrowserLogin] = (
            OrderedDict()
        )  # digest of id -> login, oldest use first

    @property
    def is_open(self) -> bool:
        """Whether nobody is asked who he is."""
        return isinstance(self._logins, OpenLogins)

    @property
    def takes_tokens_alone(self) -> bool:
        """Whether one logs in with a token rather than user and password."""
        return isinstance(self._logins, JwtLogins)

    @property
    def count(self) -> int:
        """Browser logins that are kept."""
        with self._lock:
            return len(self._browsers)

    def visitor(self, request: HTTPConnection) -> Visitor:
        """Who asks. Raises `Unauthenticated`."""
        given = request.headers.getlist("authorization")
        if self.is_open or given:
            login = self._logins.login({"authorization": given}, is_handshake=False)
            return Visitor(login.user, is_still_good=login.is_good)
        browser_id = request.cookies.get(cookie_name(request), "")
        if not browser_id:
            raise Unauthenticated("log in first")
        return self._of_browser(_digest(browser_id))

    def known(self, request: HTTPConnection) -> Visitor | None:
        """Who asks; None where he doesn't say. Raises `Unauthenticated` for one who isn't believed."""
        if not self.is_open and not request.headers.getlist("authorization"):
            if cookie_name(request) not in request.cookies:
                return None
            try:
                return self.visitor(request)
            except Unauthenticated:  # an old cookie says no more than none
                return None
        return self.visitor(request)

    def check_change(self, request: HTTPConnection, visitor: Visitor, given: str | None = None) -> None:
        """Raises `Forbidden` where a browser's login asks for a change without its token.

        `given`: the token where it isn't in the header, as in a form.
        """
        token = given or request.headers.get(CSRF_HEADER, "")
        if visitor.csrf and not hmac.compare_digest(token.encode(), visitor.csrf.encode()):
            raise Forbidden(f"a change carries the login's token in {CSRF_HEADER}; load the page again")

    # --- browsers ---------------------------------------------------------------------------------

    def log_in(self, user: str, password: str, token: str = "") -> str:
        """A browser's new id, for its cookie. Raises `Unauthenticated`."""
        if token:
            header = f"Bearer {token}"
        else:
            header = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        reply = self._logins.login({"authorization": [header]}, is_handshake=True).reply
        assert reply is not None, "a handshake without a token"
        browser_id = secrets.token_urlsafe(_ID_BYTES)
        kept = _BrowserLogin(reply.removeprefix("Bearer "), secrets.token_urlsafe(_ID_BYTES), self._now())
        with self._lock:
            self._browsers[_digest(browser_id)] = kept
            while len(self._browsers) > self._limits.logins_max:
                self._browsers.popitem(last=False)
        return browser_id

    def log_out(self, request: HTTPConnection) -> None:
        """Forget the browser's login, if it has one."""
        with self._lock:
            self._browsers.pop(_digest(request.cookies.get(cookie_name(request), "")), None)

    def _of_browser(self, mark: bytes) -> Visitor:
        with self._lock:
            browser = self._used(mark)
        if browser is None:
            raise Unauthenticated("the login is over; log in again")
        try:
            login = self._checked(browser)
        except Unauthenticated:
            with self._lock:
                self._browsers.pop(mark, None)
            raise
        return Visitor(login.user, browser.csrf, lambda: self._is_good(mark, browser, login.user))

    def _used(self, mark: bytes) -> _BrowserLogin | None:
        browser = self._browsers.get(mark)
        if browser is None:
            return None
        if self._now() - browser.used_at > self._limits.login_idle_seconds:
            del self._browsers[mark]
            return None
        browser.used_at = self._now()
        self._browsers.move_to_end(mark)
        return browser

    def _checked(self, browser: _BrowserLogin) -> Login:
        login = self._logins.login({"authorization": [f"Bearer {browser.token}"]}, is_handshake=False)
        if login.reply is not None:  # the token is half over: this is the next one
            browser.token = login.reply.removeprefix("Bearer ")
        return login

    def _is_good(self, mark: bytes, browser: _BrowserLogin, user: User) -> bool:
        """Whether the login is still kept, and its user is the same with the same rights."""
        with self._lock:
            if self._browsers.get(mark) is not browser:
                return False
        try:
            return self._checked(browser).user == user
        except Unauthenticated:
            return False


def cookie_name(request: HTTPConnection) -> str:
    """The login's cookie. Browsers don't tell ports apart, so that two servers of a host need two names."""
    if request.url.scheme == "https":
        return f"__Host-flight-replica-{request.url.port or 443}"
    return f"flight-replica-{request.url.port or 80}"


def _digest(browser_id: str) -> bytes:
    # What is kept opens nothing, and is found without comparing secrets sign by sign.
    return hashlib.sha256(browser_id.encode("utf-8", "surrogatepass")).digest()
