"""Requests that show what can be asked, for `/docs` and `/openapi.json`: each can be sent as it stands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxserve.api.settings import Settings

HIDDEN = "a name from GET /v1/models"
"""Instead of the model's name, where only those with a key may learn it."""

_CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "country": {"type": "string"}, "millions": {"type": "number"}},
    "required": ["city", "country", "millions"],
}
_WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
_CAPITAL = "What is the capital of France?"

Bodies = Mapping[str, Mapping[str, Any]]
CHAT: Bodies = {
    "A question": {"messages": [{"role": "user", "content": _CAPITAL}], "temperature": 0},
    "Streamed": {
        "messages": [{"role": "user", "content": "Name three colours."}],
        "temperature": 0,
        "max_tokens": 12,
        "stream": True,
    },
    "JSON by a schema": {
        "messages": [
            {"role": "user", "content": "Berlin is the capital of Germany and has 3.7 million people. As JSON."}
        ],
        "temperature": 0,
        "max_tokens": 100,
        "response_format": {"type": "json_schema", "json_schema": {"name": "city", "schema": _CITY}},
    },
    "A forced tool call": {
        "messages": [{"role": "user", "content": "What is the weather in Paris?"}],
        "temperature": 0,
        "max_tokens": 100,
        "tools": [{"type": "function", "function": {"name": "get_weather", "parameters": _WEATHER}}],
        "tool_choice": {"type": "function", "function": {"name": "get_weather"}},
    },
    "Sampled, with a seed": {
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Tell me a story."}],
        "temperature": 0.8,
        "top_p": 0.95,
        "seed": 1,
        "max_tokens": 60,
    },
}
COMPLETIONS: Bodies = {
    "A beginning": {"prompt": "Once upon a time", "max_tokens": 32, "temperature": 0.8, "seed": 1},
    "Log-probabilities": {"prompt": "The capital of France is", "max_tokens": 1, "temperature": 0, "logprobs": 3},
    "How likely a text is": {"prompt": "The cat sat on the mat.", "max_tokens": 0, "echo": True, "logprobs": 0},
}
_DIALECTS: Mapping[str, Bodies] = {
    "/messages": {"A question": {"messages": [{"role": "user", "content": _CAPITAL}], "max_tokens": 32}},
    "/messages/count_tokens": {"A question": {"messages": [{"role": "user", "content": _CAPITAL}]}},
    "/responses": {"A question": {"input": _CAPITAL, "max_output_tokens": 32}},
    "/tokenize": {"A text": {"prompt": "The cat sat on the mat."}},
    "/detokenize": {"Some tokens": {"tokens": [1, 2, 3]}},
}
BODIES: Mapping[str, Bodies] = {"/chat/completions": CHAT, "/completions": COMPLETIONS, **_DIALECTS}
"""By route, below its prefix."""


def examples(path: str, settings: Settings) -> dict[str, Any]:
    """A route's examples as OpenAPI has them, with the name of the served model."""
    model = HIDDEN if settings.api_keys else settings.model.names[0]
    return {name: {"value": {"model": model, **body}} for name, body in BODIES[path].items()}
