"""`POST /messages`, `/messages/count_tokens` and `/responses`: other APIs, answered by chat completions."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel
from starlette.responses import JSONResponse

from jaxserve.api.body import validate
from jaxserve.api.context import Context
from jaxserve.api.dialects import anthropic, responses
from jaxserve.api.dialects.anthropic_schema import CountTokensRequest, MessagesRequest
from jaxserve.api.dialects.responses_schema import ResponsesRequest
from jaxserve.api.errors import ApiError, as_api_error
from jaxserve.api.lower import Job, lower_chat
from jaxserve.api.ports import TextServices
from jaxserve.api.routes.generate import Call, generate, prepare
from jaxserve.api.schema.requests import ChatCompletionRequest
from jaxserve.api.settings import Settings
from jaxserve.api.usage import Ledger
from jaxserve.errors import InvalidRequest, JaxserveError

R = TypeVar("R", bound=BaseModel)


def _lowered(
    to_chat: Callable[[R], dict[str, Any]], names: Mapping[str, str]
) -> Callable[[R, TextServices, Settings], tuple[ChatCompletionRequest, Job]]:
    """Lowers a request by way of a chat completion; errors name the dialect's own fields."""

    def lower(request: R, text: TextServices, settings: Settings) -> tuple[ChatCompletionRequest, Job]:
        try:
            chat = validate(ChatCompletionRequest, to_chat(request), lenient=False, limits=settings.limits).request
            return chat, lower_chat(chat, text, settings)
        except (ApiError, InvalidRequest) as error:
            raise _renamed(error, names) from None

    return lower


def _renamed(error: ApiError | JaxserveError, names: Mapping[str, str]) -> ApiError:
    failure = as_api_error(error)
    if failure.loc is None or len(failure.loc) < 2 or failure.loc[1] not in names:
        return failure
    ours = names[str(failure.loc[1])]
    place, ours_place = (".".join(map(str, (name, *failure.loc[2:]))) for name in (failure.loc[1], ours))
    message = failure.message.replace(f"{place}:", f"{ours_place}:", 1)
    message = message if ours in message else f"{ours}: {message}"
    return replace(failure, message=message, loc=("body", *ours.split("."), *failure.loc[2:]), detail=None)


def _new_id(prefix: str) -> str:
    return prefix + secrets.token_hex(16)


def _messages_wire(request: MessagesRequest, ledger: Ledger) -> anthropic.AnthropicWire:
    return anthropic.AnthropicWire(ledger, model=request.model, answer_id=_new_id("msg_"))


def _responses_wire(request: ResponsesRequest, ledger: Ledger) -> responses.ResponsesWire:
    return responses.ResponsesWire(ledger, request, answer_id=_new_id("resp_"), created=int(time.time()))


_to_messages = _lowered(anthropic.to_chat, anthropic.NAMES)
MESSAGES = Call("messages", "chat", MessagesRequest, _to_messages, _messages_wire)
COUNT_TOKENS = Call("messages", "chat", CountTokensRequest, _to_messages)
RESPONSES = Call("responses", "chat", ResponsesRequest, _lowered(responses.to_chat, responses.NAMES), _responses_wire)


def router(context: Context) -> APIRouter:
    """The routes."""
    routes = APIRouter()

    @routes.post("/messages")
    async def create_message(request: Request) -> Response:
        """Answers a conversation, in the form of Anthropic's messages."""
        return await generate(context, request, MESSAGES)

    @routes.post("/messages/count_tokens")
    async def count_tokens(request: Request) -> Response:
        """The number of tokens that a message's prompt has."""
        prepared = await prepare(context, request, COUNT_TOKENS)
        count = 0 if prepared is None else len(prepared.job.prompts[0].request.prompt)
        return JSONResponse({"input_tokens": count})

    @routes.post("/responses")
    async def create_response(request: Request) -> Response:
        """Answers a conversation, in the form of OpenAI's responses."""
        return await generate(context, request, RESPONSES)

    return routes
