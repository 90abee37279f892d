"""`GET /health`, `/ready`, `/metrics`, `/version`: open to everyone who can reach the port."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from starlette.responses import JSONResponse

import jaxserve
from jaxserve.api.context import READING, Context
from jaxserve.api.metrics import CONTENT_TYPE
from jaxserve.api.request_log import record_of
from jaxserve.api.schema.responses import Status


def router(context: Context) -> APIRouter:
    """The probes."""
    routes = APIRouter()

    @routes.api_route("/health", methods=READING)
    async def health(request: Request) -> Response:
        """200 while the engine runs, 503 once it has died."""
        return _status(request, "health", context.engine.healthy, "ok", "the engine has stopped")

    @routes.api_route("/ready", methods=READING)
    async def ready(request: Request) -> Response:
        """200 while requests should be sent here, 503 before, after, and once the process has been asked to end."""
        good = context.engine.healthy and context.engine.ready and not context.leaving()
        return _status(request, "ready", good, "ready", "not ready")

    @routes.api_route("/metrics", methods=READING)
    async def metrics(request: Request) -> Response:
        """Prometheus metrics."""
        record_of(request.scope).endpoint = "metrics"
        return Response(context.metrics.render(), headers={"content-type": CONTENT_TYPE})

    @routes.api_route("/version", methods=READING)
    async def version(request: Request) -> dict[str, str]:
        """The server's version."""
        record_of(request.scope).endpoint = "version"
        return {"version": jaxserve.__version__}

    return routes


def _status(request: Request, endpoint: str, good: bool, yes: str, no: str) -> Response:
    record_of(request.scope).endpoint = endpoint
    status: Status = {"status": yes if good else no}
    return JSONResponse(status, 200 if good else 503)
