"""Structured output and tools on the bundled model, which was trained for neither: the grammars do it alone."""

from __future__ import annotations

import json
from typing import Literal

import jsonschema
import openai
import pytest
from pydantic import BaseModel, Field

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "colour": {"enum": ["red", "green", "blue"]},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 6}, "maxItems": 3},
    },
    "required": ["name", "age", "colour", "tags"],
    "additionalProperties": False,
}
PARAMETERS = {
    "type": "object",
    "properties": {"age": {"type": "integer", "minimum": 0, "maximum": 120}, "colour": {"enum": ["red", "green"]}},
    "required": ["age", "colour"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "describe", "parameters": PARAMETERS, "strict": True}}
MESSAGES = [{"role": "user", "content": "Tell me about a cat."}]


class Animal(BaseModel):
    name: str = Field(max_length=10)
    legs: int = Field(ge=0, le=8)
    sound: Literal["meow", "woof"]


@pytest.fixture(scope="module")
def client(bundled_server):
    return openai.OpenAI(base_url=f"{bundled_server.url}/v1", api_key="unused", timeout=240)


@pytest.fixture(scope="module")
def model(client):
    return client.models.list().data[0].id


def test_schemas_hold_at_temperature_2(client, model):
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}}
    arguments = {"temperature": 2, "n": 8, "max_tokens": 200, "seed": 1, "extra_body": {"response_format": wanted}}
    chat = client.chat.completions.create(model=model, messages=MESSAGES, logprobs=True, **arguments).choices
    plain = client.completions.create(model=model, prompt="The cat", **arguments).choices
    outputs = [(c.message.content, c.finish_reason) for c in chat] + [(c.text, c.finish_reason) for c in plain]
    for text, reason in outputs:
        if reason == "stop":
            jsonschema.validate(json.loads(text), SCHEMA)
        else:
            assert reason == "length"
    assert sum(reason == "stop" for _, reason in outputs) >= 8
    assert len({text for text, _ in outputs}) > 8


def test_a_grammar_on_both_endpoints_streamed(client, model):
    wanted = {"response_format": {"type": "grammar", "grammar": 'root ::= ("the cat" | "a dog") " sat" "."'}}
    expected = {"the cat sat.", "a dog sat."}
    stream = client.completions.create(
        model=model, prompt="x", stream=True, temperature=2, max_tokens=40, extra_body=wanted
    )
    assert "".join(chunk.choices[0].text for chunk in stream) in expected
    answer = client.chat.completions.create(model=model, messages=MESSAGES, max_tokens=40, extra_body=wanted)
    assert answer.choices[0].message.content in expected
    assert answer.choices[0].finish_reason == "stop"


def test_a_required_call_is_valid(client, model):
    answer = client.chat.completions.create(
        model=model,
        messages=MESSAGES,
        tools=[TOOL],
        tool_choice="required",
        temperature=2,
        max_tokens=250,
        n=4,
        seed=2,
        parallel_tool_calls=False,
    )
    for choice in answer.choices:
        if choice.finish_reason == "length":
            continue
        assert choice.finish_reason == "tool_calls"
        assert choice.message.tool_calls[0].function.name == "describe"
        jsonschema.validate(json.loads(choice.message.tool_calls[0].function.arguments), PARAMETERS)
    assert any(choice.finish_reason == "tool_calls" for choice in answer.choices)


def test_the_client_accumulates_a_streamed_call(client, model):
    choice = {"type": "function", "function": {"name": "describe"}}
    with client.chat.completions.stream(
        model=model,
        messages=MESSAGES,
        tools=[TOOL],
        tool_choice=choice,
        temperature=0.7,
        max_tokens=250,
        seed=3,
        parallel_tool_calls=False,
    ) as stream:
        final = stream.get_final_completion()
    call = final.choices[0].message.tool_calls[0]
    assert final.choices[0].finish_reason == "tool_calls"
    jsonschema.validate(json.loads(call.function.arguments), PARAMETERS)


def test_the_client_parses_into_a_model(client, model):
    answer = client.chat.completions.parse(
        model=model, messages=MESSAGES, response_format=Animal, max_tokens=200, temperature=1.5, seed=4
    )
    assert isinstance(answer.choices[0].message.parsed, Animal)


def test_a_bad_schema_is_refused_and_disturbs_nobody(client, model):
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "array", "uniqueItems": True}}}
    with pytest.raises(openai.UnprocessableEntityError, match="uniqueItems"):
        client.chat.completions.create(model=model, messages=MESSAGES, response_format=wanted)
    assert client.completions.create(model=model, prompt="x", max_tokens=3).usage.completion_tokens <= 3
