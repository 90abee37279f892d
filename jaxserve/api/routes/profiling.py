"""`POST /debug/profile?seconds=3`: records what the server does, where `--profile-directory` allows it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse

from jaxserve.api.errors import ApiError
from jaxserve.api.request_log import record_of

_DEFAULT, _MOST = 3.0, 60.0


def router(record: Callable[[float], Path]) -> APIRouter:
    """The route.

    Args:
        record: records for so many seconds and returns where that lies.
    """
    routes = APIRouter()

    @routes.post("/debug/profile")
    async def profile(request: Request) -> JSONResponse:
        """Where the profile lies, once it is written."""
        record_of(request.scope).endpoint = "profile"
        folder = await asyncio.to_thread(record, _seconds(request.query_params.get("seconds")))
        return JSONResponse({"directory": str(folder)})

    return routes


def _seconds(text: str | None) -> float:
    try:
        seconds = _DEFAULT if text is None else float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= _MOST:
        message = f"seconds: a number above 0 and up to {_MOST:g} is needed"
        raise ApiError(422, message, loc=("query", "seconds"), code="invalid_value")
    return seconds
