"""Requests made to hurt: refused or bounded, by name, while a plain stream runs on undisturbed."""

from __future__ import annotations

import threading
import time
from typing import Any

import httpx
import pytest

CHAT = "/v1/chat/completions"
QUESTION = {"role": "user", "content": "Hi"}
SECONDS = 30
"""In which each must be answered: generous, for busy machines; nothing here may take anything like it."""


def schema(value: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": value}}}


def tool(name: str, parameters: Any, **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters, **more}}


def nested(levels: int) -> Any:
    value: Any = {"type": "integer"}
    for _ in range(levels):
        value = {"type": "object", "properties": {"a": value}}
    return value


def called(arguments: Any) -> list[Any]:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    return [QUESTION, {"role": "assistant", "tool_calls": [call]}]


EXPLODING = {f"a{i}": {"anyOf": [{"$ref": f"#/$defs/a{i + 1}"}] * 3} for i in range(30)} | {"a30": {"type": "integer"}}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "schema too deep": (schema(nested(100)), "response_format"),
    "schema too large": (schema({"enum": [f"value {i}" for i in range(30_000)]}), "response_format"),
    "reference out of the schema": (schema({"$ref": "http://localhost/x.json"}), "response_format"),
    "reference to nothing": (schema({"$ref": "#/$defs/x"}), "response_format"),
    "pattern with look-ahead": (schema({"type": "string", "pattern": "(?=a)b"}), "response_format"),
    "pattern that is broken": (schema({"type": "string", "pattern": "(((("}), "response_format"),
    "ten thousand tools": ({"tools": [tool(f"f{i}", {"type": "object"}) for i in range(10_000)]}, "tools"),
    "parameters that are no object": ({"tools": [tool("f", {"type": "array", "items": {}})]}, "tools.0"),
    "strict parameters without sense": (
        {"tools": [tool("f", {"type": "object", "properties": 3}, strict=True)]},
        "tools",
    ),
    "strict parameters that can't be enforced": (
        {
            "tools": [
                tool("f", {"type": "object", "properties": {"x": {"type": "string", "pattern": "(?=a)b"}}}, strict=True)
            ],
            "tool_choice": "required",
        },
        "tools.0",
    ),
    "result without a call": (
        {"messages": [QUESTION, {"role": "tool", "content": "x", "tool_call_id": "c"}]},
        "messages.1",
    ),
    "result of another call": (
        {"messages": [*called("{}"), {"role": "tool", "content": "x", "tool_call_id": "d"}]},
        "messages.2",
    ),
    "grammar that is broken": ({"response_format": {"type": "grammar", "grammar": "root ::= ("}}, "response_format"),
    "grammar without root": ({"response_format": {"type": "grammar", "grammar": 'a ::= "x"'}}, "response_format"),
}
BOUNDED: dict[str, dict[str, Any]] = {
    "recursive schema": schema({"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]}),
    "exploding references": schema({"$ref": "#/$defs/a0", "$defs": EXPLODING}),
    "pattern that backtracks": schema({"type": "string", "pattern": "^(((a+)+)+)+$"}),
    "pattern with large states": schema({"type": "string", "pattern": "(a|b)*a(a|b){25}c"}),
    "tool with a recursive schema": {
        "tools": [tool("f", {"type": "object", "properties": {"x": {"$ref": "#"}}})],
        "tool_choice": "required",
    },
    "parameters without sense": {"tools": [tool("f", {"type": "object", "properties": 3})]},
    "exploding tool": {"tools": [tool("f", nested(100))], "tool_choice": "required"},
    "grammar of counts": {
        "response_format": {"type": "grammar", "grammar": 'root ::= ((("a"{1000}){1000}){1000}){1000}'}
    },
    "arguments that are not JSON": {"messages": called("{a:")},
    "arguments that are no object": {"messages": called("[1]")},
    "arguments that are very deep": {"messages": called("[" * 100_000)},
    "ambiguous grammar": {"response_format": {"type": "grammar", "grammar": 'root ::= s\ns ::= "a" | s s | s s s'}},
}
"""Honoured, refused as the limits have it, or too long for the context, but within the time."""


def ask(url: str, fields: dict[str, Any]) -> httpx.Response:
    body = {"model": MODEL[url], "messages": [QUESTION], "max_tokens": 40, **fields}
    started = time.monotonic()
    answer = httpx.post(url + CHAT, json=body, timeout=SECONDS)
    assert time.monotonic() - started < SECONDS
    return answer


MODEL: dict[str, str] = {}


class PlainStreams(threading.Thread):
    """Asks for the same seeded stream again and again, and keeps what came."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.url = url
        self.texts: list[str] = []
        self.failure: Exception | None = None
        self.over = threading.Event()

    def run(self) -> None:
        body = {"model": MODEL[self.url], "prompt": "Once upon a time", "max_tokens": 60, "seed": 4, "stream": True}
        try:
            while not self.over.is_set():
                with httpx.stream("POST", f"{self.url}/v1/completions", json=body, timeout=120) as answer:
                    lines = [line for line in answer.iter_lines() if line.startswith("data: ")]
                assert lines[-1] == "data: [DONE]"
                self.texts.append(
                    "".join(httpx.Response(200, text=line[6:]).json()["choices"][0]["text"] for line in lines[:-1])
                )
        except Exception as error:  # noqa: BLE001 - the test looks at it
            self.failure = error


@pytest.fixture(scope="module")
def url(bundled_server):
    found = bundled_server.url
    MODEL[found] = httpx.get(f"{found}/v1/models", timeout=30).json()["data"][0]["id"]
    return found


@pytest.fixture(scope="module")
def plain(url):
    streams = PlainStreams(url)
    streams.start()
    yield streams
    streams.over.set()
    streams.join(60)


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(url, plain, name):
    fields, param = REFUSED[name]
    answer = ask(url, fields)
    assert answer.status_code == 422, answer.text[:300]
    error = answer.json()["error"]
    assert error["param"].startswith(param)
    assert param.split(".")[0] in error["message"]
    assert len(error["message"]) < 600


@pytest.mark.parametrize("name", BOUNDED)
def test_bounded(url, plain, name):
    answer = ask(url, BOUNDED[name])
    assert answer.status_code in (200, 400, 422), answer.text[:300]
    if answer.status_code == 400:
        assert answer.json()["error"]["code"] == "context_length_exceeded"
    if answer.status_code == 422:
        assert answer.json()["error"]["param"].startswith(("response_format", "tools"))


def test_the_neighbours_noticed_nothing(url, plain):
    count = len(plain.texts)
    deadline = time.monotonic() + 60
    while len(plain.texts) < max(count + 1, 2) and plain.failure is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert plain.failure is None
    assert len(set(plain.texts)) == 1
    assert plain.texts[0]
