"""The server as an ASGI app: everything wired, nothing started."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

import jaxserve
from jaxserve.api.admission import Admission
from jaxserve.api.auth import ApiKeys
from jaxserve.api.context import OPEN_PATHS, OTHER_PREFIXES, PREFIXES, Context
from jaxserve.api.dialects.anthropic import error_body
from jaxserve.api.errors import ApiError, as_api_error
from jaxserve.api.lanes import Lanes
from jaxserve.api.metrics import Metrics
from jaxserve.api.middleware import Observe, RequireKey
from jaxserve.api.openapi import openapi_document
from jaxserve.api.ports import EngineLike, TextServices
from jaxserve.api.request_log import record_of
from jaxserve.api.routes import dialects, generate, models, page, probes, profiling, tokens
from jaxserve.api.settings import Settings
from jaxserve.api.traces import Traces
from jaxserve.errors import JaxserveError
from jaxserve.images.fetch import ImageFetcher


def create_app(
    engine: EngineLike,
    text: TextServices,
    settings: Settings,
    *,
    leaving: Callable[[], bool] = lambda: False,
    profile: Callable[[float], Path] | None = None,
    fetcher: ImageFetcher | None = None,
    traces: Traces | None = None,
) -> FastAPI:
    """Builds the server around a running engine.

    Args:
        engine: takes requests; its owner closes it after the app has stopped.
        text: tokenizer and chat template of the served model.
        settings: everything that can be chosen.
        leaving: whether the process has been asked to end: `/ready` then says no.
        profile: records for so many seconds what the process does, and returns where that lies; None = nobody may ask.
        fetcher: of images, where `settings.allow_image_urls`; None = one for public addresses.
        traces: get the spans of requests; None = there are none. Closed with the app.

    Returns:
        The app. It starts no thread before its first request; its worker threads end with it.
    """
    limits = settings.limits
    if settings.allow_image_urls and fetcher is None:
        fetcher = ImageFetcher(limits.max_image_url_bytes, limits.image_url_timeout)
    lanes = Lanes(text, settings.lower_threads, fetcher if settings.allow_image_urls else None)
    admission = Admission(engine, settings)
    context = Context(engine, text, settings, Metrics(engine, settings.model.names[0]), admission, lanes, leaving)
    app = FastAPI(
        title="jaxserve",
        version=jaxserve.__version__,
        description=jaxserve.__doc__ or "",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_closing(lanes, traces),
    )
    for prefix in (*PREFIXES, *OTHER_PREFIXES):
        for router in (each.router(context) for each in (generate, dialects, tokens, models)):
            app.include_router(router, prefix=prefix, include_in_schema=prefix in PREFIXES)
    app.include_router(probes.router(context))
    app.include_router(page.router())
    if profile is not None:
        app.include_router(profiling.router(profile))
    app.openapi = lambda: openapi_document(settings)  # type: ignore[method-assign]
    for kind in (ApiError, JaxserveError, HTTPException):
        app.add_exception_handler(kind, _answer(admission, settings))
    # The last added is the outermost: records first, then CORS (which answers preflights itself), then keys.
    app.add_middleware(RequireKey, keys=ApiKeys(settings.api_keys), open_paths=OPEN_PATHS | page.paths())
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=list(settings.cors_origins), allow_methods=["*"], allow_headers=["*"]
        )
    app.add_middleware(Observe, metrics=context.metrics, admission=admission, traces=traces)
    return app


def _closing(lanes: Lanes, traces: Traces | None) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        lanes.close()
        if traces is not None:
            await run_in_threadpool(traces.close)

    return lifespan


def _answer(admission: Admission, settings: Settings) -> Callable[[Request, Exception], Response]:
    def answer(request: Request, error: Exception) -> Response:
        failure = as_api_error(error, admission.retry_after)
        if isinstance(error, HTTPException) and error.status_code == 404:
            failure = replace(failure, message=_nothing_here(request, settings))
        record_of(request.scope).error = failure.body()["error"]["code"]
        return JSONResponse(
            error_body(failure.body()) if record_of(request.scope).endpoint == "messages" else failure.body(),
            failure.status,
            headers=dict(failure.headers),
        )

    return answer


def _nothing_here(request: Request, settings: Settings) -> str:
    """What a client is told whose base URL is wrong, most likely."""
    bases = " or ".join(f"{request.base_url}{prefix[1:]}" for prefix in PREFIXES)
    # Who has shown no key learns no names.
    served = "" if settings.api_keys else f" The model is {settings.model.names[0]!r}."
    return f"{request.url.path[:200]}: there is nothing here. The base URL of a client is {bases}.{served}"
