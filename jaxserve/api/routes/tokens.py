"""`POST /tokenize` and `/detokenize`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel
from starlette.responses import JSONResponse

from jaxserve.api.body import read_body, validate
from jaxserve.api.context import Context
from jaxserve.api.json_body import parse_json
from jaxserve.api.lengths import check_fits
from jaxserve.api.lower import lower_chat
from jaxserve.api.ports import TextServices
from jaxserve.api.request_log import record_of
from jaxserve.api.rules import check_model
from jaxserve.api.schema.requests import ChatCompletionRequest, Endpoint
from jaxserve.api.schema.tokens import DetokenizeRequest, TokenizeRequest
from jaxserve.api.settings import Settings
from jaxserve.errors import InvalidRequest

R = TypeVar("R", bound=BaseModel)


def router(context: Context) -> APIRouter:
    """The routes."""
    routes = APIRouter()

    @routes.post("/tokenize")
    async def tokenize(request: Request) -> Response:
        """The tokens of a text or a conversation."""
        return await _answer(context, request, "chat", TokenizeRequest, _tokenize)

    @routes.post("/detokenize")
    async def detokenize(request: Request) -> Response:
        """The text of some tokens."""
        return await _answer(context, request, "completions", DetokenizeRequest, _detokenize)

    return routes


async def _answer(
    context: Context,
    http: Request,
    lane: Endpoint,
    schema: type[R],
    work: Callable[[R, TextServices, Settings], dict[str, Any]],
) -> Response:
    """Reads and checks the body, and does the work on a thread."""
    record_of(http.scope).endpoint = "tokens"
    settings = context.settings

    def run(text: TextServices) -> dict[str, Any]:
        value = parse_json(body.decoded(settings.limits.max_body_bytes), settings.limits.max_json_values)
        return work(validate(schema, value, lenient=settings.lenient, limits=settings.limits).request, text, settings)

    with context.admission.enter() as place:
        body = await read_body(http, settings.limits, place.hold)
        return JSONResponse(await context.lanes.lower(lane, run, place.hold))


def _tokenize(request: TokenizeRequest, text: TextServices, settings: Settings) -> dict[str, Any]:
    check_model(request.model, settings.model)
    if request.prompt is not None:
        special = request.add_special_tokens is not False
        check_fits(text.tokenizer, request.prompt, settings.model.context_length, "prompt")
        ids = text.tokenizer.encode(request.prompt, add_special_tokens=special)
    else:
        fields = request.model_dump(include={"model", "messages", "tools", "chat_template_kwargs"}, exclude_none=True)
        chat = validate(ChatCompletionRequest, fields, lenient=False, limits=settings.limits).request
        ids = list(lower_chat(chat, text, settings).prompts[0].request.prompt)
    answer = {"count": len(ids), "max_model_len": settings.model.context_length, "tokens": ids}
    shown = [text.tokenizer.token_text(token) for token in ids] if request.return_token_strs else None
    return answer | ({"token_strs": shown} if shown is not None else {})


def _detokenize(request: DetokenizeRequest, text: TextServices, settings: Settings) -> dict[str, Any]:
    check_model(request.model, settings.model)
    unknown = next((token for token in request.tokens if token >= text.tokenizer.vocab_size), None)
    if unknown is not None:
        raise InvalidRequest("tokens", f"tokens: {unknown} is outside the tokenizer's vocabulary")
    return {"prompt": text.tokenizer.decode(request.tokens, skip_special_tokens=False)}
