"""What clients see while the model loads: the port is open, /health says so, everything else is asked to come back.

The real application takes over when it is there; until then requests are answered 503 with Retry-After, and load
balancers see /ready fail.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import AsyncExitStack

from fastapi import FastAPI
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from jaxserve.api.errors import ApiError
from jaxserve.api.middleware import Observe
from jaxserve.api.request_log import PROBES, record_of

_STARTING = ApiError(
    503,
    "the server is starting: the model is being loaded and compiled",
    code="starting",
    headers={"Retry-After": "5"},
)


class StartingApp:
    """An ASGI application that makes another one in the background and then becomes it.

    Args:
        make: builds the real application; runs on a thread of its own and may take minutes.
        on_failure: told, on the event loop, when `make` raised.
    """

    def __init__(self, make: Callable[[], FastAPI], on_failure: Callable[[Exception], None]) -> None:
        self._make = make
        self._on_failure = on_failure
        self._app: ASGIApp | None = None
        self._starting = Observe(_answer_starting)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI event stream (lifespan or request)."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif self._app is not None:
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._starting(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        async with AsyncExitStack() as stack:
            starting = asyncio.create_task(self._start(stack))
            await send({"type": "lifespan.startup.complete"})
            await receive()
            starting.cancel()
        await send({"type": "lifespan.shutdown.complete"})

    async def _start(self, stack: AsyncExitStack) -> None:
        try:
            app = await _on_daemon_thread(self._make)
            await stack.enter_async_context(app.router.lifespan_context(app))
            self._app = app
        except Exception as error:  # noqa: BLE001 - reported, and the process ends with it
            self._on_failure(error)


async def _on_daemon_thread(function: Callable[[], FastAPI]) -> FastAPI:
    """As `asyncio.to_thread`, but an unfinished start does not keep the process from ending."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[FastAPI] = loop.create_future()

    def settle(result: FastAPI | None, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is not None:
            future.set_exception(error)
        elif result is not None:
            future.set_result(result)

    def run() -> None:
        result: FastAPI | None = None
        error: BaseException | None = None
        try:
            result = function()
        except BaseException as raised:  # noqa: BLE001 - handed to the waiting task
            error = raised
        loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name="jaxserve-start", daemon=True).start()
    return await future


async def _answer_starting(scope: Scope, receive: Receive, send: Send) -> None:
    asked = scope["path"].rstrip("/").rpartition("/")[2]
    if asked in PROBES:
        record_of(scope).endpoint = asked
    answer = JSONResponse({"status": "starting"}) if asked == "health" else _STARTING.response()
    await answer(scope, receive, send)
