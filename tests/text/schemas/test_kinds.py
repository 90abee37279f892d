"""Schemas of every kind: the grammar takes exactly the values that the validator calls valid, among many."""

from __future__ import annotations

from itertools import product
from typing import Any

import jsonschema
import pytest
from jsonschema.validators import validator_for

from jaxserve.errors import InvalidRequest

INTEGER, STRING = {"type": "integer"}, {"type": "string"}
DRAFT4, DRAFT7 = ({"$schema": f"http://json-schema.org/draft-0{number}/schema#"} for number in (4, 7))
ABC = {"a": INTEGER, "b": INTEGER, "c": INTEGER}
ALL = [
    None,
    True,
    False,
    0,
    1,
    2,
    3,
    -1,
    1.5,
    "",
    "a",
    "b",
    "ab",
    "abc",
    "x1",
    [],
    [1],
    ["a", 1],
    {},
    {"a": 1},
    {"d": 0},
]
OBJECTS = [{key: 1 for key, there in zip("abcd", chosen, strict=True) if there} for chosen in product([0, 1], repeat=4)]
ARRAYS = [list(items) for count in range(4) for items in product(["x", "y", 1, None], repeat=count)]
TEXTS = ["", "a", "b", "ab", "ba", "abc", "a1", "1a", "A1b2", "pass", "éa", "a\n", "foo", "bar", "foobar"]
KEYS = [dict.fromkeys(keys, 1) for keys in ((), ("a",), ("b",), ("a", "b"), ("ab",), ("abc",), ("aa", "b"), ("c", "d"))]


def obj(**more: Any) -> dict[str, Any]:
    return {"type": "object", **more}


def array(**more: Any) -> dict[str, Any]:
    return {"type": "array", **more}


VARIANTS = {
    "circle": obj(properties={"kind": {"const": "circle"}, "r": INTEGER}, required=["kind", "r"]),
    "square": obj(properties={"kind": {"const": "square"}, "a": INTEGER}, required=["kind", "a"]),
}
SHAPES = [{"kind": kind, key: 1} for kind in ("circle", "square", "x") for key in ("r", "a")]
LISTS: Any = {"$defs": {"list": obj(properties={"v": INTEGER, "next": {"$ref": "#/$defs/list"}}, required=["v"])}}
NESTED = [{"v": 1}, {"v": 1, "next": {"v": 2}}, {"next": {"v": 2}}, {"v": 1, "next": {}}, {}, 1]

CASES: dict[str, tuple[Any, list[Any]]] = {
    # not
    "not: types": ({"not": {"type": ["array", "object", "null"]}}, ALL),
    "not: anything": (obj(properties={"a": INTEGER, "b": {"not": {}}}), OBJECTS),
    "not: values": ({"type": "string", "not": {"enum": ["a", "ab", ""]}}, ALL),
    "not: numbers": ({"type": "integer", "not": {"enum": [1, 2, 7]}}, ALL),
    "not: a constant that is an object": ({"not": {"const": {"a": 1}}}, ALL),
    "not: a pattern": ({"type": "string", "not": {"pattern": "^a|b$"}}, TEXTS),
    "not: bounds": ({"type": ["integer", "string"], "not": {"minimum": 1, "maximum": 2, "minLength": 2}}, ALL),
    "not: required": (obj(properties=ABC, not_={"required": ["b"]}), OBJECTS),
    "not: two required": (obj(properties=ABC, not_={"required": ["a", "b"]}), OBJECTS),
    "not: any of them required": (
        obj(properties=ABC, not_={"anyOf": [{"required": ["a"]}, {"required": ["b"]}]}),
        OBJECTS,
    ),
    "not: all of": (obj(properties=ABC, not_={"allOf": [{"required": ["a"]}, {"required": ["c"]}]}), OBJECTS),
    "not: a property": (obj(properties={"a": {}}, not_={"properties": {"a": {"const": 1}}}), [{}, {"a": 1}, {"a": 2}]),
    "not: not": ({"not": {"not": {"type": "string", "maxLength": 1}}}, ALL),
    "not: a reference": ({"not": {"$ref": "#/$defs/x"}, "$defs": {"x": {"type": ["string", "number"]}}}, ALL),
    "not: one of": ({"not": {"oneOf": [{"type": "string"}, {"enum": ["a", 1]}]}}, ALL),
    "not: short arrays": (array(not_={"maxItems": 1}), ARRAYS),
    "not: an if": ({"not": {"if": {"type": "string"}, "then": {"maxLength": 1}, "else": {"type": "number"}}}, ALL),
    # if
    "if, then": (obj(properties=ABC, if_={"required": ["a"]}, then={"required": ["b"]}), OBJECTS),
    "if, else": (obj(properties=ABC, if_={"required": ["a"]}, else_={"required": ["b"]}), OBJECTS),
    "if, then, else": ({"if": {"type": "string"}, "then": {"maxLength": 1}, "else": {"type": "integer"}}, ALL),
    "if a value, then another": (
        obj(
            properties={"k": {"enum": ["x", "y"]}, "a": INTEGER},
            if_={"properties": {"k": {"const": "x"}}},
            then={"required": ["a"]},
        ),
        [{}, {"k": "x"}, {"k": "y"}, {"k": "x", "a": 1}, {"a": 1}, {"k": "z"}],
    ),
    "then without if": ({"then": {"type": "string"}, "type": "integer"}, ALL),
    # oneOf
    "one of: types": ({"oneOf": [STRING, {"type": ["array", "null"]}]}, ALL),
    "one of: values within a type": ({"oneOf": [STRING, {"enum": ["a", 1]}]}, ALL),
    "one of: three that overlap": ({"oneOf": [{"minimum": 1}, {"maximum": 2}, {"type": "string"}]}, ALL),
    "one of: references": ({"oneOf": [{"$ref": "#/$defs/s"}, {"type": "null"}], "$defs": {"s": STRING}}, ALL),
    "one of: required keys": (obj(properties=ABC, oneOf=[{"required": ["a"]}, {"required": ["b"]}]), OBJECTS),
    "one of: a key that tells": ({"oneOf": [*VARIANTS.values()]}, SHAPES),
    "one of: a key that tells, required elsewhere": (
        obj(properties={"k": {}}, required=["k"], oneOf=[{"properties": {"k": {"const": i}}} for i in range(3)]),
        [{"k": i} for i in range(4)],
    ),
    "one of: integers and numbers above": (
        {"oneOf": [{"type": "integer", "maximum": 1}, {"type": "number", "minimum": 2}]},
        ALL,
    ),
    "one of: closed and open": (
        {"oneOf": [obj(properties={"a": INTEGER}, additionalProperties=False), obj(properties=ABC, required=["b"])]},
        OBJECTS,
    ),
    "one of: patterns": ({"oneOf": [{"type": "string", "pattern": "^a"}, {"type": "string", "pattern": "b$"}]}, TEXTS),
    # dependencies
    "dependentRequired": (obj(properties=ABC, dependentRequired={"a": ["b"], "b": ["c"]}), OBJECTS),
    "dependentRequired on nothing": (obj(properties=ABC, dependentRequired={"a": [], "b": ["c"]}), OBJECTS),
    "dependentSchemas": (obj(properties=ABC, dependentSchemas={"a": {"required": ["c"]}}), OBJECTS),
    "dependencies of both kinds": (
        {**DRAFT7, **obj(properties=ABC, dependencies={"a": ["b"], "c": {"required": ["a"]}})},
        OBJECTS,
    ),
    # keys
    "propertyNames: a pattern": (obj(propertyNames={"pattern": "^a"}), KEYS),
    "propertyNames: values": (obj(propertyNames={"enum": ["a", "c"]}), KEYS),
    "propertyNames: length": (obj(propertyNames={"maxLength": 1, "minLength": 1}), KEYS),
    "propertyNames: not": (obj(propertyNames={"not": {"enum": ["a", "b"]}}), KEYS),
    "propertyNames beside properties": (
        obj(properties={"a": INTEGER}, propertyNames={"pattern": "a"}, additionalProperties=True),
        KEYS,
    ),
    "patterns that overlap": (
        obj(patternProperties={"^a": {"type": "integer"}, "b$": {"const": 1}}),
        [*KEYS, {"ab": 2}, {"a": 2}, {"xb": 2}, {"ab": "x"}],
    ),
    "patterns that forbid": (obj(patternProperties={"^a": False}), KEYS),
    "minProperties beside optional keys": (obj(properties=ABC, minProperties=2), OBJECTS),
    "maxProperties beside optional keys": (obj(properties=ABC, maxProperties=1, required=["b"]), OBJECTS),
    "minProperties of an open object": (obj(properties=ABC, minProperties=1, additionalProperties=True), OBJECTS),
    "unevaluatedProperties": (
        obj(allOf=[{"properties": {"a": INTEGER}}, {"properties": {"b": INTEGER}}], unevaluatedProperties=False),
        OBJECTS,
    ),
    "unevaluatedProperties beside options": (
        obj(
            properties={"a": INTEGER},
            anyOf=[{"properties": {"b": INTEGER}, "required": ["b"]}, {"properties": {"c": INTEGER}}],
            unevaluatedProperties=False,
        ),
        OBJECTS[: 1 << 3],
    ),
    # arrays
    "uniqueItems of an enum": (array(items={"enum": ["x", "y", 1]}, uniqueItems=True, minItems=1), ARRAYS),
    "uniqueItems, at most two": (array(items={"enum": ["x", "y", 1, None]}, uniqueItems=True, maxItems=2), ARRAYS),
    "uniqueItems of one": (array(items=STRING, uniqueItems=True, maxItems=1), ARRAYS),
    "uniqueItems at places of their own": (array(prefixItems=[STRING, INTEGER], items=False, uniqueItems=True), ARRAYS),
    "contains": (array(contains={"type": "integer"}), ARRAYS),
    "contains, twice": (array(contains={"type": "string"}, minContains=2), ARRAYS),
    "contains, at most once": (array(contains={"type": "string"}, maxContains=1, maxItems=3), ARRAYS),
    "contains none": (array(contains={"type": "string"}, minContains=0, maxContains=0, maxItems=3), ARRAYS),
    "unevaluatedItems": (array(allOf=[{"prefixItems": [STRING]}], unevaluatedItems=INTEGER), ARRAYS),
    "items by place, old style": ({**DRAFT7, **array(items=[STRING], additionalItems=INTEGER)}, ARRAYS),
    "additionalItems beside one schema of items": ({**DRAFT7, **array(items=INTEGER, additionalItems=True)}, ARRAYS),
    # references
    "a list": ({"$ref": "#/$defs/list", **LISTS}, NESTED),
    "the opposite of a list": ({"not": {"$ref": "#/$defs/list"}, **LISTS}, [*NESTED, 1, "x"]),
    "a list with a rule beside the reference": ({"$ref": "#/$defs/list", "maxProperties": 1, **LISTS}, NESTED),
    "an anchor": ({"$ref": "#here", "$defs": {"x": {"$anchor": "here", "type": "integer"}}}, ALL),
    "an identifier": (
        {"$id": "https://example.com/root", "$ref": "other", "$defs": {"x": {"$id": "other", "type": "integer"}}},
        ALL,
    ),
    "a pointer into properties": (
        obj(properties={"a": INTEGER, "b": {"$ref": "#/properties/a"}}),
        [{"a": 1, "b": 1}, {"b": "x"}],
    ),
    "a dynamic reference": (
        {"$dynamicAnchor": "n", **obj(properties={"v": INTEGER, "next": {"$dynamicRef": "#n"}}, required=["v"])},
        NESTED,
    ),
    "beside a reference, old style": (
        {**DRAFT7, "definitions": {"x": INTEGER}, **obj(properties={"a": {"$ref": "#/definitions/x", "minimum": 5}})},
        [{"a": 1}, {"a": "x"}],
    ),
    # texts
    "look-ahead": ({"type": "string", "pattern": "^(?!a)[a-z]+$"}, TEXTS),
    "look-ahead, as for passwords": ({"type": "string", "pattern": "^(?=.*[A-Z])(?=.*[0-9])[A-Za-z0-9]{2,8}$"}, TEXTS),
    "draft 4's exclusive bounds": (
        {**DRAFT4, "type": "number", "minimum": 1, "exclusiveMinimum": True},
        ALL,
    ),
}


def given(schema: Any) -> Any:
    """`if_` is Python's spelling of a keyword."""
    if isinstance(schema, dict):
        return {key.rstrip("_"): given(part) for key, part in schema.items()}
    return [given(part) for part in schema] if isinstance(schema, list) else schema


@pytest.mark.parametrize("name", CASES)
def test_the_grammar_takes_what_is_valid(name: str, grammar: Any) -> None:
    schema, values = given(CASES[name][0]), CASES[name][1]
    valid = validator_for(schema, jsonschema.Draft202012Validator)(schema).is_valid
    assert {valid(value) for value in values} == {True, False}
    takes = grammar(schema, open_objects=True)
    for value in values:
        assert takes(value) == valid(value), value


@pytest.mark.parametrize("name", CASES)
def test_a_closed_grammar_takes_nothing_else(name: str, grammar: Any) -> None:
    schema, values = given(CASES[name][0]), CASES[name][1]
    valid = validator_for(schema, jsonschema.Draft202012Validator)(schema).is_valid
    takes = grammar(schema)
    taken = [value for value in values if takes(value)]
    assert taken
    assert all(valid(value) for value in taken)


UNDESCRIBED = {
    "required": obj(properties={"a": INTEGER}, required=["d", "a"]),
    "required by a part": obj(properties={"a": INTEGER}, allOf=[{"required": ["d"]}]),
    "required by an option": obj(
        properties={"a": INTEGER}, required=["a"], anyOf=[{"required": ["d"]}, {"required": ["c"]}]
    ),
    "required beside another": obj(properties={"a": INTEGER}, required=["a"], dependentRequired={"a": ["d"]}),
    "required beside another, old style": {
        **DRAFT7,
        **obj(properties={"a": INTEGER}, required=["a"], dependencies={"a": ["d"]}),
    },
}


@pytest.mark.parametrize("name", UNDESCRIBED)
def test_a_required_key_needs_no_description(name: str, grammar: Any) -> None:
    takes = grammar(UNDESCRIBED[name])
    assert takes({"a": 1, "d": "any value"})
    assert not takes({"a": 1})
    assert not takes({"a": 1, "d": 1, "e": 1})


REFUSED: dict[str, tuple[Any, str]] = {
    "not a multiple": ({"type": "integer", "not": {"multipleOf": 3}}, "not"),
    "unique texts": (array(items=STRING, uniqueItems=True), "uniqueItems"),
    "integers or other numbers": ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "oneOf"),
    "a reference elsewhere": ({"$ref": "https://example.com/x.json"}, "points? into|must point"),
    "a value of the wrong kind": ({"type": "string", "maxLength": "5"}, "maxLength"),
    "nothing": ({"allOf": [STRING, INTEGER]}, "no value satisfies"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_can_not_be_said_is_refused_by_name(name: str, grammar: Any) -> None:
    schema, word = REFUSED[name]
    with pytest.raises(InvalidRequest, match=word):
        grammar(schema)


FORMATS = {
    "date": (["2024-02-29", "2023-12-31"], ["2023-02-29", "2023-13-01", "x"]),
    "time": (["10:20:30Z", "10:20:30.5+01:00"], ["24:00:00Z", "10:20:30"]),
    "date-time": (["2024-02-29T10:20:30Z"], ["2023-02-29T10:20:30Z", "2024-01-01"]),
    "json-pointer": (["", "/a/~0b"], ["a", "/~2"]),
    "iri": (["https://exämple.org/ü"], ["no-iri", "a b:c"]),
    "uri-reference": (["../a?b#c", "https://a.b/c"], ["a b", "\\"]),
    "uri-template": (["/a/{b}{?c,d*}"], ["/a/{b"]),
    "regex": (["^[a-z]+$", "(ab|c)?d"], ["*", "("]),
    "idn-email": (["a@b.cd"], ["a"]),
    "of our own making": (["anything", ""], []),
}


@pytest.mark.parametrize("name", FORMATS)
def test_formats(name: str, grammar: Any) -> None:
    good, bad = FORMATS[name]
    takes = grammar({"type": "string", "format": name})
    assert all(map(takes, good))
    assert not any(map(takes, bad))
