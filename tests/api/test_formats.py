"""Every family's way of writing, over HTTP: streamed and whole, calls and reasoning, and what the model is shown."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from api_client import Api
from api_fakes import ByteTokenizer, FakeEngine, PlainTemplate, model_info, say

from jaxserve.text.chat import ChatTemplate
from jaxserve.text.formats import FORMATS

Make = Callable[..., Api]
KINDS = (
    "answer",
    "one call",
    "answer and call",
    "two calls",
    "reasoning",
    "reasoning opened by the prompt",
    "reasoning and call",
    "preamble and call",
    "JSON values",
)
PYTHON_VALUES = [("llama3_pythonic", "one call"), ("llama3_pythonic", "two calls")]
"""What a model may write where nothing constrains it; the grammar of a call writes JSON."""
CASES = [
    case
    for line in (Path(__file__).parents[1] / "text/formats/cases.jsonl").read_text("utf-8").splitlines()
    if (case := json.loads(line))["case"] in KINDS and (case["format"], case["case"]) not in PYTHON_VALUES
]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string"},
                    "days": {"type": "integer"},
                    "unit": {"enum": ["celsius", "fahrenheit"]},
                    "options": {"type": "object"},
                    "note": {"type": ["string", "null"]},
                },
                "required": ["city", "days"],
            },
        },
    },
    {"type": "function", "function": {"name": "ping", "parameters": {"type": "object", "properties": {}}}},
]
IDS = {
    "kimi_k2": r"functions\.\w+:\d+",
    "kimi_k2_thinking": r"functions\.\w+:\d+",
    "mistral": "[a-zA-Z0-9]{9}",
    "mistral_named": "[a-zA-Z0-9]{9}",
}
"""Forms of call ids; all others are `call_` and 24 letters."""
TEMPLATES = {
    "Qwen-Qwen3-0.6B": "qwen3",
    "Qwen-Qwen2.5-7B-Instruct": "hermes",
    "Qwen3-Coder": "qwen3_coder",
    "Qwen3.5-4B": "qwen3_5",
    "meta-llama-Llama-3.1-8B-Instruct": "llama3",
    "mistralai-Mistral-Nemo-Instruct-2407": "mistral",
    "fireworks-ai-llama-3-firefunction-v2": "firefunction",
    "deepseek-ai-DeepSeek-V3.1": "deepseek_v31",
    "deepseek-ai-DeepSeek-V3.2": "deepseek_v32",
    "Kimi-K2-Instruct": "kimi_k2",
    "Kimi-K2-Thinking": "kimi_k2_thinking",
    "GLM-4.6": "glm45",
    "GLM-4.7-Flash": "glm47",
    "MiniMax-M2": "minimax_m2",
    "openai-gpt-oss-120b": "gpt_oss",
}


def tokenizer_of(name: str) -> ByteTokenizer:
    """One that has the format's markers as tokens, as its models' do."""
    chosen = FORMATS[name]
    thinking = (chosen.thinking.open, chosen.thinking.close) if chosen.thinking else ()
    texts = (*chosen.stops, *chosen.calls.markers, *thinking)
    return ByteTokenizer(more=[text for text in texts if re.match(r"(<\S+>|\[[A-Z_]+\]|｜\S+｜|\[e~\[)\Z", text)])


def serve(make_api: Make, name: str, text: str, template: Any) -> Api:
    tokenizer = tokenizer_of(name)
    engine = FakeEngine(reply=say(text, tokenizer=tokenizer), tokenizer=tokenizer)
    model = model_info(vocab_size=engine.vocabulary, context_length=20_000)
    return make_api(engine, chat_format=name, template=template, model=model)


def message_of(chunks: list[Any]) -> tuple[dict[str, Any], str]:
    """The message that a stream's deltas add up to, as a client adds them, and the finish reason."""
    message: dict[str, Any] = {"content": "", "reasoning_content": "", "tool_calls": []}
    reason = ""
    for chunk in chunks:
        for choice in chunk["choices"]:
            delta = choice["delta"]
            message["content"] += delta.get("content") or ""
            message["reasoning_content"] += delta.get("reasoning_content") or ""
            for call in delta.get("tool_calls", ()):
                add_call(message["tool_calls"], call)
            reason = choice["finish_reason"] or reason
    return message, reason


def add_call(calls: list[Any], delta: Mapping[str, Any]) -> None:
    if delta["index"] == len(calls):
        # The first delta of a call brings its name, before any of its arguments; no later one does.
        assert delta["function"]["name"]
        assert delta["type"] == "function"
        calls.append({"id": delta["id"], "name": delta["function"]["name"], "arguments": ""})
    else:
        assert delta["index"] == len(calls) - 1
        assert "name" not in delta["function"]
        assert "id" not in delta
    calls[-1]["arguments"] += delta["function"].get("arguments", "")


def prompt_of(api: Api) -> str:
    return api.engine.tokenizer.decode(api.last().prompt, skip_special_tokens=False)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['format']}-{case['case']}".replace(" ", "_"))
def test_streamed_and_whole(make_api: Make, case: dict[str, Any]) -> None:
    name = case["format"]
    template = PlainTemplate(tools=True, opens_reasoning=case["reasoning_open"])
    api = serve(make_api, name, case["text"], template)
    whole = api.chat(tools=TOOLS, max_tokens=900)["choices"][0]
    message, reason = message_of(api.stream("chat", tools=TOOLS, max_tokens=900))

    assert (whole["message"].get("content") or "") == message["content"] == case["content"]
    assert whole["message"].get("reasoning_content", "") == message["reasoning_content"] == case["reasoning"]
    calls = whole["message"].get("tool_calls", [])
    expected = [(call["name"], call["arguments"]) for call in case["calls"]]
    assert [(c["function"]["name"], json.loads(c["function"]["arguments"])) for c in calls] == expected
    assert [(c["name"], json.loads(c["arguments"])) for c in message["tool_calls"]] == expected
    assert whole["finish_reason"] == reason == ("tool_calls" if calls else "stop")
    for call_id in (*(call["id"] for call in calls), *(call["id"] for call in message["tool_calls"])):
        assert re.fullmatch(IDS.get(name, "call_[a-zA-Z0-9]{24}"), call_id)


def test_every_format_is_here() -> None:
    assert {case["format"] for case in CASES if case["calls"]} == set(FORMATS)


@pytest.mark.parametrize("name", FORMATS)
def test_the_length_limit_inside_a_call_is_told(make_api: Make, name: str) -> None:
    case = next(case for case in CASES if case["format"] == name and case["calls"])
    api = serve(make_api, name, case["text"], PlainTemplate(tools=True))
    length = len(api.engine.tokenizer.encode(case["text"], add_special_tokens=False))
    for limit in (length // 2, length - 2):
        whole = api.chat(tools=TOOLS, max_tokens=limit)["choices"][0]
        message, reason = message_of(api.stream("chat", tools=TOOLS, max_tokens=limit))
        assert whole["finish_reason"] == reason == "length"
        given = [(c["function"]["name"], c["function"]["arguments"]) for c in whole["message"].get("tool_calls", ())]
        assert given == [(call["name"], call["arguments"]) for call in message["tool_calls"]]


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_conversation_with_calls_reaches_the_model(make_api: Make, template: str, shared_dir: Path) -> None:
    """Through the family's own template: the tools, the call with its arguments, its result, and the last question."""
    name = TEMPLATES[template]
    source = (shared_dir / "real/templates/llama.cpp" / f"{template}.jinja").read_text("utf-8")
    api = serve(make_api, name, "Fine.", ChatTemplate({"default": source}, {"bos_token": "<s>", "eos_token": "</s>"}))
    call_id = {"mistral": "abcdefghi"}.get(name, "call_1")
    arguments = json.dumps({"city": "Malmö", "days": 3})
    call = {"id": call_id, "type": "function", "function": {"name": "get_weather", "arguments": arguments}}
    history = [
        {"role": "user", "content": "How is it in Malmö?"},
        {"role": "assistant", "content": None, "tool_calls": [call], "reasoning_content": "Look it up."},
        {"role": "tool", "tool_call_id": call_id, "content": "sun, 21 degrees"},
    ]
    later = [{"role": "assistant", "content": "Nice."}, {"role": "user", "content": "Eh?"}]
    for messages in (history, [*history, *later]):
        answer = api.chat(messages=messages, tools=TOOLS)["choices"][0]
        prompt = prompt_of(api)
        assert "ping" in prompt
        assert prompt.index("How is it in Malmö?") < prompt.index("sun, 21 degrees")
        assert prompt.count("Malmö") + prompt.count("Malm\\u00f6") == 2, "the arguments are shown once"
        assert messages[-1]["content"] in prompt[prompt.index("sun, 21 degrees") :]
        text = answer["message"].get("content") or answer["message"].get("reasoning_content")
        assert text == "Fine."
