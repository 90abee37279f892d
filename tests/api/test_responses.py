"""`POST /v1/responses` with OpenAI's own client."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import openai
import pytest
from api_fakes import FakeEngine, PlainTemplate, say

CALL = '<tool_call>\n{"name": "get", "arguments": {"city": "Bern"}}\n</tool_call>'
TOOL: Any = {
    "type": "function",
    "name": "get",
    "description": "d",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": True,
}
Client = Callable[..., Any]


@pytest.fixture
def client(make_live: Callable[..., Any]) -> Client:
    """A client of a server whose model says something; the server's engine is its attribute `engine`."""

    def make(text: str, **options: Any) -> Any:
        opens = options.pop("opens_reasoning", False)
        template = PlainTemplate(tools=True, opens_reasoning=opens)
        server = make_live(FakeEngine(reply=say(text)), chat_format="qwen3", template=template, **options)
        made: Any = openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0)
        made.engine = server.engine
        return made

    return make


def prompt_of(made: Any) -> str:
    return bytes(token for token in made.engine.requests[-1].prompt if token < 256).decode()


def ask(made: Any, **fields: Any) -> Any:
    """The answer; its stream must come to the same, event by event."""
    whole = made.responses.create(model="fake", **fields)
    events = list(made.responses.create(model="fake", stream=True, **fields))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type for event in events[:2]] == ["response.created", "response.in_progress"]
    done = [event.item for event in events if event.type == "response.output_item.done"]
    last = events[-1].response
    hidden = {"id", "call_id"}
    shown = [[item.model_dump(exclude=hidden) for item in output] for output in (whole.output, done, last.output)]
    assert shown[0] == shown[1] == shown[2]
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == whole.output_text
    assert (last.status, last.usage) == (whole.status, whole.usage)
    return whole


def test_text_and_reasoning(client: Client) -> None:
    made = client("why</think>Hello world", opens_reasoning=True)
    answer = ask(made, input="Hi", instructions="Be kind.", temperature=0.25, metadata={"a": "b"})
    assert [item.type for item in answer.output] == ["reasoning", "message"]
    assert answer.output[0].content[0].text == "why"
    assert (answer.output_text, answer.status, answer.metadata) == ("Hello world", "completed", {"a": "b"})
    assert answer.usage.output_tokens_details.reasoning_tokens == 3
    assert answer.usage.input_tokens == len(made.engine.requests[-1].prompt)
    assert prompt_of(made) == "Be kind.Hi"
    history = [{"role": "user", "content": "Hi"}, *answer.output, {"role": "user", "content": "And?"}]
    ask(made, input=history)
    assert prompt_of(made) == "Hi[why]Hello worldAnd?"
    plain = ask(made, input=[{"role": "user", "content": [{"type": "input_text", "text": "Hi"}]}], max_output_tokens=15)
    assert (plain.status, plain.incomplete_details.reason) == ("incomplete", "max_output_tokens")


@pytest.mark.parametrize(
    "choice",
    [
        "auto",
        "required",
        {"type": "function", "name": "get"},
        {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "get"}]},
    ],
)
def test_calls_and_their_results(client: Client, choice: Any) -> None:
    made = client(CALL)
    answer = ask(made, input="Hi", tools=[TOOL], tool_choice=choice, parallel_tool_calls=False)
    (call,) = answer.output
    assert (call.type, call.name, json.loads(call.arguments)) == ("function_call", "get", {"city": "Bern"})
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    made.responses.create(model="fake", input=[{"role": "user", "content": "Hi"}, call, result], tools=[TOOL])
    assert f'=get{{"city": "Bern"}}<|tool|>(get)#{call.call_id}rain' in prompt_of(made).replace("'", '"')


def test_reasoning_text_and_calls_are_one_message(client: Client) -> None:
    made = client("Hello")
    call = {"type": "function_call", "name": "get", "arguments": "{}"}
    items = [
        {"role": "user", "content": "a"},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "r"}]},
        {"role": "assistant", "content": "b"},
        {**call, "call_id": "c1"},
        {**call, "call_id": "c2"},
        {"type": "function_call_output", "call_id": "c1", "output": "1"},
        {"type": "function_call_output", "call_id": "c2", "output": "2"},
        {"role": "assistant", "content": "c"},
        {"role": "assistant", "content": "d"},
    ]
    made.responses.create(model="fake", input=items, tools=[TOOL])
    assert prompt_of(made) == "geta[r]b=get{}=get{}<|tool|>(get)#c11<|tool|>(get)#c22cd"


def test_a_schema_for_the_answer(client: Client) -> None:
    schema = {"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"], "additionalProperties": False}
    wanted: Any = {"format": {"type": "json_schema", "name": "x", "schema": schema, "strict": True}}
    assert json.loads(ask(client('{"a":1}'), input="Hi", text=wanted).output_text) == {"a": 1}


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"store": True}, "store"),
        ({"background": True}, "background"),
        ({"tools": [{"type": "web_search"}]}, "tools.0.type"),
        ({"truncation": "auto"}, "truncation"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input.0"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"metadata": {str(number): "" for number in range(70)}}, "metadata"),
    ],
)
def test_what_has_no_meaning_here_is_named(client: Client, fields: Any, named: str) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        client("Hi").responses.create(**{"model": "fake", "input": "Hi", **fields})
    assert caught.value.param.startswith(named)


def test_a_failure_ends_the_stream_as_an_event(client: Client) -> None:
    made = client("Hello")
    made.engine.fail, made.engine.fail_after = RuntimeError("broken"), 2
    events = list(made.responses.create(model="fake", input="Hi", stream=True))
    assert events[-1].type == "response.failed"
    assert events[-1].response.error.code == "server_error"


def test_tokens(live: Any) -> None:
    """`/tokenize` and `/detokenize` are each other's inverse; a conversation gives the tokens that its answer cost."""
    made = openai.OpenAI(base_url=live.url + "/v1", api_key="none", max_retries=0)

    def post(path: str, **body: Any) -> Any:
        return made.post(path, body={"model": "fake", **body}, cast_to=object)

    found = post("/tokenize", prompt="héllo", return_token_strs=True)
    assert found["tokens"] == [256, *"héllo".encode()]
    assert (found["count"], len(found["token_strs"])) == (7, 7)
    assert post("/detokenize", tokens=found["tokens"])["prompt"] == "<s>héllo"
    assert post("/tokenize", prompt="a", add_special_tokens=False)["tokens"] == [97]
    messages: Any = [{"role": "user", "content": "Hi"}]
    answer = made.chat.completions.create(model="fake", messages=messages)
    assert post("/tokenize", messages=messages)["count"] == answer.usage.prompt_tokens
    for path, wrong in (
        ("/tokenize", {}),
        ("/tokenize", {"prompt": "a", "messages": messages}),
        ("/detokenize", {"tokens": [10**6]}),
        ("/detokenize", {"tokens": [-1]}),
    ):
        with pytest.raises(openai.UnprocessableEntityError):
            post(path, **wrong)
    with pytest.raises(openai.NotFoundError):
        made.post("/tokenize", body={"model": "other", "prompt": "a"}, cast_to=object)
