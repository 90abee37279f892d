"""`response_format`: what the engine is given to follow, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from api_client import Api
from api_fakes import EOS, FakeEngine, say

BOTH = pytest.mark.parametrize("endpoint", ["chat", "completions"])
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "maximum": 150}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
WRAPPED = {"name": "person", "schema": SCHEMA, "strict": True}
FORMATS = [
    {"type": "json_schema", "json_schema": SCHEMA},
    {"type": "json_schema", "json_schema": WRAPPED},
    {"type": "json_schema", "json_schema": json.dumps(SCHEMA)},
    {"type": "json_schema", "schema": SCHEMA},
    {"type": "json_object", "schema": SCHEMA},
]


def outputs(answer: dict[str, Any], endpoint: str) -> list[str]:
    return [c["message"]["content"] if endpoint == "chat" else c["text"] for c in answer["choices"]]


@BOTH
@pytest.mark.proves("response_format")
@pytest.mark.parametrize("wanted", FORMATS)
def test_every_choice_follows_the_schema(api: Api, endpoint: str, wanted: dict[str, Any]) -> None:
    answer = api.send(endpoint, response_format=wanted, n=2, temperature=2, max_tokens=100)
    for text in outputs(answer, endpoint):
        jsonschema.validate(json.loads(text), SCHEMA)
    assert {choice["finish_reason"] for choice in answer["choices"]} == {"stop"}


@BOTH
def test_json_object_is_an_object(make_api: Any, endpoint: str) -> None:
    api = make_api(FakeEngine(reply=say('[{"a": 1}, 2]')))
    answer = api.send(endpoint, response_format={"type": "json_object"}, max_tokens=100)
    assert isinstance(json.loads(outputs(answer, endpoint)[0]), dict)


@BOTH
def test_a_grammar_is_followed_and_shown(api: Api, endpoint: str) -> None:
    grammar = 'root ::= "yes" | "no"'
    wanted = {"type": "grammar", "grammar": grammar}
    answer = api.send(endpoint, response_format=wanted, raw_output=True, logprobs=True)
    assert outputs(answer, endpoint)[0] in ("yes", "no")
    assert answer["choices"][0]["raw_output"]["grammar"] == grammar
    assert len(answer["choices"][0]["logprobs"]["content"]) == answer["usage"]["completion_tokens"]


@BOTH
def test_a_schema_is_shown_as_the_grammar_it_became(api: Api, endpoint: str) -> None:
    answer = api.send(endpoint, response_format=FORMATS[0], raw_output=True, max_tokens=100)
    assert "start:" in answer["choices"][0]["raw_output"]["grammar"]
    assert api.send(endpoint, raw_output=True)["choices"][0]["raw_output"]["grammar"] is None


@BOTH
def test_the_end_of_the_grammar_ends_the_output_even_without_eos(make_api: Any, endpoint: str) -> None:
    api = make_api(FakeEngine(reply=say("aab", eos=False)))
    wanted = {"type": "grammar", "grammar": 'root ::= "a"+ "b"'}
    answer = api.send(endpoint, response_format=wanted, ignore_eos=True, max_tokens=50)
    assert outputs(answer, endpoint)[0].endswith("b")
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert EOS in api.last().stop_token_ids


def test_with_ignore_eos_the_end_waits_until_nothing_else_is_allowed(make_api: Any) -> None:
    api = make_api(FakeEngine(reply=say("aaa")))
    wanted = {"type": "grammar", "grammar": 'root ::= "a"+'}
    assert api.complete(response_format=wanted, max_tokens=9)["choices"][0]["finish_reason"] == "stop"
    longer = api.complete(response_format=wanted, max_tokens=9, ignore_eos=True)["choices"][0]
    assert (longer["text"], longer["finish_reason"]) == ("a" * 9, "length")


@BOTH
@pytest.mark.parametrize(
    ("wanted", "field", "said"),
    [
        ({"type": "json_schema"}, "response_format.json_schema", "needs a JSON Schema"),
        ({"type": "grammar"}, "response_format.grammar", "needs a GBNF grammar"),
        ({"type": "grammar", "grammar": "root ::= ("}, "response_format.grammar", "response_format.grammar"),
        (
            {"type": "json_schema", "json_schema": {"type": "integer", "not": {"multipleOf": 3}}},
            "response_format",
            "not",
        ),
        ({"type": "json_schema", "json_schema": {"type": "array", "uniqueItems": True}}, "response_format", "unique"),
        ({"type": "json_schema", "json_schema": "{"}, "response_format.json_schema", "JSON"),
    ],
)
def test_what_can_not_be_honoured_is_refused_by_name(
    api: Api, endpoint: str, wanted: dict[str, Any], field: str, said: str
) -> None:
    error = api.refuse(endpoint, 422, response_format=wanted)["error"]
    assert error["param"].startswith(field)
    assert said in error["message"]
    assert not api.engine.requests


@BOTH
def test_text_is_no_constraint(api: Api, endpoint: str) -> None:
    api.send(endpoint, response_format={"type": "text"})
    assert api.last().constraint is None


@BOTH
def test_a_grammar_that_passes_its_limits_says_which_field_and_limit(make_api: Any, endpoint: str) -> None:
    api = make_api(FakeEngine(reply=say("ab" * 90)))
    costly = {"type": "grammar", "grammar": 'root ::= ([a-z] | [a-z][a-z] | [a-z]{1,40}){1,200} "x"{40}'}
    error = api.refuse(endpoint, 422, response_format=costly, max_tokens=150)["error"]
    assert error["param"] == "response_format.grammar"
    assert "a limit of this server: lexer error: too many expressions" in error["message"]
    assert outputs(api.send(endpoint, max_tokens=4), endpoint) == ["abab"]
