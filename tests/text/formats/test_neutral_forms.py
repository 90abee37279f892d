"""What templates refuse of a conversation or its tools is said to them in plainer forms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from jaxserve.errors import TemplateError
from jaxserve.text import ChatTemplate
from jaxserve.text.chat import TemplateStopped
from jaxserve.text.formats import FORMATS, bind, choose_format
from jaxserve.text.formats.neutral_forms import NeutralForms

USER = {"role": "user", "content": "Hi"}
SYSTEM = {"role": "system", "content": "Be brief."}
OWN = {
    "no system": """{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}{{ tools }}
        {% for m in messages %}<{{ m.role }}>{{ m.content }}{{ m.tool_calls }}{% endfor %}""",
    "one system": """{% for m in messages %}{% if m.role == 'system' and not loop.first %}
        {{ raise_exception('late') }}{% endif %}
        <{{ m.role }}>{{ m.content }}{{ m.tool_calls }}{% endfor %}{{ tools }}""",
    "alternating": """{% for m in messages %}{% if m.role == 'system' or (m.role == 'user') != (loop.index0 % 2 == 0) %}
        {{ raise_exception('roles') }}{% endif %}<{{ m.role }}>{{ m.content }}{% endfor %}""",
    "descriptions": """{% for t in tools or [] %}{{ t.function.name + ': ' + t.function.description }}
        {% for key, value in t.function.parameters.properties | items %}{{ key + value.description }}
        {% endfor %}{% endfor %}{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ m.tool_calls }}{% endfor %}""",
    "types": """{% for t in tools or [] %}{{ t.function.name }}{% for p in t.function.parameters.properties.values() %}
        {% if p.type == 'null' or (p.type is defined and 'null' in p.type) %}{{ raise_exception('null') }}{% endif %}
        {% endfor %}{% endfor %}{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ m.tool_calls }}{% endfor %}""",
    "argument items": """{{ tools }}{% for m in messages %}<{{ m.role }}>{{ m.content }}
        {% for c in m.tool_calls or [] %}{% for key, value in c.function.arguments | items %}{{ key }}={{ value }}
        {% endfor %}{% endfor %}{% endfor %}""",
}
"""Small templates, each of which refuses something."""


def schema(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


TOOLS: Mapping[str, dict[str, Any]] = {
    "bare": {"parameters": schema()},
    "no description": {"parameters": schema(x={"type": "string"})},
    "no properties": {"description": "d", "parameters": {"type": "object"}},
    "any type": {"description": "d", "parameters": schema(x={}, y=True)},
    "nullable": {"parameters": schema(x={"type": ["string", "null"]}, type={"type": "null"})},
    "union": {
        "parameters": schema(
            x={"anyOf": [{"type": "integer"}, {"type": "null"}]}, y={"type": ["string", "null", "integer"]}
        )
    },
    "awkward names": {
        "parameters": schema(items={"type": "array"}, keys={"enum": ["a", None]}, description={"const": 1})
    },
}
CALL = {"id": "call_a12b3", "type": "function", "function": {"name": "f", "arguments": '{"text": "once upon'}}
CUT = [
    USER,
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_a12b3", "content": "RESULT"},
]
CONVERSATIONS: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "user": [USER],
    "system": [SYSTEM, USER],
    "two system messages": [SYSTEM, {**SYSTEM, "content": "In verse."}, USER],
    "system alone": [SYSTEM, USER, {"role": "assistant", "content": "Yes?"}, USER],
    "cut call": CUT,
    "system and cut call": [SYSTEM, *CUT],
}
PUBLISHED = (
    "GLM-4.6",
    "GLM-4.7-Flash",
    "Kimi-K2-Instruct",
    "Kimi-K2-Thinking",
    "Kimi-K3",
    "MiniMax-M1",
    "MiniMax-M2",
    "MiniMax-M3",
    "NousResearch-Hermes-3-Llama-3.1-8B-tool_use",
    "Qwen-QwQ-32B",
    "Qwen-Qwen2.5-7B-Instruct",
    "Qwen-Qwen3-0.6B",
    "Qwen3-Coder",
    "Qwen3.5-4B",
    "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B",
    "deepseek-ai-DeepSeek-V3.1",
    "deepseek-ai-DeepSeek-V3.2",
    "deepseek-ai-DeepSeek-V4",
    "fireworks-ai-llama-3-firefunction-v2",
    "google-gemma-2-2b-it",
    "google-gemma-4-31B-it",
    "llama-cpp-deepseek-r1",
    "meta-llama-Llama-3.1-8B-Instruct",
    "meta-llama-Llama-3.2-3B-Instruct",
    "meta-llama-Llama-3.3-70B-Instruct",
    "mistralai-Mistral-Nemo-Instruct-2407",
    "moonshotai-Kimi-K2",
    "openai-gpt-oss-120b",
)
"""Templates of other people's models."""


@pytest.fixture(params=[*OWN, *PUBLISHED])
def source(request: pytest.FixtureRequest) -> str:
    """The text of each template in turn."""
    if request.param in OWN:
        return OWN[request.param]
    directory: Path = request.getfixturevalue("shared_dir")
    return (directory / "real/templates/llama.cpp" / f"{request.param}.jinja").read_text("utf-8")


def rendered(source: str, messages: Any, tools: Any, bound: Any) -> str:
    tokenizer = bound("generic").tokenizer
    template = ChatTemplate({"default": source}, {"bos_token": "<s>", "eos_token": "</s>"})
    the = bind(choose_format(None, source, tokenizer), tokenizer, template)
    assert the.renderer is not None
    plan = the.plan_reasoning(None)
    return the.renderer.render(the.prepare(messages, plan), tools=tools, **plan.template_args)


def test_no_template_refuses_what_the_form_allows(source: str, bound: Any) -> None:
    for name, tool in TOOLS.items():
        tools = [{"type": "function", "function": {"name": "look_up", **tool}}]
        assert "look_up" in rendered(source, [USER], tools, bound), name
    for name, messages in CONVERSATIONS.items():
        text = rendered(source, messages, None, bound)
        for message in messages:
            # Mistral's template drops the system message where the last message is a result.
            shown = message["role"] != "system" or messages[-1]["role"] == "user"
            assert not shown or (message["content"] or "") in text, name


def test_results_reach_the_model_in_the_order_of_their_calls(source: str, bound: Any) -> None:
    calls = [
        {"id": f"id{city}", "type": "function", "function": {"name": "read", "arguments": {"city": city}}}
        for city in ("Aarau", "Bern")
    ]
    results = [
        {"role": "tool", "tool_call_id": f"id{city}", "content": f"RESULT_OF_{city}"} for city in ("Bern", "Aarau")
    ]
    tools = [
        {
            "type": "function",
            "function": {"name": "read", "description": "d", "parameters": schema(city={"type": "string"})},
        }
    ]
    text = rendered(source, [USER, {"role": "assistant", "content": "", "tool_calls": calls}, *results], tools, bound)
    assert text.rindex("RESULT_OF_Aarau") < text.rindex("RESULT_OF_Bern")


def test_what_a_template_takes_is_handed_over_as_it_is() -> None:
    renderer = NeutralForms(ChatTemplate({"default": "{{ messages }} {{ tools }}"}, {}))
    tools = [{"type": "function", "function": {"name": "f", **TOOLS["nullable"]}}]
    messages = CONVERSATIONS["two system messages"]
    assert renderer.render(messages, tools=tools) == f"{list(messages)} {tools}"


def test_the_first_refusal_is_reported() -> None:
    source = "{{ raise_exception('first ' if messages[0].role == 'system' else 'second') }}"
    with pytest.raises(TemplateError, match="first"):
        NeutralForms(ChatTemplate({"default": source}, {})).render([SYSTEM, USER])


def test_a_template_past_its_limits_is_not_tried_again() -> None:
    tried = []

    class Slow:
        def render(self, messages: Any, **others: Any) -> str:
            tried.append(messages)
            raise TemplateStopped("messages", "stopped")

    with pytest.raises(TemplateStopped):
        NeutralForms(Slow()).render([SYSTEM, USER])
    assert len(tried) == 1


def test_a_result_and_the_next_question_are_one_message_where_results_are_users(bound: Any) -> None:
    text = rendered(OWN["alternating"], [SYSTEM, *CUT, USER], [{"type": "function", "function": {"name": "f"}}], bound)
    assert text.count("<user>") == 2
    assert text.index("RESULT") < text.rindex("Hi")
    assert FORMATS["generic"].renderer == "tools_in_system"
