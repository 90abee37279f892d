"""`GET /`: a page to try the model with, and `GET /docs`: the API with its examples. Both work offline."""

from __future__ import annotations

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
    parts = (f"/page/{name}" for name in _read())
    return frozenset({"/", "/docs", *parts, *(f"/docs/{name}" for name in _SWAGGER)})


def _read() -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in files("jaxserve.api").joinpath("page").iterdir() if each.is_file()}


def router() -> APIRouter:
    """The page and its files."""
    routes = APIRouter(include_in_schema=False)
    stored = _read()

    @routes.api_route("/", methods=READING)
    async def page(request: Request) -> Response:
        """The page."""
        record_of(request.scope).endpoint = "page"
        return _answer("index.html", stored["index.html"])

    @routes.api_route("/page/{name}", methods=READING)
    async def part(request: Request, name: str) -> Response:
        """One of its files."""
        record_of(request.scope).endpoint = "page"
        if name not in stored:
            raise HTTPException(404)
        return _answer(name, stored[name])

    @routes.api_route("/docs", methods=READING)
    async def docs(request: Request) -> Response:
        """The API, to read and to try."""
        record_of(request.scope).endpoint = "page"
        return _answer("docs.html", stored["docs.html"])

    @routes.api_route("/docs/{name}", methods=READING)
    async def swagger(request: Request, name: str) -> Response:
        """A file of Swagger UI."""
        record_of(request.scope).endpoint = "page"
        if name not in _SWAGGER:
            raise HTTPException(404)
        return _answer(name, files(fastapi_offline).joinpath("static", name).read_bytes())

    return routes


def _answer(name: str, data: bytes) -> Response:
    return Response(data, headers=_HEADERS | {"content-type": _TYPES[PurePosixPath(name).suffix]})
