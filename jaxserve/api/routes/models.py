"""`GET /models` and `GET /models/{id}`."""

from __future__ import annotations

from fastapi import APIRouter, Request

from jaxserve.api.context import READING, Context
from jaxserve.api.request_log import record_of
from jaxserve.api.rules import UNSUPPORTED, check_model
from jaxserve.api.schema.responses import ModelCard, ModelList

_FEATURES = (
    "tools",
    "functions",
    "response_format",
    "reasoning_effort",
    "reasoning_history",
    "thinking",
    "speculation",
    "prediction",
    "images",
)
"""Fields that not every version and model of the server can honour."""


def router(context: Context) -> APIRouter:
    """The model list."""
    routes = APIRouter()

    @routes.api_route("/models", methods=READING)
    async def list_models(request: Request) -> ModelList:
        """The names this server's model answers to."""
        record_of(request.scope).endpoint = "models"
        return {"object": "list", "data": [card(context, name) for name in context.settings.model.names]}

    @routes.api_route("/models/{model_id:path}", methods=READING)
    async def get_model(request: Request, model_id: str) -> ModelCard:
        """One model: context length, vocabulary, features."""
        record_of(request.scope).endpoint = "models"
        check_model(model_id, context.settings.model)
        return card(context, model_id)

    return routes


def card(context: Context, name: str) -> ModelCard:
    """What a client may know about the model."""
    model = context.settings.model
    refused = {entry.field for entry in UNSUPPORTED} | ({"images"} if not model.reads_images else set())
    features = [field for field in _FEATURES if field not in refused]
    features += ["return_last_activation"] if model.returns_activations else []
    features += ["include_routing_matrix"] if model.routed_experts is not None else []
    return {
        "id": name,
        "object": "model",
        "created": model.created,
        "owned_by": model.owned_by,
        "context_length": model.context_length,
        "vocab_size": model.vocab_size,
        "supports_chat": context.text.chat is not None,
        "supports_tools": "tools" in features and context.text.chat is not None,
        "supports_image_input": "images" in features,
        "features": features,
        "sampling_defaults": dict(model.sampling_defaults),
    }
