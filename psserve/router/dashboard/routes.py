"""`/dashboard`, the files of the page, and `/dashboard/data`.

The files hold nothing of this fleet and need no key; the data does, as the API. The page may load nothing from anywhere
else, run no script but its own files, and not be framed.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import orjson
from aiohttp import web

from psserve.router.access.body import json_response
from psserve.router.dashboard.view import view
from psserve.router.siblings import SIBLINGS, Tell
from psserve.router.state import STATE, RouterState

PAGE = "/dashboard"
SCRIPTS = ("app", "charts", "connection", "dom", "figures", "fleet", "format", "links", "requests")
PAGE_FILES = {
    PAGE: ("index.html", "text/html"),
    f"{PAGE}/style.css": ("style.css", "text/css"),
    **{f"{PAGE}/{name}.js": (f"{name}.js", "text/javascript") for name in SCRIPTS},
}
"""URL path -> file in page/ and its type."""

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    )
)
PAGE_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}

routes = web.RouteTableDef()


@routes.get(f"{PAGE}/data")
async def data(request: web.Request) -> web.Response:
    """What the page shows now: of a router of several processes, what its first one does."""
    siblings = request.app[SIBLINGS]
    if siblings.number:
        response = web.Response(body=await siblings.ask_one(0, f"{PAGE}/data"), content_type="application/json")
    else:
        response = json_response(await view(request.app[STATE]))
    response.headers["Cache-Control"] = "no-store"
    return response


def told_to_siblings(state: RouterState) -> dict[str, Tell]:
    """What another process of the router may ask of this one, by path."""

    async def data() -> bytes:
        return orjson.dumps(await view(state))

    return {f"{PAGE}/data": data}


async def send_file(request: web.Request) -> web.Response:
    """A file of the page."""
    name, content_type = PAGE_FILES[request.path]
    return web.Response(body=_read(name), content_type=content_type, charset="utf-8", headers=PAGE_HEADERS)


for _path in PAGE_FILES:
    routes.get(_path)(send_file)


@cache
def _read(name: str) -> bytes:
    return files("psserve.router.dashboard").joinpath("page", name).read_bytes()
