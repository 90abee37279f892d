"""Earlier messages as templates want them."""

from __future__ import annotations

from typing import Any

import pytest

from jaxserve.errors import InvalidRequest
from jaxserve.text import ChatTemplate
from jaxserve.text.formats import FORMATS, ReasoningPlan, bind, choose_format

USER = {"role": "user", "content": "Hi"}


def call(number: int, name: str = "f", arguments: Any = '{"x": 1}') -> dict[str, Any]:
    return {"id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": arguments}}


def answer(number: int, content: str = "ok") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": f"call_{number}", "content": content}


def assistant(*calls: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": list(calls), **more}


def prepared(bound: Any, name: str, *messages: dict[str, Any], history: Any = None) -> list[dict[str, Any]]:
    return list(bound(name).prepare(messages, ReasoningPlan(history=history)))


def test_arguments_take_the_form_the_template_wants(bound: Any) -> None:
    source = "{{ messages[1].tool_calls[0].function.arguments"
    for template, expected in ((source + " }}", '{"x": 1}'), (source + " | tojson }}", {"x": 1})):
        the = bound("hermes", template=template)
        for given in ('{"x": 1}', {"x": 1}):
            got = the.prepare([USER, assistant(call(0, arguments=given))], ReasoningPlan())
            assert got[1]["tool_calls"][0]["function"]["arguments"] == expected
    got = prepared(bound, "glm45", USER, assistant(call(0, arguments="")))
    assert got[1]["tool_calls"][0]["function"]["arguments"] == {}


def test_the_request_is_left_as_it_is(bound: Any) -> None:
    message = assistant(call(0), reasoning_content="x")
    prepared(bound, "kimi_k2", USER, message, answer(0), history="disabled")
    assert message == assistant(call(0), reasoning_content="x")


def test_kimi_ids_count_over_the_conversation(bound: Any) -> None:
    got = prepared(bound, "kimi_k2", USER, assistant(call(0), call(1, "g")), answer(1), answer(0), assistant(call(2)))
    assert [c["id"] for m in got for c in m.get("tool_calls", ())] == [
        "functions.f:0",
        "functions.g:1",
        "functions.f:2",
    ]
    assert [m["tool_call_id"] for m in got if m["role"] == "tool"] == ["functions.f:0", "functions.g:1"]


def test_mistral_ids_have_nine_letters(bound: Any) -> None:
    got = prepared(bound, "mistral", USER, assistant(call(0)), answer(0))
    call_id = got[1]["tool_calls"][0]["id"]
    assert len(call_id) == 9
    assert call_id.isalnum()
    assert got[2]["tool_call_id"] == call_id


def test_several_calls_become_several_messages_where_the_template_shows_one(bound: Any) -> None:
    got = prepared(
        bound, "gpt_oss", USER, assistant(call(0), call(1, "g"), reasoning_content="Hm"), answer(1), answer(0)
    )
    assert [m["role"] for m in got] == ["user", "assistant", "tool", "assistant", "tool"]
    assert [m["tool_calls"][0]["function"]["name"] for m in got if m["role"] == "assistant"] == ["f", "g"]
    assert [m["name"] for m in got if m["role"] == "tool"] == ["f", "g"]
    assert got[1]["thinking"] == "Hm"
    assert "thinking" not in got[3]


@pytest.mark.parametrize("name", FORMATS)
def test_results_come_in_the_order_of_their_calls(name: str, bound: Any) -> None:
    calls = [call(0), call(1, "g"), call(2, "h")]
    given = [USER, assistant(*calls), answer(2, "C"), answer(0, "A"), answer(1, "B"), USER, assistant(*calls)]
    got = prepared(bound, name, *given, answer(1, "E"), answer(2, "F"), answer(0, "D"))
    assert [m["content"] for m in got if m["role"] == "tool"] == list("ABCDEF")
    assert [m["name"] for m in got if m["role"] == "tool"] == ["f", "g", "h"] * 2


def test_results_without_an_id_answer_what_is_left(bound: Any) -> None:
    anonymous = {"role": "tool", "content": "B"}
    got = prepared(bound, "hermes", USER, assistant(call(0), call(1)), anonymous, answer(0, "A"), answer(1, "late"))
    assert [m["content"] for m in got if m["role"] == "tool"] == ["A", "late", "B"]
    got = prepared(bound, "hermes", USER, assistant(call(0), call(1)), anonymous, answer(0, "A"))
    assert [(m["content"], m["tool_call_id"]) for m in got[2:]] == [("A", "call_0"), ("B", "call_1")]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("arguments", ['{"text": "once upon', "[1]", "{x", "3"])
def test_arguments_that_are_no_object_are_handed_over_as_text(name: str, arguments: str, bound: Any) -> None:
    got = prepared(bound, name, USER, assistant(call(0, arguments=arguments)), answer(0))
    assert got[1]["tool_calls"][0]["function"]["arguments"] == arguments


@pytest.mark.parametrize("arguments", [None, "", " ", "null", {}])
def test_no_arguments_are_an_empty_object(arguments: Any, bound: Any) -> None:
    got = prepared(bound, "glm45", USER, assistant(call(0, arguments=arguments)))
    assert got[1]["tool_calls"][0]["function"]["arguments"] == {}


@pytest.mark.parametrize(
    ("history", "kept"),
    [(None, ["a", "b", "c"]), ("preserved", ["a", "b", "c"]), ("interleaved", ["c"]), ("disabled", [])],
)
def test_reasoning_of_earlier_messages(history: Any, kept: list[str], bound: Any) -> None:
    said = [{"role": "assistant", "content": "x", "reasoning_content": text} for text in "abc"]
    got = prepared(bound, "glm47", USER, said[0], USER, said[1], USER, said[2], history=history)
    assert [m["reasoning_content"] for m in got if "reasoning_content" in m] == kept


@pytest.mark.parametrize(
    ("messages", "field"),
    [
        ([USER, answer(0)], "messages.1"),
        ([USER, {"role": "assistant", "content": "x"}, answer(0)], "messages.2"),
        ([USER, assistant(call(0)), answer(1)], "messages.2.tool_call_id"),
        ([USER, assistant({"id": "a", "function": "f"})], "messages.1.tool_calls.0.function"),
    ],
)
def test_bad_histories_name_the_message(messages: list[dict[str, Any]], field: str, bound: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        prepared(bound, "hermes", *messages)
    assert caught.value.field == field


# -- choosing, and models without a format ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model_type", "expected"),
    [
        ("qwen3", "qwen3"),
        ("qwen3_moe", "qwen3"),
        ("deepseek_v3", "deepseek_v31"),
        ("deepseek_v32", "deepseek_v32"),
        ("kimi_k2", "kimi_k2"),
        ("glm4_moe", "glm45"),
        ("minimax_m2", "minimax_m2"),
        ("gpt_oss", "gpt_oss"),
        ("mistral", "mistral"),
        ("llama", "generic"),
        (None, "generic"),
    ],
)
def test_architecture_decides_without_a_template(model_type: str | None, expected: str, bound: Any) -> None:
    assert choose_format(model_type, None, bound("generic").tokenizer).name == expected


def test_a_name_decides_over_everything(bound: Any) -> None:
    tokenizer = bound("generic").tokenizer
    assert choose_format("qwen3", "<tool_call>", tokenizer, name="llama3").name == "llama3"
    with pytest.raises(ValueError, match=r"known: .*glm47.*qwen3"):
        choose_format("qwen3", None, tokenizer, name="qwen")


def test_unknown_models_say_so(bound: Any, caplog: pytest.LogCaptureFixture) -> None:
    choose_format("llama", "{{ messages }}", bound("generic").tokenizer)
    assert "generic" in caplog.text


def test_generic_tools_are_explained_in_the_prompt(bound: Any, weather_tools: Any) -> None:
    source = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    the = bound("generic", template=source)
    messages = [USER, assistant(call(0), call(1)), answer(0, "sunny"), answer(1, "warm")]
    plan = the.plan_reasoning(None)
    text = the.renderer.render(the.prepare(messages, plan), tools=weather_tools)
    assert text.index("get_weather") < text.index("<user>Hi")
    assert '<assistant><tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>\n<tool_call>' in text
    assert text.count("<user>") == 2
    assert "sunny" in text
    assert "get_weather" not in the.renderer.render(the.prepare(messages, plan))


def test_generic_leaves_templates_alone_that_know_tools(bound: Any) -> None:
    template = ChatTemplate({"default": "{{ messages | length }} {{ tools | length }}"}, {})
    the = bind(FORMATS["generic"], bound("generic").tokenizer, template)
    assert the.renderer is not None
    assert the.renderer.render([USER], tools=[{"type": "function", "function": {"name": "f"}}]) == "1 1"
