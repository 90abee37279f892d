"""Structured output and tools as people's clients ask for them, on the bundled model, where they are installed."""

from __future__ import annotations

import json
import os
from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel, ConfigDict, Field

# litellm would ask the internet for a list of prices otherwise.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")


class Cat(BaseModel):
    """A cat."""

    model_config = ConfigDict(extra="forbid")
    name: str = Field(max_length=8)
    age: int = Field(ge=0, le=20)
    colour: Literal["black", "white"]


class Anything(BaseModel):
    """Any object."""

    model_config = ConfigDict(extra="allow")


QUESTION = "Tell me about a cat."
MESSAGES: Any = [{"role": "user", "content": QUESTION}]


@pytest.fixture(scope="module")
def server(serve):
    """With the model's whole context: explained tools are long in its small vocabulary."""
    return serve(None, "--max-num-seqs", "4", "--max-num-batched-tokens", "64")


@pytest.fixture(scope="module")
def client(server):
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", timeout=240, max_retries=0)


@pytest.fixture(scope="module")
def model(client):
    return client.models.list().data[0].id


@pytest.fixture(scope="module")
def brevity(client, model):
    """A `logit_bias` that closes objects soon: the model is too small to end one of its own."""
    closing = client.completions.create(model=model, prompt="}", max_tokens=1, extra_body={"return_token_ids": True})
    return {str(closing.choices[0].prompt_token_ids[-1]): 30}


def chat(server, model, **more):
    langchain = pytest.importorskip("langchain_openai")
    return langchain.ChatOpenAI(
        model=model,
        base_url=f"{server.url}/v1",
        api_key="unused",
        temperature=1.2,
        seed=5,
        max_tokens=160,
        max_retries=0,
        **more,
    )


def test_openai_parses_answers_and_calls(client, model):
    parsed = client.chat.completions.parse(
        model=model, messages=MESSAGES, response_format=Cat, max_tokens=160, temperature=1.5, seed=1, n=2
    )
    assert all(isinstance(choice.message.parsed, Cat) for choice in parsed.choices)
    called = client.chat.completions.parse(
        model=model,
        messages=MESSAGES,
        tools=[openai.pydantic_function_tool(Cat, name="cat")],
        tool_choice={"type": "function", "function": {"name": "cat"}},
        parallel_tool_calls=False,
        max_tokens=200,
        temperature=1.5,
        seed=1,
    )
    [call] = called.choices[0].message.tool_calls
    assert isinstance(call.function.parsed_arguments, Cat)


@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
def test_langchain_with_structured_output(server, model, brevity, method):
    wanted, more = (Anything, {"logit_bias": brevity}) if method == "json_mode" else (Cat, {})
    structured = chat(server, model, **more).with_structured_output(wanted, method=method)
    assert isinstance(structured.invoke(QUESTION), wanted)
    if method != "json_mode":
        assert isinstance(list(structured.stream(QUESTION))[-1], wanted)


def test_langchain_tools_and_their_results(server, model):
    bound = chat(server, model).bind_tools([Cat], tool_choice="required", parallel_tool_calls=False)
    answer = bound.invoke(QUESTION)
    [call] = answer.tool_calls
    assert call["name"] == "Cat"
    Cat.model_validate(call["args"])
    chunks = list(bound.stream(QUESTION))
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    assert [(c["name"], c["args"]) for c in whole.tool_calls] == [(call["name"], call["args"])]
    messages = [("user", QUESTION), answer, {"role": "tool", "tool_call_id": call["id"], "content": "a fine cat"}]
    assert chat(server, model).invoke(messages).response_metadata["finish_reason"] in ("stop", "length")


@pytest.mark.parametrize("mode", ["TOOLS", "JSON_SCHEMA", "JSON"])
def test_instructor(client, model, brevity, mode):
    instructor = pytest.importorskip("instructor")
    wrapped = instructor.from_openai(client, mode=getattr(instructor.Mode, mode))
    wanted, more = (Anything, {"logit_bias": brevity}) if mode == "JSON" else (Cat, {})
    made = wrapped.chat.completions.create(
        model=model,
        messages=MESSAGES,
        response_model=wanted,
        max_tokens=160,
        temperature=1.2,
        seed=2,
        max_retries=0,
        **more,
    )
    assert isinstance(made, wanted)


def test_litellm_tools(server, model):
    litellm = pytest.importorskip("litellm")
    pytest.importorskip("mcp", reason="litellm needs it for tools")
    parameters = Cat.model_json_schema()
    answer = litellm.completion(
        model=f"openai/{model}",
        api_base=f"{server.url}/v1",
        api_key="unused",
        num_retries=0,
        messages=MESSAGES,
        tools=[{"type": "function", "function": {"name": "cat", "parameters": parameters}}],
        tool_choice="required",
        parallel_tool_calls=False,
        max_tokens=200,
        temperature=1.2,
        seed=3,
    )
    [call] = answer.choices[0].message.tool_calls
    assert call.function.name == "cat"
    Cat.model_validate(json.loads(call.function.arguments))
