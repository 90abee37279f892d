"""Constraints hold whatever the model wants: an untrained model at temperature 2 through the whole server."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from gbnf_oracle import Grammar
from random_model import EOS, RandomModel

from jaxserve.text.formats import FORMATS

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
MESSAGES = [{"role": "user", "content": "Go"}]
CLOSERS = {EOS: 6.0, '"': 3.0, '"}': 3.0, "}": 2.0, "]": 2.0, "<|end|>": 5.0, "<think>": -60.0}
"""Noise hardly ever closes what it opens: some completions get a push, others are cut off by the length limit."""
SCHEMAS: list[Any] = [
    {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False},
    {"type": "string", "maxLength": 12},
    {"type": "string", "pattern": "^[A-F0-9]{4}(-[a-z]+)?$"},
    {"type": "array", "items": {"enum": ["x", 1, None, True]}, "minItems": 2, "maxItems": 5},
    {"type": "number", "minimum": -3, "exclusiveMaximum": 17},
    {"type": "integer", "multipleOf": 7, "minimum": 0, "maximum": 700},
    {"anyOf": [{"type": "null"}, {"type": "boolean"}, {"type": "string", "format": "date"}]},
    {"const": {"deep": [1, {"er": "é"}]}},
    {"type": "object", "additionalProperties": {"type": "integer", "maximum": 9}, "maxProperties": 2},
    {"type": "object", "properties": {"next": {"$ref": "#"}, "v": {"type": "integer"}}, "additionalProperties": False},
    {"type": "array", "prefixItems": [{"type": "string", "maxLength": 3}, {"type": "number"}], "items": False},
    {"type": ["object", "null"], "properties": {"t": {"type": "string", "format": "date-time"}}, "required": ["t"]},
    {"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 30}]},
    {"$ref": "#/$defs/p", "$defs": {"p": {"type": "object", "properties": {"q": {"type": "boolean"}}}}},
]
GRAMMARS = [
    'root ::= ("yes" | "no") "!"{1,3}',
    'root ::= sum "\\n"\nsum ::= term ([-+*/] term)*\nterm ::= [0-9]{1,4} | "(" sum ")"',
    'root ::= "\\"" [^"\\\\\\n]* "\\"" ("," "\\"" [^"]* "\\"")?',
    'root ::= pair+\npair ::= [a-z]+ "=" [^;\\x00-\\x1f]* ";\\n"',
    'root ::= list\nlist ::= "[" (item (", " item)*)? "]"\nitem ::= [a-c] | list',
    "root ::= [あ-ん]{2,6} [。！]",
]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "maxLength": 6},
                    "days": {"type": "integer", "minimum": 1, "maximum": 9},
                    "unit": {"enum": ["celsius", "fahrenheit"]},
                    "options": {
                        "type": "object",
                        "properties": {"wind": {"type": "boolean"}},
                        "required": ["wind"],
                        "additionalProperties": False,
                    },
                    "note": {"type": ["string", "null"], "maxLength": 4},
                },
                "required": ["city", "days", "options"],
                "additionalProperties": False,
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "ping",
            "parameters": {"type": "object", "properties": {}, "additionalProperties": False},
        },
    },
]
PARAMETERS = {tool["function"]["name"]: tool["function"]["parameters"] for tool in TOOLS}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RandomModel]:
    made = RandomModel(tmp_path_factory.mktemp("random"))
    yield made
    made.close()


def texts(answer: dict[str, Any]) -> list[tuple[str, str]]:
    return [(c["message"]["content"] if "message" in c else c["text"], c["finish_reason"]) for c in answer["choices"]]


def complete(model: RandomModel, formats: list[dict[str, Any]], n: int, *, limit: int = 120) -> list[Any]:
    """Answers to one request for each format, on both endpoints in turn, most of them pushed towards an end."""
    outputs: list[Any] = [None] * len(formats)
    for path, first in ((CHAT, 0), (COMPLETIONS, 1)):
        prompt = {"messages": MESSAGES} if path == CHAT else {"prompt": "Go"}
        bodies = [
            {
                **prompt,
                "response_format": formats[number],
                "temperature": 2,
                "max_tokens": limit,
                "n": n,
                "seed": number,
                "logit_bias": model.bias(CLOSERS) if number % 5 else {},
            }
            for number in range(first, len(formats), 2)
        ]
        outputs[first::2] = model.ask("qwen3", path, bodies)
    return outputs


def check_schemas(model: RandomModel, schemas: list[Any], n: int) -> Counter[str]:
    """Every completion that ended is valid; counts how they ended."""
    formats = [{"type": "json_schema", "json_schema": {"name": "x", "schema": schema}} for schema in schemas]
    ends: Counter[str] = Counter()
    for schema, answer in zip(schemas, complete(model, formats, n), strict=True):
        if "refused" in answer:
            assert answer["refused"]["param"].startswith("response_format")
            ends["refused"] += 1
            continue
        validator = jsonschema.Draft202012Validator(
            schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
        )
        for text, reason in texts(answer):
            ends[reason] += 1
            if reason == "stop":
                validator.validate(json.loads(text))
    return ends


def check_grammars(model: RandomModel, grammars: list[str], n: int) -> Counter[str]:
    """Every completion that ended is one of its grammar's."""
    formats = [{"type": "grammar", "grammar": grammar} for grammar in grammars]
    ends: Counter[str] = Counter()
    for grammar, answer in zip(grammars, complete(model, formats, n), strict=True):
        oracle = Grammar(grammar)
        for text, reason in texts(answer):
            ends[reason] += 1
            assert reason == "length" or oracle.accepts(text), (grammar, text)
    return ends


def test_schemas(model: RandomModel) -> None:
    ends = check_schemas(model, SCHEMAS, n=4)
    assert set(ends) <= {"stop", "length"}
    assert ends["stop"] >= len(SCHEMAS) * 2


def test_grammars(model: RandomModel) -> None:
    ends = check_grammars(model, GRAMMARS, n=4)
    assert set(ends) <= {"stop", "length"}
    assert ends["stop"] >= len(GRAMMARS)


def test_the_oracle_knows_what_is_not_in_a_grammar() -> None:
    grammar = Grammar(GRAMMARS[1])
    assert grammar.accepts("(1+22)*3\n")
    for text in ("", "(1+22)*3", "12345\n", "(1\n", "1+\n"):
        assert not grammar.accepts(text)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
def test_forced_calls_are_valid_in_every_format(model: RandomModel, name: str, choice: Any) -> None:
    bodies = [
        {
            "messages": MESSAGES,
            "tools": TOOLS,
            "tool_choice": choice,
            "parallel_tool_calls": parallel,
            "temperature": 2,
            "max_tokens": 300,
            "n": 2,
            "seed": 1 + parallel,
            "logit_bias": model.bias(CLOSERS),
        }
        for parallel in (False, True)
    ]
    called = 0
    for body, answer in zip(bodies, model.ask(name, CHAT, bodies), strict=True):
        for each in answer["choices"]:
            if each["finish_reason"] == "length":
                continue
            assert each["finish_reason"] == "tool_calls", each
            calls = each["message"]["tool_calls"]
            assert len(calls) == 1 or body["parallel_tool_calls"]
            for call in calls:
                assert call["function"]["name"] in (["get_weather"] if isinstance(choice, dict) else PARAMETERS)
                jsonschema.validate(json.loads(call["function"]["arguments"]), PARAMETERS[call["function"]["name"]])
            called += 1
    assert called


@pytest.mark.parametrize("name", [name for name, each in FORMATS.items() if each.thinking and each.name != "generic"])
def test_answers_follow_the_reasoning(model: RandomModel, name: str) -> None:
    """Whatever comes up in the reasoning: ends of turns, markers of calls, the reasoning's own."""
    opens = dict.fromkeys([*FORMATS[name].calls.opens, *FORMATS[name].stops, EOS], 2.0)
    body = {
        "messages": MESSAGES,
        "response_format": {"type": "json_schema", "json_schema": {"type": "integer", "maximum": 99, "minimum": 0}},
        "temperature": 2,
        "max_tokens": 200,
        "n": 6,
        "seed": 1,
        "logit_bias": model.bias({**opens, "<think>": 5.0, "</think>": 5.0}),
    }
    [answer] = model.ask(name, CHAT, [body])
    ended = [choice["message"] for choice in answer["choices"] if choice["finish_reason"] == "stop"]
    assert all(0 <= int(message["content"]) <= 99 for message in ended)
    reasons = FORMATS[name].effort.default != "none"
    assert any("reasoning_content" in message for message in ended) == reasons


def test_preempted_requests_go_on_where_their_grammar_was(
    model: RandomModel, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """With pages for few sequences at once: the same outputs, penalties and log-probabilities included."""
    scarce = RandomModel(tmp_path_factory.mktemp("scarce"), pages=40)
    bodies = [
        {
            "messages": MESSAGES,
            "response_format": {"type": "json_schema", "json_schema": schema} if number % 2 else None,
            "tools": [] if number % 2 else TOOLS,
            "temperature": 2,
            "max_tokens": 130,
            "n": 2,
            "seed": number,
            "logprobs": True,
            "frequency_penalty": 0.5,
            "reasoning_effort": 30,
            "ignore_eos": True,
        }
        for number, schema in enumerate(SCHEMAS[-6:])
    ]
    answers = [each.ask("qwen3", CHAT, bodies) for each in (model, scarce)]
    preemptions = scarce.started.engine.stats().preemptions
    scarce.close()
    assert preemptions
    for plenty, few in zip(*answers, strict=True):
        assert [outcome(choice) for choice in plenty["choices"]] == [outcome(choice) for choice in few["choices"]]


def outcome(choice: dict[str, Any]) -> tuple[Any, ...]:
    """What a choice says, but for the ids of its calls, which are random."""
    message = choice["message"]
    calls = [call["function"] for call in message.get("tool_calls", ())]
    return choice["finish_reason"], message.get("content"), message.get("reasoning_content"), calls, choice["logprobs"]


@pytest.mark.parametrize("opened", [False, True], ids=["opens", "opened"])
@pytest.mark.parametrize("name", [name for name, each in FORMATS.items() if each.effort.integers == "budget"])
def test_budgets_are_exact(model: RandomModel, name: str, opened: bool) -> None:
    """The reasoning of a model that would go on is closed after exactly the budget; what follows keeps its schema."""
    endless = {"<think>": 40.0, "</think>": -60.0, **dict.fromkeys([EOS, *FORMATS[name].stops], -60.0)}
    enders = dict.fromkeys([text for text in FORMATS[name].calls.opens if text.startswith("<")], -60.0)
    never, soon = model.bias(endless | enders), model.bias(CLOSERS | {"<think>": 40.0, "</think>": 2.0})
    schema = {"type": "integer", "maximum": 99, "minimum": 0}
    bodies = [
        {
            "messages": MESSAGES,
            "reasoning_effort": budget,
            "temperature": 2,
            "max_tokens": 90,
            "n": 3,
            "seed": budget,
            "logit_bias": bias,
            "return_token_ids": True,
            "response_format": {"type": "json_schema", "json_schema": schema} if structured else None,
        }
        for budget in (1, 2, 13, 40)
        for bias, structured in ((never, False), (never, True), (soon, True))
    ]
    ids = {text: model.started.tokenizer.id_of(text) for text in ("<think>", "</think>")}
    for body, answer in zip(bodies, model.ask(name, CHAT, bodies, opened=opened), strict=True):
        written = 0
        for choice in answer["choices"]:
            tokens = choice["token_ids"]
            written += len(tokens)
            start = 0 if opened else tokens.index(ids["<think>"]) + 1
            spent = tokens.index(ids["</think>"], start) - start
            assert (
                spent == body["reasoning_effort"] if body["logit_bias"] is never else spent <= body["reasoning_effort"]
            )
            if body["response_format"] and choice["finish_reason"] == "stop":
                jsonschema.validate(json.loads(choice["message"]["content"]), schema)
        assert answer["usage"]["completion_tokens"] == written, "reasoning counts"


@pytest.mark.slow
def test_five_hundred_completions_of_published_schemas(model: RandomModel, shared_dir: Path) -> None:
    lines = (shared_dir / "real/schemas/schema_cases.jsonl").read_text("utf-8").splitlines()
    ends = check_schemas(model, [json.loads(line)["schema"] for line in lines], n=5)
    print(f"schemas: {dict(ends)}")
    assert ends["stop"] + ends["length"] >= 500
    assert ends["stop"] >= 300


@pytest.mark.slow
def test_published_grammars(model: RandomModel, shared_dir: Path) -> None:
    files = sorted((shared_dir / "real/schemas/gbnf").glob("*.gbnf"))
    ends = check_grammars(model, [file.read_text("utf-8") for file in files], n=8)
    print(f"grammars: {dict(ends)}")
    assert ends["stop"] >= 8
