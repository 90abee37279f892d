"""`POST /chat/completions` and `POST /completions`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar
from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel
from starlette.requests import ClientDisconnect

from jaxserve.api.auth import cache_owner, client_of
from jaxserve.api.body import Body, Parsed, read_body, validate
from jaxserve.api.context import Context
from jaxserve.api.deadlines import deadline_of
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
from jaxserve.api.wire import Wire
from jaxserve.errors import EngineStopped
from jaxserve.sampling.params import KNOBS

R = TypeVar("R", bound=BaseModel)

IGNORED_HEADER = "x-jaxserve-ignored-fields"
RELAXED_HEADER = "x-jaxserve-relaxed-tools"
SAMPLING_HEADER = "fireworks-sampling-options"
"""How tokens were drawn, as JSON: what the request says, what the model's own defaults say, neutral values."""


@dataclass(frozen=True)
class Call(Generic[R]):
    """One way of asking for an answer."""

    name: str
    """In metrics."""
    endpoint: Endpoint
    """The endpoint of the contract that it comes to."""
    schema: type[R]
    lower: Callable[[R, TextServices, Settings], tuple[GenerationRequest, Job]]
    """The request in the contract's words, and the job."""
    wire: Callable[[R, Ledger], Wire] | None = None
    """The form of the answer; None = the contract's."""


CHAT = Call("chat", "chat", ChatCompletionRequest, lambda *given: (given[0], lower_chat(*given)))
COMPLETION = Call("completions", "completions", CompletionRequest, lambda *given: (given[0], lower_completion(*given)))


@dataclass(frozen=True)
class Prepared(Generic[R]):
    """A request that can be submitted."""

    parsed: Parsed[R]
    request: GenerationRequest
    job: Job
    started: float
    """When its preparation began."""


def router(context: Context) -> APIRouter:
    """The two generating routes."""
    routes = APIRouter()

    @routes.post("/chat/completions")
    async def create_chat_completion(request: Request) -> Response:
        """Answers a conversation."""
        return await generate(context, request, CHAT)

    @routes.post("/completions")
    async def create_completion(request: Request) -> Response:
        """Continues one or several prompts."""
        return await generate(context, request, COMPLETION)

    return routes


async def generate(context: Context, http: Request, call: Call[R]) -> Response:
    """The answer of a call, which begins when it is sent."""
    deadline = deadline_of(http.headers, context.settings, record_of(http.scope).received)
    async with deadline.bounds():
        prepared = await prepare(context, http, call)
    if prepared is None:
        return ApiError(400, "body: the connection closed before the request was taken", loc=("body",)).response()
    job, parsed, record = prepared.job, prepared.parsed, record_of(http.scope)
    ledger = Ledger(job, Stopwatch(record.received, prepared.started, time.monotonic()))
    generation = Generation(
        context.engine,
        job,
        cache_owner=cache_owner(http.headers, context.settings),
        client=client_of(http.headers, record.client),
        deadline=deadline,
    )
    lifter = Lifter(job, ledger, context.text.tokenizer, model=prepared.request.model, created=int(time.time()))
    headers = {SAMPLING_HEADER: _sampling_options(job)}
    headers |= {RELAXED_HEADER: _listed(relaxed)} if (relaxed := _relaxed(job)) else {}
    headers |= {IGNORED_HEADER: _listed(parsed.ignored)} if parsed.ignored else {}
    wire = call.wire(parsed.request, ledger) if call.wire is not None else None
    return GenerationResponse(job, generation, lifter, ledger, context.settings, headers, wire)


async def prepare(context: Context, http: Request, call: Call[R]) -> Prepared[R] | None:
    """Reads, checks and lowers a request; None when its client has gone.

    Raises:
        EngineStopped: the engine doesn't run, or not yet.
        ApiError: the body can't be taken.
        JaxserveError: what it asks can't be done.
    """
    record = record_of(http.scope)
    record.endpoint = call.name
    if not context.engine.ready:
        raise EngineStopped("the server is not ready yet" if context.engine.healthy else "the engine has stopped")
    named = http.path_params.get("deployment")
    try:
        with context.admission.enter() as place:
            body = await read_body(http, context.settings.limits, place.hold)
            work = partial(_prepare, record, body, call, settings=context.settings, model=named)
            return await until_disconnect(http.receive, context.lanes.lower(call.endpoint, work, place.hold))
    except (ClientDisconnect, ClientGone):
        record.status = CLIENT_GONE
        return None


def _prepare(
    record: Record, body: Body, call: Call[R], text: TextServices, settings: Settings, model: str | None
) -> Prepared[R]:
    """`model` is the name that the path gives, for bodies without one."""
    started = time.monotonic()
    limits = settings.limits
    value = parse_json(body.decoded(limits.max_body_bytes), limits.max_json_values)
    if model is not None and value.get("model") is None:
        value["model"] = model
    parsed = validate(call.schema, value, lenient=settings.lenient, limits=limits)
    if isinstance(parsed.request, GenerationRequest):  # also of requests that can't be lowered
        _note(record, parsed.request)
    request, job = call.lower(parsed.request, text, settings)
    _note(record, request)
    return Prepared(parsed, request, job, started)


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
