"""`GET /`: a page to try the model with, and `GET /docs`: the API with its examples. Both work offline."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import PurePosixPath

import fastapi_offline
from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

from jaxserve.api.context import READING
from jaxserve.api.request_log import record_of

_SWAGGER = ("swagger-ui.css", "swagger-ui-bundle.js")
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}
_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
"""Nothing but the package's own files runs or is asked for: what a model writes can't become a script."""
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


def paths() -> frozenset[str]:
    """Where the page lies; it shows nothing that needs a key."""
    return frozenset(_files())


@cache
def _files() -> Mapping[str, bytes]:
    """By path, all of them: the page's, and those of Swagger UI."""
    own = {each.name: each.read_bytes() for each in files("jaxserve.api").joinpath("page").iterdir() if each.is_file()}
    swagger = files(fastapi_offline).joinpath("static")
    return {
        "/": own["index.html"],
        "/docs": own["docs.html"],
        **{f"/page/{name}": data for name, data in own.items()},
        **{f"/docs/{name}": swagger.joinpath(name).read_bytes() for name in _SWAGGER},
    }


def router() -> APIRouter:
    """The page and its files."""
    routes = APIRouter(include_in_schema=False)

    @routes.api_route("/", methods=READING)
    @routes.api_route("/docs", methods=READING)
    @routes.api_route("/page/{name}", methods=READING)
    @routes.api_route("/docs/{name}", methods=READING)
    async def file(request: Request) -> Response:
        """A file, by its path."""
        record_of(request.scope).endpoint = "page"
        path = request.scope["path"]
        if path not in _files():
            raise HTTPException(404)
        kind = _TYPES[PurePosixPath(path).suffix or ".html"]
        return Response(_files()[path], headers=_HEADERS | {"content-type": kind})

    return routes
