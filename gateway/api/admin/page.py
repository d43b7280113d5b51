"""The page `/ui`: files of this package, as they are. It has nothing of its own to say; the API says it."""

from __future__ import annotations

import hashlib
from importlib import resources

from aiohttp import web

PREFIX = "/ui"

_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_HEADERS = {
    # Nothing from elsewhere, nothing inline: text of strangers stands in this page.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",  # asked for again each time, and sent again only if it has changed
    "Server": "backburner",
}


class UiFiles:
    """The files, in memory."""

    def __init__(self) -> None:
        folder = resources.files("gateway.api.admin").joinpath("static")
        self._files = {
            each.name: (each.read_bytes(), kind)
            for each in folder.iterdir()
            for ending, kind in _TYPES.items()
            if each.name.endswith(ending)
        }
        self._tags = {
            name: f'"{hashlib.sha256(body).hexdigest()[:16]}"' for name, (body, _) in self._files.items()
        }

    def handle(self, request: web.BaseRequest) -> web.Response:
        """A GET of a path that begins with `PREFIX`. All links in it are relative: it may be anywhere."""
        name = request.path.removeprefix(PREFIX)
        if name == "":
            query = f"?{request.query_string}" if request.query_string else ""
            return web.Response(status=307, headers={**_HEADERS, "Location": f"ui/{query}"})
        name = name.removeprefix("/") or "index.html"
        if name not in self._files:
            return web.Response(status=404, text="There is no such file.\n", headers=_HEADERS)
        (body, kind), tag = self._files[name], self._tags[name]
        headers = {**_HEADERS, "ETag": tag}
        if tag in request.headers.get("If-None-Match", ""):
            return web.Response(status=304, headers=headers)
        return web.Response(body=body, content_type=kind, charset="utf-8", headers=headers)
