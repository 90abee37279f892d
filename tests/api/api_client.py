"""A client for tests that checks every byte it receives against the contract."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml
from starlette.testclient import TestClient

from jaxserve.api.openapi import schemas

CONTRACT = Path(__file__).resolve().parents[3] / "shared" / "spec" / "chat_completions.openapi.yaml"
"""The published contract, where it lies beside the checkout."""
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


@cache
def ours(name: str) -> jsonschema.protocols.Validator:
    """Validates against one of our own schemas."""
    return jsonschema.Draft202012Validator(
        {"$ref": f"#/components/schemas/{name}", "components": {"schemas": schemas()}}
    )


@cache
def published(name: str) -> jsonschema.protocols.Validator | None:
    """Validates against the published schema, with the one widening the design makes: legacy scores may be null."""
    if not CONTRACT.is_file():
        return None
    components = yaml.safe_load(CONTRACT.read_text())["components"]
    scores = components["schemas"]["LogProbs"]["properties"]["token_logprobs"]
    scores["items"] = {"anyOf": [scores["items"], {"type": "null"}]}
    # Every client needs the index of a streamed call.
    components["schemas"]["ChatCompletionMessageToolCall"]["properties"]["index"] = {"type": "integer"}
    # OpenAI's clients look here for what became of a prediction.
    components["schemas"]["UsageInfo"]["properties"]["completion_tokens_details"] = {"type": "object"}
    # So does a client of `functions` need its call where it looks for it.
    for message in ("ChatMessage", "DeltaMessage"):
        components["schemas"][message]["properties"]["function_call"] = {"type": "object"}
    return jsonschema.Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": components})


def check(value: Any, name: str) -> None:
    """Raises when `value` isn't what the contract promises."""
    ours(name).validate(value)
    other = published(name) if name.startswith("Chat") else None
    if other is not None:
        other.validate(value)


def events(text: str) -> list[tuple[str, Any]]:
    """The events of a stream as (kind, data); comments as ('comment', text)."""
    found: list[tuple[str, Any]] = []
    assert text.endswith("\n\n")
    for block in text.removesuffix("\n\n").split("\n\n"):
        kind, data = "message", None
        for line in block.split("\n"):
            name, _, value = line.partition(": ")
            if name == "":
                kind, data = "comment", value
            elif name == "event":
                kind = value
            elif name == "data":
                data = value if value == "[DONE]" else json.loads(value)
            else:
                raise AssertionError(f"unexpected line in a stream: {line!r}")
        found.append((kind, data))
    return found


def check_answer(path: str, status: int, content_type: str, body: str) -> None:
    """Raises when a generating endpoint's answer isn't what the contract promises, chunk by chunk."""
    kind = "ChatCompletion" if path.endswith("chat/completions") else "Completion"
    if status != 200:
        check(json.loads(body), "ErrorResponse")
    elif content_type.startswith("text/event-stream"):
        for event, data in events(body):
            if event == "error":
                check(data, "ErrorResponse")
            elif event == "message" and data != "[DONE]":
                check(data, f"{kind}StreamResponse")
    else:
        check(json.loads(body), f"{kind}Response")


class Recorder:
    """An ASGI layer that keeps every complete answer of the generating endpoints, to be checked when a server ends."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.answers: list[tuple[str, int, str, str]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or not scope["path"].endswith("/completions"):
            await self._app(scope, receive, send)
            return
        parts: list[bytes] = []
        start: dict[str, Any] = {}

        async def recorded(message: Any) -> None:
            start.update(message if message["type"] == "http.response.start" else {})
            parts.append(message.get("body", b""))
            if message["type"] == "http.response.body" and not message.get("more_body"):
                kind = dict(start["headers"]).get(b"content-type", b"").decode()
                self.answers.append((scope["path"], start["status"], kind, b"".join(parts).decode()))
            await send(message)

        await self._app(scope, receive, recorded)

    def check_all(self) -> None:
        for answer in self.answers:
            check_answer(*answer)
        self.answers.clear()


class Api:
    """Talks to an app in this process; every answer is validated."""

    def __init__(self, app: Any, engine: Any) -> None:
        self.http = TestClient(app, raise_server_exceptions=False)
        self.engine = engine

    def post(self, path: str, body: Any = None, **options: Any) -> Any:
        response = self.http.post(path, **({"json": body} if body is not None else {}), **options)
        check_answer(path, response.status_code, response.headers["content-type"], response.text)
        return response

    def chat(self, content: str | None = "Hi", **fields: Any) -> Any:
        """A successful chat answer."""
        return self._ok(self.post(CHAT, self.chat_body(content, **fields))).json()

    def complete(self, prompt: Any = "Hi", **fields: Any) -> Any:
        """A successful completion."""
        return self._ok(self.post(COMPLETIONS, {"model": "fake", "prompt": prompt, **fields})).json()

    def send(self, endpoint: str, **fields: Any) -> Any:
        """A successful answer of either endpoint."""
        return self.chat(**fields) if endpoint == "chat" else self.complete(**fields)

    def stream(self, endpoint: str, **fields: Any) -> list[Any]:
        """The chunks of a successful stream of either endpoint."""
        body = self.body(endpoint, stream=True, **fields)
        found = events(self._ok(self.post(CHAT if endpoint == "chat" else COMPLETIONS, body)).text)
        assert found[-1] == ("message", "[DONE]")
        return [data for kind, data in found[:-1] if kind == "message"]

    def refuse(self, endpoint: str, status: int, **fields: Any) -> Any:
        """The body of an error answer, which must have this status."""
        response = self.post(CHAT if endpoint == "chat" else COMPLETIONS, self.body(endpoint, **fields))
        assert response.status_code == status, response.text
        return response.json()

    def body(self, endpoint: str, **fields: Any) -> dict[str, Any]:
        return self.chat_body(**fields) if endpoint == "chat" else {"model": "fake", "prompt": "Hi", **fields}

    def chat_body(self, content: str | None = "Hi", **fields: Any) -> dict[str, Any]:
        return {"model": "fake", "messages": [{"role": "user", "content": content}], **fields}

    def last(self) -> Any:
        """The newest request the engine got."""
        return self.engine.requests[-1]

    def _ok(self, response: Any) -> Any:
        assert response.status_code == 200, response.text
        return response
