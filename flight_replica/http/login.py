"""`/login`, `/logout` and `/api/session`: a browser's login by a form, kept by a cookie.

The cookie can't be read by scripts and goes with no request of another site. Who has it can read; a change
needs the token too that `/api/session` gives (visitors.py).
"""

from __future__ import annotations

from html import escape
from importlib.metadata import version
from urllib.parse import parse_qs

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from flight_replica.errors import InvalidStatement, Unauthenticated
from flight_replica.http.site import site_of
from flight_replica.http.visitors import cookie_name

HOME = "/"
_FIELDS_MAX = 10

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Log in · flight-replica</title>
<link rel="stylesheet" href="/page/style.css">
</head>
<body class="login">
<main>
<h1>flight-replica</h1>
<form method="post" action="/login">
{trouble}{fields}
<button type="submit">Log in</button>
</form>
</main>
</body>
</html>
"""
_PASSWORD_FIELDS = """<label for="user">User</label>
<input id="user" name="user" autocomplete="username" required autofocus>
<label for="password">Password</label>
<input id="password" name="password" type="password" autocomplete="current-password" required>"""
_TOKEN_FIELD = """<label for="token">Token (JWT)</label>
<input id="token" name="token" type="password" autocomplete="off" required autofocus>"""


def login_routes() -> list[Route]:
    return [
        Route("/login", show_login, methods=["GET"]),
        Route("/login", log_in, methods=["POST"]),
        Route("/logout", log_out, methods=["POST"]),
        Route("/api/session", session, methods=["GET"]),
    ]


async def show_login(request: Request) -> Response:
    """The form; where nobody is asked who he is, the page itself."""
    if site_of(request).visitors.is_open:
        return RedirectResponse(HOME, 303)
    return _form(request)


async def log_in(request: Request) -> Response:
    """Leads to the page with a cookie, or shows the form again with what was wrong."""
    visitors = site_of(request).visitors
    if visitors.is_open:
        return RedirectResponse(HOME, 303)
    form = await form_of(request)
    given = form.get("user", ""), form.get("password", ""), form.get("token", "")
    try:
        browser_id = await run_in_threadpool(visitors.log_in, *given)
    except Unauthenticated as error:
        return _form(request, str(error))
    visitors.log_out(request)  # the login that this browser had before
    answer = RedirectResponse(HOME, 303)
    answer.set_cookie(
        cookie_name(request),
        browser_id,
        path="/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )
    return answer


async def log_out(request: Request) -> Response:
    """Ends the browser's login. Its token stands in the form's field `csrf` or in the header."""
    site = site_of(request)
    visitor = await site.visitor(request)
    site.visitors.check_change(request, visitor, (await form_of(request)).get("csrf"))
    site.visitors.log_out(request)
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(
        cookie_name(request), path="/", secure=request.url.scheme == "https", httponly=True, samesite="strict"
    )
    return answer


async def session(request: Request) -> Response:
    """Who asks, and the token that his changes have to carry."""
    site = site_of(request)
    visitor = await site.visitor(request)
    return JSONResponse(
        {
            "user": visitor.user.name,
            "csrf": visitor.csrf,
            "login": not site.visitors.is_open,
            "product": site.service.product,
            "version": version("flight-replica"),
        }
    )


async def form_of(request: Request) -> dict[str, str]:
    """The fields of a form, the last one of each name. Raises `InvalidStatement`."""
    try:
        text = (await request.body()).decode()
        fields = parse_qs(text, keep_blank_values=True, strict_parsing=bool(text), max_num_fields=_FIELDS_MAX)
    except ValueError:
        raise InvalidStatement("the body is no form (application/x-www-form-urlencoded)") from None
    return {name: values[-1] for name, values in fields.items()}


def _form(request: Request, trouble: str = "") -> Response:
    fields = _TOKEN_FIELD if site_of(request).visitors.takes_tokens_alone else _PASSWORD_FIELDS
    shown = f'<p class="trouble" role="alert">{escape(trouble)}</p>\n' if trouble else ""
    return HTMLResponse(_PAGE.format(trouble=shown, fields=fields), 401 if trouble else 200)
