"""`POST /chat/completions` and `POST /completions`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar
from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from starlette.requests import ClientDisconnect

from jaxserve.api.auth import cache_owner
from jaxserve.api.body import Body, Parsed, read_body, validate
from jaxserve.api.context import Context
from jaxserve.api.errors import ApiError
from jaxserve.api.findings import MAX_FINDINGS
from jaxserve.api.json_body import parse_json
from jaxserve.api.lift import Lifter
from jaxserve.api.lower import Job, lower_chat, lower_completion
from jaxserve.api.ports import TextServices
from jaxserve.api.request_log import CLIENT_GONE, Record, record_of
from jaxserve.api.response import ClientGone, GenerationResponse, until_disconnect
from jaxserve.api.schema.requests import ChatCompletionRequest, CompletionRequest, Endpoint, GenerationRequest
from jaxserve.api.settings import Settings
from jaxserve.api.submission import Generation
from jaxserve.api.usage import Ledger, Stopwatch
from jaxserve.errors import EngineStopped
from jaxserve.sampling.params import KNOBS

R = TypeVar("R", bound=GenerationRequest)
Lower = Callable[[R, TextServices, Settings], Job]

IGNORED_HEADER = "x-jaxserve-ignored-fields"
RELAXED_HEADER = "x-jaxserve-relaxed-tools"
SAMPLING_HEADER = "fireworks-sampling-options"
"""How tokens were drawn, as JSON: what the request says, what the model's own defaults say, neutral values."""


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


async def _generate(context: Context, http: Request, endpoint: Endpoint, schema: type[R], lower: Lower[R]) -> Response:
    record = record_of(http.scope)
    record.endpoint = endpoint
    if not context.engine.ready:
        raise EngineStopped("the server is not ready yet" if context.engine.healthy else "the engine has stopped")
    try:
        with context.admission.enter() as place:
            body = await read_body(http, context.settings.limits, place.hold)
            named = http.path_params.get("deployment")
            prepare = partial(_prepare, record, body, schema, lower, settings=context.settings, model=named)
            parsed, job, started = await until_disconnect(http.receive, context.lanes.lower(endpoint, prepare))
    except (ClientDisconnect, ClientGone):
        record.status = CLIENT_GONE
        return ApiError(400, "body: the connection closed before the request was taken", loc=("body",)).response()
    ledger = Ledger(job, Stopwatch(record.received, started, time.monotonic()))
    generation = Generation(context.engine, job, cache_owner(http.headers, context.settings))
    lifter = Lifter(job, ledger, context.text.tokenizer, model=parsed.request.model, created=int(time.time()))
    headers = {SAMPLING_HEADER: _sampling_options(job)}
    headers |= {RELAXED_HEADER: _listed(relaxed)} if (relaxed := _relaxed(job)) else {}
    headers |= {IGNORED_HEADER: _listed(parsed.ignored)} if parsed.ignored else {}
    return GenerationResponse(job, generation, lifter, ledger, context.settings, headers)


def _prepare(
    record: Record,
    body: Body,
    schema: type[R],
    lower: Lower[R],
    text: TextServices,
    settings: Settings,
    model: str | None,
) -> tuple[Parsed[R], Job, float]:
    """Reads, checks and lowers a body; `model` is the name that its path gives, for bodies without one."""
    started = time.monotonic()
    limits = settings.limits
    value = parse_json(body.decoded(limits.max_body_bytes), limits.max_json_values)
    if model is not None and value.get("model") is None:
        value["model"] = model
    parsed = validate(schema, value, lenient=settings.lenient, limits=limits)
    _note(record, parsed.request)
    return parsed, lower(parsed.request, text, settings), started


def _sampling_options(job: Job) -> str:
    params = job.prompts[0].request.sampling
    return json.dumps({name: getattr(params, name) for name in KNOBS if name != "logit_bias"})


def _relaxed(job: Job) -> list[str]:
    """What of the tools' schemas is left to the model: "tool:what", each once."""
    found = (f"{tool}:{what}" for prompt in job.prompts for tool, what in prompt.relaxed)
    return list(dict.fromkeys(found))


def _listed(names: Sequence[str]) -> str:
    """Names as a header's value: no more than errors list, the rest is counted."""
    rest = len(names) - MAX_FINDINGS
    shown = [*names[:MAX_FINDINGS], f"and {rest} more"] if rest > 0 else names
    return ",".join(quote(name, safe=".") for name in shown)


def _note(record: Record, request: GenerationRequest) -> None:
    record.model = request.model
    record.stream = bool(request.stream)
    record.user = request.safety_identifier or request.user
    record.metadata = request.metadata
