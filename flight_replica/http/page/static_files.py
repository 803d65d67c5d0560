"""The files that browsers get as they lie in `static/`: read once, known by name."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response

_KINDS = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class _File:
    body: bytes
    kind: str
    etag: str


class StaticFiles:
    """All of them, by their path below `static/`."""

    def __init__(self) -> None:
        root = files("flight_replica.http.page") / "static"
        self._file_by_path: dict[str, _File] = {}
        for folder, prefix in ((root, ""), (root / "vendor", "vendor/")):
            for found in folder.iterdir():
                kind = _KINDS.get(found.name.rpartition(".")[2])
                if kind is not None:
                    body = found.read_bytes()
                    etag = f'"{hashlib.sha256(body).hexdigest()[:20]}"'
                    self._file_by_path[prefix + found.name] = _File(body, kind, etag)

    def answer(self, request: Request, path: str) -> Response:
        """The file, nothing where the browser has this very one, or 404."""
        found = self._file_by_path.get(path)
        if found is None:
            return Response(status_code=404)
        # Asked for each time, so that a newer server isn't shown by an older page.
        headers = {"etag": found.etag, "cache-control": "no-cache"}
        if request.headers.get("if-none-match") == found.etag:
            return Response(status_code=304, headers=headers)
        return Response(found.body, headers=headers, media_type=found.kind)
