"""What common clients send beyond the contract: each has its plain meaning, or is refused by its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from api_client import CHAT, Api
from api_fakes import EOS, FakeEngine, PlainTemplate, ids_of, say

BOTH = pytest.mark.parametrize("endpoint", ["chat", "completions"])
MakeApi = Callable[..., Api]


def tool(name: str) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    return {"type": "function", "function": {"name": name, "parameters": schema}}


@BOTH
@pytest.mark.proves("prompt_cache_retention", "best_of", "top_k -1")
@pytest.mark.parametrize(
    ("field", "wished", "refused"),
    [
        ("best_of", 1, 2),
        ("prompt_cache_retention", "in_memory", "24h"),
        ("prompt_cache_retention", "in-memory", "in_disk"),
        ("safety_identifier", "someone", 5),
        ("top_k", -1, -2),
    ],
)
def test_spelled_out_defaults(api: Api, endpoint: str, field: str, wished: Any, refused: Any) -> None:
    api.send(endpoint, **{field: wished})
    api.send(endpoint, **{field: None})
    assert api.refuse(endpoint, 422, **{field: refused})["error"]["param"] == field
    if field == "top_k":
        assert api.last().sampling.top_k == 0


@pytest.mark.proves("verbosity", "modalities", "suffix")
@pytest.mark.parametrize(
    ("endpoint", "field", "wished", "refused"),
    [
        ("chat", "verbosity", "medium", "high"),
        ("chat", "modalities", ["text"], ["text", "audio"]),
        ("chat", "modalities", ["text"], []),
        ("chat", "suffix", None, "after"),
        ("completions", "suffix", "", "after"),
        ("completions", "verbosity", None, "medium"),
        ("chat", "audio", None, {"voice": "alloy", "format": "wav"}),
        ("chat", "web_search_options", None, {}),
    ],
)
def test_wishes_that_nothing_here_can_grant(api: Api, endpoint: str, field: str, wished: Any, refused: Any) -> None:
    api.send(endpoint, **{field: wished})
    api.send(endpoint, **{field: None})
    answer = api.refuse(endpoint, 422, **{field: refused})
    assert answer["error"]["param"].split(".")[0] == field


@BOTH
def test_best_of_is_n(api: Api, endpoint: str) -> None:
    assert len(api.send(endpoint, n=3, best_of=3)["choices"]) == 3


@BOTH
@pytest.mark.proves("stop_token_ids")
def test_stop_token_ids(api: Api, endpoint: str) -> None:
    choice = api.send(endpoint, stop_token_ids=[ord("w")])["choices"][0]
    assert choice["finish_reason"] == "stop"
    assert (choice["text"] if endpoint == "completions" else choice["message"]["content"]) == "Hello "
    assert EOS in api.last().stop_token_ids
    api.send(endpoint, stop_token_ids=[ord("w")], ignore_eos=True)
    assert api.last().stop_token_ids == (ord("w"),)
    assert api.refuse(endpoint, 422, stop_token_ids=[10**6])["error"]["param"] == "stop_token_ids"
    assert api.refuse(endpoint, 422, stop_token_ids=[1] * 65)["error"]["param"] == "stop_token_ids"


@BOTH
@pytest.mark.proves("min_tokens")
def test_min_tokens(api: Api, endpoint: str) -> None:
    fields: dict[str, Any] = {"max_tokens": 20, "return_token_ids": True}
    plain, same, longer = (
        api.send(endpoint, **fields, **more)["choices"][0] for more in ({}, {"min_tokens": 11}, {"min_tokens": 12})
    )
    assert plain["token_ids"] == same["token_ids"] == [*b"Hello world", EOS]
    assert longer["token_ids"][:11] == plain["token_ids"][:11]
    assert longer["token_ids"][11] != EOS
    assert len(longer["token_ids"]) == 20
    stopped = api.send(endpoint, **fields, min_tokens=9, stop_token_ids=[ord("o"), ord("d")])["choices"][0]
    assert (stopped["token_ids"][-1], stopped["finish_reason"]) == (ord("d"), "stop")
    assert ord("o") not in stopped["token_ids"][:9]


@BOTH
def test_min_tokens_beside_a_grammar(make_api: MakeApi, endpoint: str) -> None:
    """The grammar's end lets nothing else through, so that it ends the output; before, the end is held back."""
    api = make_api(FakeEngine(reply=say("aa")))
    grammar = {"type": "grammar", "grammar": 'root ::= "a"+'}
    for least, count in ((0, 2), (2, 2), (5, 5)):
        choice = api.send(endpoint, response_format=grammar, min_tokens=least, max_tokens=20, return_token_ids=True)
        ids = choice["choices"][0]["token_ids"]
        assert ids.count(ord("a")) == count
    fixed = api.send(endpoint, response_format={"type": "grammar", "grammar": 'root ::= "a"'}, min_tokens=9)
    assert fixed["choices"][0]["finish_reason"] == "stop"


@BOTH
@pytest.mark.proves("structured_outputs", "guided_json", "guided_grammar", "guided_choice")
@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"guided_json": {"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"]}}, '{"a":1}'),
        ({"guided_json": '{"const": 7}'}, "7"),
        ({"guided_grammar": 'root ::= "x" "y"'}, "xy"),
        ({"guided_choice": ['yes\n"', "no"]}, 'yes\n"'),
        ({"structured_outputs": {"json": {"const": [True]}}}, "[true]"),
        ({"structured_outputs": {"choice": ["ä"]}}, "ä"),
        ({"structured_outputs": {"grammar": 'root ::= "z"'}}, "z"),
        ({"structured_outputs": {"json_object": True}}, "{}"),
    ],
)
def test_formats_in_others_words(make_api: MakeApi, endpoint: str, fields: dict[str, Any], text: str) -> None:
    api = make_api(FakeEngine(reply=say(text)))
    choice = api.send(endpoint, **fields)["choices"][0]
    assert (choice["text"] if endpoint == "completions" else choice["message"]["content"]) == text
    assert choice["finish_reason"] == "stop"
    other = make_api(FakeEngine(reply=say("~")))
    wrong = other.send(endpoint, **fields, max_tokens=30)["choices"][0]
    assert not (wrong["text"] if endpoint == "completions" else wrong["message"]["content"]).startswith("~")
    both = api.refuse(endpoint, 422, **fields, response_format={"type": "json_object"})
    assert both["error"]["param"] == next(iter(fields))


@pytest.mark.parametrize(
    "structured", [{}, {"json": {}, "choice": ["a"]}, {"regex": "a+"}, {"choice": []}, {"json_object": False}]
)
def test_formats_that_say_too_much_or_nothing(api: Api, structured: dict[str, Any]) -> None:
    answer = api.refuse("completions", 422, structured_outputs=structured)
    assert answer["error"]["param"].startswith("structured_outputs")


@pytest.mark.proves("safety_identifier")
def test_the_safety_identifier_is_the_user(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "jaxserve.requests"):
        api.chat(user="one", safety_identifier="two")
    assert '"user": "two"' in caplog.text
    assert '"one"' not in caplog.text


@pytest.mark.proves("include_obfuscation")
def test_obfuscation(api: Api) -> None:
    api.stream("chat", stream_options={"include_usage": True, "include_obfuscation": False})
    refused = api.refuse("chat", 422, stream=True, stream_options={"include_obfuscation": True})
    assert refused["error"]["param"] == "stream_options.include_obfuscation"


@pytest.mark.proves("tool_choice allowed_tools")
@pytest.mark.parametrize("mode", ["auto", "required"])
def test_allowed_tools(make_api: MakeApi, mode: str) -> None:
    """All tools are shown, those that are allowed can be called."""
    call = '<tool_call>\n{"name": "second", "arguments": {"a": 1}}\n</tool_call>'
    api = make_api(FakeEngine(reply=say(call)), chat_format="hermes", template=PlainTemplate(tools=True))
    tools = [tool("first"), tool("second")]
    for name in ("first", "second"):
        only = {"mode": mode, "tools": [{"type": "function", "function": {"name": name}}]}
        choice = api.chat(tools=tools, tool_choice={"type": "allowed_tools", "allowed_tools": only})["choices"][0]
        called = [call["function"]["name"] for call in choice["message"].get("tool_calls") or ()]
        assert called == [name] or (mode == "auto" and name == "first" and "second" not in called)
        assert bytes(token for token in api.last().prompt if token < 256).count(b"first,second") == 1
    unknown = {"mode": mode, "tools": [{"type": "function", "name": "third"}]}
    refused = api.refuse("chat", 422, tools=tools, tool_choice={"type": "allowed_tools", "allowed_tools": unknown})
    assert "'third'" in refused["error"]["message"]


@pytest.mark.proves("message reasoning")
def test_reasoning_of_earlier_answers(api: Api) -> None:
    for fields, shown in (
        ({"reasoning": "why"}, b"[why]"),
        ({"reasoning": "why", "reasoning_content": "because"}, b"[because]"),
    ):
        api.chat(messages=[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", **fields}])
        assert shown in bytes(token for token in api.last().prompt if token < 256)


@pytest.mark.proves("chat_template_kwargs", "reasoning_effort minimal, xhigh, max")
@pytest.mark.parametrize(
    ("fields", "opened"),
    [
        ({}, True),
        ({"chat_template_kwargs": {}}, True),
        ({"chat_template_kwargs": {"enable_thinking": True}}, True),
        ({"chat_template_kwargs": {"enable_thinking": False}}, False),
        ({"reasoning_effort": "none"}, False),
        ({"reasoning_effort": "minimal"}, True),
        ({"reasoning_effort": "xhigh"}, True),
        ({"reasoning_effort": "max"}, True),
    ],
)
def test_reasoning_in_others_words(make_api: MakeApi, fields: dict[str, Any], opened: bool) -> None:
    template = PlainTemplate(opens_reasoning=True)
    api = make_api(FakeEngine(reply=say("why</think>yes")), chat_format="qwen3", template=template)
    message = api.chat(**fields)["choices"][0]["message"]
    assert ("reasoning_content" in message) is opened
    assert (list(api.last().prompt[-1:]) == ids_of("<think>")) is opened


@pytest.mark.parametrize(
    ("kwargs", "more"),
    [
        ({"messages": []}, {}),
        ({"add_generation_prompt": False}, {}),
        ({"bos_token": "x"}, {}),
        ({"unread": 1}, {}),
        ({"enable_thinking": True}, {"reasoning_effort": "none"}),
        ({"enable_thinking": False}, {"thinking": {"type": "disabled"}}),
    ],
)
def test_template_variables_that_are_not_the_callers(
    make_api: MakeApi, kwargs: dict[str, Any], more: dict[str, Any]
) -> None:
    api = make_api(chat_format="qwen3", template=PlainTemplate(opens_reasoning=True))
    refused = api.refuse("chat", 422, chat_template_kwargs=kwargs, **more)["error"]
    assert refused["param"] == "chat_template_kwargs"


def test_template_variables_reach_the_template(make_api: MakeApi) -> None:
    class Template(PlainTemplate):
        def accepts(self, name: str) -> bool:
            return name == "mood"

        def render(self, messages: Any, **options: Any) -> str:
            return super().render(messages, **options) + str(options.get("mood"))

    api = make_api(template=Template())
    api.chat(chat_template_kwargs={"mood": {"a": [1]}})
    assert bytes(token for token in api.last().prompt if token < 256).endswith(b"{'a': [1]}")


@pytest.mark.proves("path without /v1", "Azure's paths")
@pytest.mark.parametrize("prefix", ["", "/openai/v1", "/openai/deployments/fake"])
def test_base_urls_of_other_clients(api: Api, prefix: str) -> None:
    path = prefix + CHAT.removeprefix("/v1")
    for query in ("", "?api-version=2024-10-21"):
        assert api.http.post(path + query, json=api.chat_body()).json()["choices"][0]["message"]["content"]
    assert api.http.post(f"{prefix}/completions", json=api.body("completions")).status_code == 200
    assert api.http.get(f"{prefix}/models").json() == api.http.get("/v1/models").json()


def test_a_deployment_in_the_path_is_the_model(api: Api) -> None:
    body = {"messages": [{"role": "user", "content": "a"}]}
    path = "/openai/deployments/{}/chat/completions"
    assert api.http.post(path.format("fake"), json=body).json()["model"] == "fake"
    assert api.http.post(path.format("other"), json=body).status_code == 404
    assert api.http.post(path.format("other"), json={**body, "model": "fake"}).status_code == 200


def test_azures_own_client(live: Any) -> None:
    openai = pytest.importorskip("openai")
    client = openai.AzureOpenAI(azure_endpoint=live.url, api_key="none", api_version="2024-10-21", max_retries=0)
    answer = client.chat.completions.create(model="fake", messages=[{"role": "user", "content": "a"}])
    assert answer.choices[0].message.content == "Hello world"
