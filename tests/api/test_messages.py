"""`POST /v1/messages` with Anthropic's own client."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from api_fakes import FakeEngine, PlainTemplate, say

anthropic = pytest.importorskip("anthropic")

CALL = '<tool_call>\n{"name": "get", "arguments": {"city": "Bern"}}\n</tool_call>'
TOOL: Any = {
    "name": "get",
    "description": "d",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
USER: Any = [{"role": "user", "content": "Hi"}]
Client = Callable[..., Any]


@pytest.fixture
def client(make_live: Callable[..., Any]) -> Client:
    """A client of a server whose model says something; the server's engine is its attribute `engine`."""

    def make(text: str, **options: Any) -> Any:
        opens = options.pop("opens_reasoning", False)
        template = PlainTemplate(tools=True, opens_reasoning=opens)
        server = make_live(FakeEngine(reply=say(text)), chat_format="qwen3", template=template, **options)
        made = anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0)
        made.engine = server.engine
        return made

    return make


def prompt_of(made: Any) -> str:
    return bytes(token for token in made.engine.requests[-1].prompt if token < 256).decode()


def final(made: Any, **fields: Any) -> Any:
    """The streamed answer, which must be the whole one."""
    with made.messages.stream(**fields) as stream:
        streamed = stream.get_final_message()
    whole = made.messages.create(**fields)
    for one in (streamed, whole):
        one.shown = [block.model_dump(exclude={"id"}) for block in one.content]
    for name in ("shown", "stop_reason", "stop_sequence", "usage", "model", "role"):
        assert getattr(streamed, name) == getattr(whole, name), name
    return whole


@pytest.mark.parametrize("opens", [False, True])
def test_text_and_thinking(client: Client, opens: bool) -> None:
    made = client(("why</think>" if opens else "") + "Hello world", opens_reasoning=opens)
    answer = final(
        made,
        model="fake",
        max_tokens=50,
        messages=USER,
        system="Be kind.",
        extra_body={"temperature": 0.25, "top_k": 3},
    )
    assert [block.type for block in answer.content] == (["thinking", "text"] if opens else ["text"])
    assert answer.content[-1].text == "Hello world"
    assert (answer.stop_reason, answer.stop_sequence, answer.model) == ("end_turn", None, "fake")
    assert answer.usage.input_tokens == len(made.engine.requests[-1].prompt)
    assert answer.usage.output_tokens == 12 + 4 * opens  # why</think>, the end
    assert prompt_of(made).startswith("Be kind.")
    assert (made.engine.requests[-1].sampling.temperature, made.engine.requests[-1].sampling.top_k) == (0.25, 3)
    assert made.messages.count_tokens(model="fake", messages=USER).input_tokens == 6 + opens
    off = made.messages.create(model="fake", max_tokens=9, messages=USER, thinking={"type": "disabled"})
    assert off.stop_reason == "max_tokens"


def test_the_stop_sequence_is_told(client: Client) -> None:
    answer = final(client("Hello world"), model="fake", max_tokens=50, messages=USER, stop_sequences=["x", "o w"])
    assert (answer.content[0].text, answer.stop_reason, answer.stop_sequence) == ("Hell", "stop_sequence", "o w")


@pytest.mark.parametrize("choice", [{"type": "auto"}, {"type": "any"}, {"type": "tool", "name": "get"}])
def test_calls_and_their_results(client: Client, choice: Any) -> None:
    made = client(CALL)
    answer = final(made, model="fake", max_tokens=99, messages=USER, tools=[TOOL], tool_choice=choice)
    (call,) = answer.content
    assert (answer.stop_reason, call.type, call.name, call.input) == ("tool_use", "tool_use", "get", {"city": "Bern"})
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "rain", "is_error": True}
    history = [*USER, {"role": "assistant", "content": answer.content}, {"role": "user", "content": [result]}]
    made.messages.create(model="fake", max_tokens=5, messages=history, tools=[TOOL])
    shown = prompt_of(made)
    assert f'=get{{"city": "Bern"}}<|tool|>(get)#{call.id}Error: rain' in shown.replace("'", '"')


def test_a_schema_for_the_answer(client: Client) -> None:
    schema = {"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"]}
    config: Any = {"format": {"type": "json_schema", "schema": schema}, "effort": "max"}
    answer = client('{"a":1}').messages.create(model="fake", max_tokens=50, messages=USER, output_config=config)
    assert json.loads(answer.content[-1].text) == {"a": 1}


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"stop_sequences": ["a"] * 5}, "stop_sequences"),
        ({"container": "x"}, "container"),
        ({"temperature": 3}, "temperature"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools.0.type"),
        ({"thinking": {"type": "adaptive"}}, "thinking.type"),
        ({"messages": [*USER, {"role": "assistant", "content": "Well,"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "document", "source": {}}]}]}, "messages.0.content.0"),
        ({"tool_choice": {"type": "tool"}}, "tool_choice"),
    ],
)
def test_what_has_no_meaning_here_is_named(client: Client, fields: Any, named: str) -> None:
    made = client("Hi")
    with pytest.raises(anthropic.UnprocessableEntityError) as caught:
        made.messages.create(model="fake", max_tokens=5, messages=USER, extra_body=fields)
    body = caught.value.body
    assert (body["type"], body["error"]["type"]) == ("error", "invalid_request_error")
    assert body["error"]["param"].startswith(named)


def test_other_failures(client: Client) -> None:
    made = client("Hi", api_keys=("none",))
    with pytest.raises(anthropic.NotFoundError):
        made.messages.create(model="other", max_tokens=5, messages=USER)
    made.engine.fail, made.engine.fail_after = RuntimeError("broken"), 1
    with pytest.raises(anthropic.APIError), made.messages.stream(model="fake", max_tokens=5, messages=USER) as stream:
        stream.get_final_message()
    stranger = anthropic.Anthropic(base_url=made.base_url, api_key="wrong", max_retries=0)
    with pytest.raises(anthropic.AuthenticationError):
        stranger.messages.create(model="fake", max_tokens=5, messages=USER)


def test_fireworks_client(client: Client) -> None:
    fireworks = pytest.importorskip("fireworks")
    made = client("Hello world")
    other = fireworks.Fireworks(base_url=str(made.base_url), api_key="none", max_retries=0)
    answer = other.messages.create(model="fake", max_tokens=50, messages=USER, raw_output=True)
    assert answer.content[0].text == "Hello world"
    assert answer.raw_output.completion == "Hello world"
