"""Outputs of every format and the messages they stand for: our own, and published ones where they are at hand."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from jaxserve.text.formats import FORMATS, BoundFormat, Tool
from jaxserve.text.reading.parser import ParsedMessage, StreamingParser

CASES = [json.loads(line) for line in (Path(__file__).parent / "cases.jsonl").read_text("utf-8").splitlines()]
PUBLISHED = {
    "qwq": "qwen3",
    "hermes": "hermes",
    "qwen3": "qwen3",
    "qwen3-coder": "qwen3_coder",
    "qwen3.5": "qwen3_5",
    "deepseek-v3.1": "deepseek_v31",
    "deepseek-v3.2": "deepseek_v32",
    "deepseek-r1": "deepseek_r1",
    "deepseek-r1-distill": "deepseek_r1",
    "glm-4.5": "glm45",
    "glm-4.6": "glm45",
    "glm-4.7": "glm47",
    "kimi-k2": "kimi_k2",
    "kimi-k2-thinking": "kimi_k2_thinking",
    "minimax-m2": "minimax_m2",
    "mistral": "mistral",
    "firefunction-v2": "firefunction",
    "llama-3.1": "llama3",
    "llama-3.2": "llama3",
    "llama-3.3": "llama3",
    "llama-3.x": "llama3",
    "llama-3.2-pythonic": "llama3_pythonic",
    "gpt-oss": "gpt_oss",
}
"""Families of the published cases, and our formats. Other families are not served."""
NOT_APPLICABLE = {
    "llama-3.1-002": "a schema forbids the fence that this output has: constrained, it can't come",
    "deepseek-v3.2-028": "an undeclared parameter that upstream takes for all arguments; we keep what the model wrote",
    "qwen3-002": "cut by length, which only the engine can tell; at a text's own end such a call is one",
    "kimi-k2-026": "half a call: complete ones only are calls",
    "kimi-k2-035": "reasoning parsed alone, the calls left in the answer; we parse both",
    "qwen3-011": "reasoning parsed alone, the calls left in the answer; we parse both",
}
LAYOUT_ONLY = {
    "glm-4.5-001": "a blank before the call stays in the answer",
    "qwen3-coder-004": "the line break before the call is layout",
    "qwen3.5-019": "the line break before the call is layout",
    "qwen3.5-020": "the line break before the call is layout",
    "deepseek-r1-019": "line breaks around the reasoning are layout",
    "deepseek-r1-020": "line breaks around the reasoning are layout",
}
"""Cases that we answer with other white space, and why."""


def parse(
    bound: BoundFormat, pieces: Iterable[str], *, tools: Sequence[Tool] | None, reasoning_open: bool
) -> tuple[str, str, list[tuple[str, str]], list[str]]:
    """(answer, reasoning, calls, call ids) of an output that arrives in pieces."""
    parser = StreamingParser(bound, tools=tools, reasoning_open=reasoning_open)
    message = ParsedMessage()
    for piece in pieces:
        for event in parser.push(piece):
            message.add(event)
    for event in parser.flush():
        message.add(event)
    calls = [(call.name, call.arguments) for call in message.calls]
    return message.content, message.reasoning, calls, [call.id for call in message.calls]


def loads(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def variants() -> list[Any]:
    """Every case with markers as plain text and, where that changes nothing, as single tokens."""
    return [
        pytest.param(case, tokens, id=f"{case['format']}-{case['case']}-{tokens}".replace(" ", "_"))
        for case in CASES
        for tokens in (True, False)
        # Without tools the markers of calls are not shown where they are special tokens.
        if not (tokens and case["case"] == "no tools given" and marker_in(case))
    ]


def marker_in(case: Mapping[str, Any]) -> bool:
    return any(marker in case["text"] for marker in FORMATS[case["format"]].calls.markers)


@pytest.mark.parametrize(("case", "tokens"), variants())
def test_own_case(case: Mapping[str, Any], tokens: bool, bound: Any, weather_tools: Any) -> None:
    tools = Tool.parse(weather_tools) if case["tools"] else None
    the = bound(case["format"], tokens=tokens)
    whole = parse(the, [case["text"]], tools=tools, reasoning_open=case["reasoning_open"])
    content, reasoning, calls, _ = whole
    assert (content, reasoning) == (case["content"], case["reasoning"])
    expected = [(call["name"], call["arguments"]) for call in case["calls"]]
    assert [(name, loads(arguments)) for name, arguments in calls] == expected
    split = parse(the, case["text"], tools=tools, reasoning_open=case["reasoning_open"])
    assert split[:3] == whole[:3]


def test_every_format_has_cases() -> None:
    assert {case["format"] for case in CASES} == set(FORMATS)


def published(shared_dir: Path) -> list[dict[str, Any]]:
    lines = (shared_dir / "real/cases/parser_cases.jsonl").read_text("utf-8").splitlines()
    return [case for line in lines if (case := json.loads(line))["family"] in PUBLISHED]


def applies(case: Mapping[str, Any]) -> bool:
    """Whether a server that always parses, and never prefills, can be held to a case."""
    conditions = case["conditions"]
    if case["id"] in NOT_APPLICABLE or conditions.get("continue_final_message"):
        return False
    if str(conditions.get("reasoning_format", "")).endswith("NONE"):
        return False
    return bool(case["raw_output"]) or not (case["expected_tool_calls"] or case["expected_content"])


def reasoning_is_open(case: Mapping[str, Any]) -> bool:
    """Whether the prompt of a case, which isn't part of it, ended inside the reasoning."""
    raw = case["raw_output"]
    if "<think>" in raw:
        return False
    bare = case["kind"] == "reasoning" and case["template"] is None and bool(case["expected_reasoning"])
    return "</think>" in raw or bare


def check_published(case: Mapping[str, Any], bound: Any) -> None:
    tools = Tool.parse(case["tools"]) if case["tools"] else ()
    the, opened = bound(PUBLISHED[case["family"]]), reasoning_is_open(case)
    content, reasoning, calls, ids = whole = parse(the, [case["raw_output"]], tools=tools, reasoning_open=opened)
    assert parse(the, case["raw_output"], tools=tools, reasoning_open=opened)[:3] == whole[:3]
    trim = str.strip if case["id"] in LAYOUT_ONLY else str
    asserted = case["asserted"]
    if "content" in asserted:
        assert trim(content) == trim(case["expected_content"] or "")
    if "reasoning" in asserted:
        assert trim(reasoning) == trim(case["expected_reasoning"] or "")
    expected = case["expected_tool_calls"] or []
    if "tool_calls" in asserted:
        assert len(calls) == len(expected)
    if {"tool_calls", "tool_calls_prefix"} & set(asserted):
        for want, (name, arguments), call_id in zip(expected, calls, ids, strict=False):
            check_call(want, name, arguments, call_id)
        assert len(calls) >= len(expected)


def check_call(want: Mapping[str, Any], name: str, arguments: str, call_id: str) -> None:
    assert want.get("name") in (None, name)
    if "arguments" in want:
        assert loads(arguments) == want["arguments"]
    if "arguments_include" in want:
        assert {**loads(arguments), **want["arguments_include"]} == loads(arguments)
    if want.get("id", "").startswith("functions."):
        assert call_id == want["id"]


def test_published_cases(shared_dir: Path, bound: Any) -> None:
    cases = published(shared_dir)
    applicable = [case for case in cases if applies(case)]
    failed = {}
    for case in applicable:
        try:
            check_published(case, bound)
        except (AssertionError, TypeError) as error:
            failed[case["id"]] = str(error).splitlines()[:3]
    print(f"{len(applicable) - len(failed)} of {len(applicable)} applicable cases pass ({len(cases)} in all)")
    assert not failed
    assert len(applicable) > 150
