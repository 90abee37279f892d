"""`POST /chat/completions` and `POST /completions`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import TypeVar
from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from starlette.requests import ClientDisconnect

from jaxserve.api.body import Parsed, read_body, validate
from jaxserve.api.context import Context
from jaxserve.api.errors import ApiError
from jaxserve.api.findings import MAX_FINDINGS
from jaxserve.api.json_body import parse_json
from jaxserve.api.submission import Generation
from jaxserve.api.usage import Ledger, Stopwatch
from jaxserve.api.lift import Lifter
from jaxserve.api.lower import Job, lower_chat, lower_completion
from jaxserve.api.ports import TextServices
from jaxserve.api.request_log import CLIENT_GONE, Record, record_of
from jaxserve.api.response import GenerationResponse
from jaxserve.api.schema.requests import ChatCompletionRequest, CompletionRequest, GenerationRequest
from jaxserve.api.settings import Settings
from jaxserve.errors import EngineStopped

R = TypeVar("R", bound=GenerationRequest)
Lower = Callable[[R, TextServices, Settings], Job]

IGNORED_HEADER = "x-jaxserve-ignored-fields"


def router(context: Context) -> APIRouter:
    """The two generating routes."""
    routes = APIRouter()

    @routes.post("/chat/completions")
    async def create_chat_completion(request: Request) -> Response:
        """Answers a conversation."""
        return await _generate(context, request, "chat", ChatCompletionRequest, lower_chat)

    @routes.post("/completions")
    async def create_completion(request: Request) -> Response:
        """Continues one or several prompts."""
        return await _generate(context, request, "completions", CompletionRequest, lower_completion)

    return routes


async def _generate(context: Context, http: Request, endpoint: str, schema: type[R], lower: Lower[R]) -> Response:
    record = record_of(http.scope)
    record.endpoint = endpoint
    if not context.engine.ready:
        raise EngineStopped("the server is not ready yet" if context.engine.healthy else "the engine has stopped")
    try:
        body = await read_body(http, context.settings.limits.max_body_bytes)
    except ClientDisconnect:
        record.status = CLIENT_GONE
        return ApiError(400, "body: the connection closed before it was complete", loc=("body",)).response()
    work = asyncio.get_running_loop().run_in_executor(
        context.workers, _prepare, record, body, schema, lower, context.text, context.settings
    )
    parsed, job, started = await work
    ledger = Ledger(job, Stopwatch(record.received, started, time.monotonic()))
    generation = Generation(context.engine, job)
    lifter = Lifter(job, ledger, context.text.tokenizer, model=parsed.request.model, created=int(time.time()))
    headers = {IGNORED_HEADER: _listed(parsed.ignored)} if parsed.ignored else {}
    return GenerationResponse(job, generation, lifter, ledger, context.settings, headers)


def _prepare(
    record: Record, body: bytes, schema: type[R], lower: Lower[R], text: TextServices, settings: Settings
) -> tuple[Parsed[R], Job, float]:
    started = time.monotonic()
    value = parse_json(body, settings.limits.max_json_values)
    parsed = validate(schema, value, lenient=settings.lenient, limits=settings.limits)
    _note(record, parsed.request)
    return parsed, lower(parsed.request, text, settings), started


def _listed(names: Sequence[str]) -> str:
    """Names as a header's value: no more than errors list, the rest is counted."""
    rest = len(names) - MAX_FINDINGS
    shown = [*names[:MAX_FINDINGS], f"and {rest} more"] if rest > 0 else names
    return ",".join(quote(name, safe=".") for name in shown)


def _note(record: Record, request: GenerationRequest) -> None:
    record.model = request.model
    record.stream = bool(request.stream)
    record.user = request.user
    record.metadata = request.metadata
