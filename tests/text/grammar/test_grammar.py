"""Response formats: what their grammars accept, what random choices come to, what is refused."""

from __future__ import annotations

import gc
import json
import random
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import numpy as np
import pytest
import walks

from jaxserve.errors import InvalidRequest
from jaxserve.text import load_tokenizer
from jaxserve.text.formats import FORMATS, BoundFormat, Tool, bind
from jaxserve.text.grammar.memory import NotReady
from jaxserve.text.grammar.request_grammar import CompiledGrammar, GrammarCompiler, MaskFiller
from jaxserve.text.grammar.wish import OutputWish
from jaxserve.text.reading.parser import parse_message

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "tokenizers"
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 1, "maxItems": 3},
        "spouse": {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}
RECURSIVE = {
    "$defs": {
        "node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}, "additionalProperties": False}
    },
    "$ref": "#/$defs/node",
}
UNION = {
    "oneOf": [
        {"type": "object", "properties": {"kind": {"const": "a"}, "x": {"type": "number"}}, "required": ["kind", "x"]},
        {"type": "object", "properties": {"kind": {"const": "b"}}, "required": ["kind"]},
    ]
}
OWN_CASES: list[tuple[Any, list[Any], list[Any]]] = [
    (
        PERSON,
        [{"name": "Ada", "age": 36, "tags": ["a"]}],
        [{"name": "", "age": 36, "tags": ["a"]}, {"name": "Ada"}, []],
    ),
    (RECURSIVE, [{}, {"next": {"next": {}}}], [{"next": 1}, {"other": {}}]),
    (UNION, [{"kind": "b"}, {"kind": "a", "x": 1.5}], [{"kind": "c"}, {"kind": "a"}]),
    ({"type": "string", "pattern": "^a+$"}, ["a", "aaa"], ["", "ab", 1]),
    ({"enum": ["x", 1, None, "<tool_call>"]}, ["x", 1, None, "<tool_call>"], ["y", 2, True]),
    (
        {"type": "array", "items": [{"type": "integer"}, {"type": "string"}], "minItems": 2.0},
        [[1, "a"]],
        [["a", 1], [1]],
    ),
    (True, [1, "x", {}], []),
]
GBNF = {
    "list": ('root ::= item+\nitem ::= "- " [a-z ]+ "\\n"', ["- a b\n- c\n"], ["- a", "a\n"]),
    "recursive": (
        'root ::= expr\nexpr ::= term (("+" | "*") term)*\nterm ::= [0-9]+ | "(" expr ")"',
        ["1", "12+(3*4)", "((1))"],
        ["1+", "(1", "a"],
    ),
    "keyword or name": ('root ::= ("int" | [a-z]+) ";"', ["int;", "interval;", "in;"], ["int", ";"]),
    "overlap": ('root ::= "int " [a-z]+ ";" | [a-z]+ ";"', ["int x;", "integer;", "int;"], ["int ;", "x y;"]),
    "ending of what is repeated": ('root ::= [a-z]* "end"', ["end", "abcend", "endend"], ["en", "endx"]),
    "left recursion": ('root ::= root "a" | "b"', ["b", "baa"], ["a", "ab"]),
    "counts": ('root ::= [0-9]{2,4} "-"{2}', ["12--", "1234--"], ["1--", "12345--", "12-"]),
    "comments, escapes": ('# a rule\nroot ::= "\\"" [^"\\\\\\n]* "\\"" # end\n', ['"a b"', '""'], ['"', '"a\n"']),
    "unicode": ('root ::= [ぁ-ゟ]+ "é" [^x]', ["かなéy"], ["éy", "かなéx"]),
    "quoted, and what looks like it": (
        'root ::= "(" (root | text | word)* ")"\ntext ::= "\'" ([^\'#] | "#" .)* "\'"\nword ::= [a-z]+ "!"',
        ["()", "('a b')", "('it#'s' 'x'(ok!))".replace(" ", ""), "('(')"],
        ["('a)", "(a)", "('a#')"],
    ),
    "no unique beginning": (
        'root ::= "[" root "]" | text | "<" [a-z]+ ">"\ntext ::= "<" [^>]* ">" "x"',
        ["<abc>x", "<abc>", "[<A>x]"],
        ["<A>", "[<a>x"],
    ),
    "a beginning that others have": (
        'root ::= "[" root "]" | "<" [^>]* ">" | "<" "<" [a-z] "!"',
        ["<a>", "<<a!", "[<<a>]"],
        ["<a", "<<a"],
    ),
    "nested": ('root ::= "[" (root ("," root)*)? "]"', ["[]", "[[],[[]]]"], ["[", "[,]"]),
}
PUBLISHED_GBNF = {
    "arithmetic": ["a=1\n", "x *y= (1 +y) \nb = 2 \n"],
    "c": ["int main(){return 1;}", "float f(int x){int y = 3;y = y+1;if(y<3){return y;}}"],
    "chess": ["1. e4 e5\n2. Nf3 Nc6\n3. O-O Bb4+\n"],
    "english": ["The quick brown fox, and so on."],
    "japanese": ["これはテストです。"],
    "json": ['{"a": [1, 2.5e3, "x\\n", {"b": null}], "c": true}'],
    "json_arr": ['[\n{"a": 1},\n2]'],
    "list": ["- one\n- two, three\n"],
}


@pytest.fixture(scope="module")
def compiler(bound: Any) -> Any:
    return compiler_of(bound("generic", tokens=False))


def compiler_of(bound: BoundFormat) -> Any:
    return GrammarCompiler(bound, vocab_size=bound.tokenizer.vocab_size)


def schema_format(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": schema}


def compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def accepts(grammar: CompiledGrammar | None, text: str) -> bool:
    assert grammar is not None
    matcher = grammar.matcher()
    return all(matcher.consume(byte) for byte in text.encode()) and matcher.is_accepting()


# -- JSON -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", OWN_CASES, ids=lambda case: json.dumps(case[0])[:40])
def test_schema_accepts_what_is_valid_only(case: tuple[Any, list[Any], list[Any]], compiler: Any) -> None:
    schema, valid, invalid = case
    grammar = compiler.compile(OutputWish(schema_format(schema)))
    for value in valid:
        assert accepts(grammar, compact(value)), value
    for value in invalid:
        assert not accepts(grammar, compact(value)), value


@pytest.mark.parametrize("fixture", ["byte_level", "tiktoken", "sentencepiece"])
def test_random_choices_are_valid_with_every_kind_of_tokenizer(fixture: str) -> None:
    tokenizer = load_tokenizer(FIXTURES / fixture)
    stops = tokenizer.eos_ids or (0,)
    bound = bind(FORMATS["generic"], tokenizer, None)
    grammars: Any = GrammarCompiler(bound, vocab_size=tokenizer.vocab_size + 37)
    finished = 0
    for seed in range(12):
        schema = (PERSON, RECURSIVE, UNION)[seed % 3]
        grammar = grammars.compile(OutputWish(schema_format(schema)))
        tokens, end = walks.walk(
            grammar, tokenizer, random.Random(seed), stops=stops, vocab_size=tokenizer.vocab_size + 37
        )
        if end == "stop":
            finished += 1
            text = b"".join(map(tokenizer.token_bytes, tokens)).decode()
            jsonschema.validate(json.loads(text), schema)
    assert finished > 6


def test_spellings_of_a_response_format(compiler: Any) -> None:
    schema = {"type": "integer"}
    for given in (
        schema_format(schema),
        schema_format(json.dumps(schema)),
        schema_format({"name": "x", "strict": True, "schema": schema}),
        {"type": "json_schema", "schema": schema},
    ):
        grammar = compiler.compile(OutputWish(given))
        assert accepts(grammar, "12")
        assert not accepts(grammar, '"a"')


def test_json_object_is_an_object(compiler: Any) -> None:
    anything = compiler.compile(OutputWish({"type": "json_object"}))
    assert accepts(anything, '{"a":[1,{"b":null}]}')
    assert not accepts(anything, "[1]")
    limited = compiler.compile(
        OutputWish({"type": "json_object", "schema": {"properties": {"a": {"type": "integer"}}}})
    )
    assert accepts(limited, '{"a":1}')
    assert not accepts(limited, '{"a":"x"}')
    assert not accepts(limited, "1")


def test_text_is_free(compiler: Any) -> None:
    assert compiler.compile(OutputWish({"type": "text"})) is None
    assert compiler.compile(OutputWish()) is None


def test_blanks_are_bounded(compiler: Any) -> None:
    """A model can't write white space for ever."""
    assert not accepts(compiler.compile(OutputWish({"type": "json_object"})), "{" + " " * 200 + "}")


def test_published_schema_cases(shared_dir: Path, compiler: Any) -> None:
    lines = (shared_dir / "real/schemas/schema_cases.jsonl").read_text("utf-8").splitlines()
    compiled = refused = walked = spellings = 0
    for number, line in enumerate(lines):
        case = json.loads(line)
        try:
            grammar = compiler.compile(OutputWish(schema_format(case["schema"])))
        except InvalidRequest as error:
            refused += error.field.startswith("response_format") and len(error.message) > 40
            continue
        compiled += 1
        accepted = [accepts(grammar, compact(value)) for value in case["valid"]]
        # A grammar writes a value in one spelling: 1.0 for 1, another order of keys or one more key is not that one.
        spellings += accepted.count(False)
        for value in case["invalid"]:
            assert not accepts(grammar, compact(value)), (case["id"], value)
        walked += walk_is_valid(grammar, case["schema"], random.Random(number))
    print(f"{compiled} schemas compiled, {refused} refused by name, {walked} random walks ended and were valid")
    assert spellings <= 17
    assert compiled > 150
    assert compiled + refused == len(lines)
    assert walked > 60


def walk_is_valid(grammar: Any, schema: Any, rng: random.Random) -> bool:
    tokenizer = grammar.rules.token_bytes
    tokens, end = walks.walk(grammar, _Bytes(tokenizer), rng, vocab_size=grammar.rules.vocab_size, limit=150)
    if end == "stop":
        value = json.loads(b"".join(map(tokenizer, tokens)).decode())
        jsonschema.Draft202012Validator(schema).validate(value)
    return bool(end == "stop")


class _Bytes:
    """As much of a tokenizer as a walk needs."""

    def __init__(self, token_bytes: Any) -> None:
        self.token_bytes = token_bytes


# -- GBNF -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GBNF)
def test_gbnf(name: str, compiler: Any) -> None:
    text, good, bad = GBNF[name]
    grammar = compiler.compile(OutputWish({"type": "grammar", "grammar": text}))
    for sample in good:
        assert accepts(grammar, sample), sample
    for sample in bad:
        assert not accepts(grammar, sample), sample


@pytest.mark.parametrize("name", PUBLISHED_GBNF)
def test_published_gbnf(name: str, shared_dir: Path, compiler: Any) -> None:
    text = (shared_dir / "real/schemas/gbnf" / f"{name}.gbnf").read_text("utf-8")
    grammar = compiler.compile(OutputWish({"type": "grammar", "grammar": text}))
    for sample in PUBLISHED_GBNF[name]:
        assert accepts(grammar, sample), sample
    assert not accepts(grammar, "\x00")
    for seed in range(3):
        walks.walk(grammar, compiler._bound.tokenizer, random.Random(seed), limit=100)


# -- bad input --------------------------------------------------------------------------------------------------------


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


REFUSED: list[tuple[Any, str, str]] = [
    (schema_format({"type": "array", "uniqueItems": True}), "response_format", "'uniqueItems' at the root"),
    (
        schema_format({"properties": {"a": {"type": "integer", "not": {"multipleOf": 3}}}}),
        "response_format",
        "'not' at /properties/a",
    ),
    (schema_format({"contains": {"const": 1}, "minContains": 3, "maxContains": 8}), "response_format", "'contains'"),
    (schema_format({"type": "string", "pattern": "(?=a)b"}), "response_format", "look-around"),
    (schema_format({"$ref": "#/$defs/no"}), "response_format", "/\\$defs/no"),
    (schema_format({"$ref": "https://example.com/x"}), "response_format", "must point into"),
    (schema_format({"type": "thing"}), "response_format", "thing"),
    (schema_format({"minimum": 3, "maximum": 1, "type": "integer"}), "response_format", "minimum"),
    (schema_format({"properties": [1]}), "response_format", "'properties' has a value of the wrong kind"),
    (schema_format(False), "response_format", "no value satisfies it"),
    (schema_format(5), "response_format.json_schema", "must be a JSON Schema"),
    (schema_format("{"), "response_format.json_schema", "is not JSON"),
    (schema_format(nested(100)), "response_format", "deeper than"),
    (schema_format({"properties": {f"p{i}": {} for i in range(5000)}}), "response_format", "more than 2000"),
    (schema_format({"enum": list(range(30_000))}), "response_format", "more than 20000"),
    ({"type": "json_schema"}, "response_format.json_schema", "needs a JSON Schema"),
    ({"type": "grammar", "grammar": ""}, "response_format.grammar", "needs"),
    ({"type": "grammar", "grammar": 'x ::= "a"'}, "response_format.grammar", "root"),
    ({"type": "grammar", "grammar": "root ::= other"}, "response_format.grammar", "other"),
    ({"type": "grammar", "grammar": 'root ::= "a'}, "response_format.grammar", "end of input"),
    ({"type": "grammar", "grammar": "root ::= " + "(" * 9000}, "response_format.grammar", "deep"),
    ({"type": "grammar", "grammar": 'root ::= "a"\n}\nstart: /.*/'}, "response_format.grammar", "Expected"),
]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: json.dumps(case[0])[:50])
def test_refusals_name_field_and_keyword(case: tuple[Any, str, str], compiler: Any) -> None:
    given, field, message = case
    started = time.monotonic()
    with pytest.raises(InvalidRequest, match=message) as caught:
        compiler.compile(OutputWish(given))
    assert caught.value.field == field
    assert time.monotonic() - started < 2
    assert len(caught.value.message) < 600


EXPLOSIVE: dict[str, Any] = {
    "shared references": schema_format(
        {
            "$defs": {
                **{f"a{i}": {"properties": {k: {"$ref": f"#/$defs/a{i + 1}"} for k in "xy"}} for i in range(40)},
                "a40": {"type": "string"},
            },
            "$ref": "#/$defs/a0",
        }
    ),
    "self reference": schema_format({"$ref": "#"}),
    "backtracking": schema_format({"type": "string", "pattern": "^(a+)+$"}),
    "nested counts": schema_format({"type": "string", "pattern": "^((a|ab|abc){1,500}){1,500}$"}),
    "exponential automaton": schema_format({"type": "string", "pattern": "(a|b)*a(a|b){400}c"}),
    "long": schema_format({"type": "string", "maxLength": 1_000_000}),
    "many items": schema_format({"type": "array", "items": {"type": "integer"}, "minItems": 100_000}),
    "many options": schema_format({"properties": {f"p{i}": {"type": "string"} for i in range(1500)}}),
    "product of options": schema_format(
        {"allOf": [{"anyOf": [{"properties": {f"p{i}{j}": {"type": "integer"}}} for j in range(4)]} for i in range(12)]}
    ),
    "grammar that doubles": {
        "type": "grammar",
        "grammar": "root ::= a0\n" + "".join(f"a{i} ::= a{i + 1} a{i + 1}\n" for i in range(40)) + 'a40 ::= "x"',
    },
    "grammar that doubles at every option": {
        "type": "grammar",
        "grammar": "root ::= a0\n"
        + "".join(f"a{i} ::= a{i + 1} a{i + 1} | a{i + 1}\n" for i in range(40))
        + 'a40 ::= "\'" ([x] | a0)* "\'"',
    },
    "a chain of rules": {
        "type": "grammar",
        "grammar": "root ::= a0\n" + "".join(f"a{i} ::= a{i + 1}\n" for i in range(900)) + 'a900 ::= "x" root?',
    },
    "ambiguous": {"type": "grammar", "grammar": 'root ::= ("a"? "a"?){60} "b"'},
    "counts of counts": {"type": "grammar", "grammar": 'root ::= (("a"{1000}){1000}){1000}'},
    "nothing but itself": {"type": "grammar", "grammar": "root ::= root"},
}


@pytest.mark.parametrize("name", EXPLOSIVE)
def test_explosions_are_bounded(name: str, compiler: Any) -> None:
    """Refused, or worked off in bounded steps: a mask that passes its limits is empty and says why."""
    started = time.monotonic()
    try:
        grammar = compiler.compile(OutputWish(EXPLOSIVE[name]))
    except InvalidRequest:
        assert time.monotonic() - started < 3
        return
    assert time.monotonic() - started < 3
    assert grammar is not None
    matcher, rng = grammar.matcher(), random.Random(0)
    for _ in range(30):
        started = time.monotonic()
        choices = walks.allowed(matcher, grammar.rules.vocab_size)
        assert time.monotonic() - started < 1
        if not choices:
            assert matcher.error or matcher.is_stopped()
            break
        matcher.consume(rng.choice(choices))


def test_too_many_tools_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="512 at most") as caught:
        Tool.parse([{"type": "function", "function": {"name": f"f{i}"}} for i in range(10_000)])
    assert caught.value.field == "tools"


@pytest.mark.parametrize("parameters", [{"type": "array"}, [1], {"type": ["object", "null"]}])
def test_parameters_must_be_an_object_schema(parameters: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Tool.parse([{"type": "function", "function": {"name": "f", "parameters": parameters}}])
    assert caught.value.field == "tools.0.function.parameters"


# -- matchers ---------------------------------------------------------------------------------------------------------


def mask(matcher: Any, vocab_size: int) -> list[int]:
    return list(walks.allowed(matcher, vocab_size))


def test_reasoning_is_free_and_the_answer_is_not(bound: Any) -> None:
    the = bound("qwen3")
    size, opening, closing = the.tokenizer.vocab_size, the.open_reasoning_id, the.marker_ids["</think>"]
    grammar = compiler_of(the).compile(OutputWish(schema_format({"type": "integer"}), reasoning=True))
    matcher = grammar.matcher()
    assert matcher.constrains
    first = mask(matcher, size)
    assert opening in first
    assert ord("1") in first
    assert ord("x") not in first
    assert matcher.consume(opening)
    for token in (ord("x"), closing):
        assert not matcher.constrains
        assert matcher.consume(token)
    assert matcher.constrains
    assert ord("x") not in mask(matcher, size)
    for token in b"\n\n12":
        assert matcher.consume(token)
    assert matcher.is_accepting()


def test_line_breaks_may_precede_the_reasoning(bound: Any) -> None:
    the = bound("glm45")
    size = the.tokenizer.vocab_size
    matcher = compiler_of(the).compile(OutputWish(schema_format({"type": "integer"}), reasoning=True)).matcher()
    assert {ord("\n"), the.open_reasoning_id, ord("1")} <= set(mask(matcher, size))
    assert matcher.consume(ord("\n"))
    # In front of the answer they would be part of it.
    assert set(mask(matcher, size)) == {ord("\n"), the.open_reasoning_id}
    assert not matcher.is_accepting()
    assert matcher.consume(ord("\n"))
    assert mask(matcher, size) == [the.open_reasoning_id]
    assert matcher.rollback(2)
    assert matcher.consume(ord("\n"))
    assert matcher.consume(the.open_reasoning_id)
    assert not matcher.constrains
    assert matcher.consume(the.marker_ids["</think>"])
    assert the.open_reasoning_id not in mask(matcher, size)


def test_reasoning_opened_by_the_prompt(bound: Any) -> None:
    the = bound("minimax_m2", tokens=False)
    grammar = compiler_of(the).compile(OutputWish(schema_format({"type": "integer"})), reasoning_open=True)
    matcher = grammar.matcher()
    for token in b"Hm </thin </think>":
        assert not matcher.constrains
        assert matcher.consume(token)
    assert matcher.constrains
    assert all(matcher.consume(token) for token in b"7")


def test_answer_or_call(bound: Any, weather_tools: Any) -> None:
    the = bound("hermes")
    grammar = compiler_of(the).compile(OutputWish(schema_format({"type": "integer"}), tools=Tool.parse(weather_tools)))
    first = mask(grammar.matcher(), the.tokenizer.vocab_size)
    assert the.marker_ids["<tool_call>"] in first
    assert ord("5") in first
    assert ord("a") not in first


def test_harmony_answers_in_its_final_channel(bound: Any) -> None:
    the = bound("gpt_oss")
    grammar = compiler_of(the).compile(OutputWish(schema_format(PERSON), reasoning=True))
    stops = sorted({*the.stop_ids, 256})
    ended = 0
    for seed in range(6):
        tokens, end = walks.walk(grammar, the.tokenizer, random.Random(seed), stops=stops)
        if end == "stop":
            ended += 1
            text = the.tokenizer.decode(tokens, skip_special_tokens=False)
            message = parse_message(the, text, tools=None, reasoning_open=False)
            jsonschema.validate(json.loads(message.content), PERSON)
    assert ended


def test_completions_have_no_channels(bound: Any) -> None:
    grammar = compiler_of(bound("gpt_oss")).compile(OutputWish(schema_format({"type": "integer"}), chat=False))
    assert accepts(grammar, "12")


def test_rollback(bound: Any, weather_tools: Any) -> None:
    the = bound("qwen3")
    size = the.tokenizer.vocab_size
    grammar = compiler_of(the).compile(OutputWish(tools=Tool.parse(weather_tools), reasoning=True))
    text = '<think>a</think>Hm.<tool_call>\n{"name": "ping", "arguments": {}}\n</tool_call>'
    tokens = the.tokenizer.encode(text, add_special_tokens=False)
    matcher = grammar.matcher()
    states = []
    for token in tokens:
        states.append((matcher.constrains, mask(matcher, size)))
        assert matcher.consume(token)
    for count in (1, 3, 20, 40):
        if count > len(tokens):
            continue
        assert matcher.rollback(count)
        here = len(tokens) - count
        assert (matcher.constrains, mask(matcher, size)) == states[here]
        assert all(matcher.consume(token) for token in tokens[here:])
    assert not matcher.rollback(10_000)


def test_a_forbidden_token_empties_the_mask_until_it_is_taken_back(compiler: Any) -> None:
    matcher = compiler.compile(OutputWish(schema_format({"type": "integer"}))).matcher()
    assert matcher.consume(ord("1"))
    before = mask(matcher, 257)
    assert not matcher.consume(ord("x"))
    assert mask(matcher, 257) == []
    assert matcher.error
    matcher2 = compiler.compile(OutputWish(schema_format({"type": "integer"}))).matcher()
    assert matcher2.consume(ord("1"))
    assert mask(matcher2, 257) == before


def test_matchers_of_one_grammar_are_independent(compiler: Any) -> None:
    grammar = compiler.compile(OutputWish(schema_format({"enum": ["ab", "cd"]})))
    first, second = grammar.matcher(), grammar.matcher()
    assert all(first.consume(token) for token in b'"a')
    assert all(second.consume(token) for token in b'"c')
    assert mask(first, 257) == [ord("b")]
    assert mask(second, 257) == [ord("d")]


def test_batches_are_filled_as_single_rows_are(bound: Any, weather_tools: Any) -> None:
    the = bound("qwen3")
    size = the.tokenizer.vocab_size
    grammars = compiler_of(the)
    matchers = [
        grammars.compile(OutputWish(schema_format(PERSON))).matcher(),
        grammars.compile(OutputWish(schema_format({"type": "integer"}), reasoning=True)).matcher(),
        grammars.compile(OutputWish(tools=Tool.parse(weather_tools))).matcher(),
        grammars.compile(OutputWish(schema_format({"const": 1}))).matcher(),
    ]
    assert matchers[3].consume(ord("1"))
    rows = [4, 0, 2, 5]
    bitmask = np.full((6, (size + 31) // 32), 7, np.int32)
    MaskFiller(2).fill(zip(rows, matchers, strict=True), bitmask)
    for row, matcher in zip(rows, matchers, strict=True):
        alone = np.zeros_like(bitmask[:1])
        MaskFiller(1).fill([(0, matcher)], alone)
        assert np.array_equal(bitmask[row], alone[0])
    assert (bitmask[[1, 3]] == 7).all()


def test_grammars_and_refusals_are_remembered(bound: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    grammars: Any = GrammarCompiler(bound("generic"), vocab_size=300)
    with pytest.raises(NotReady):
        grammars.compile(OutputWish(schema_format(PERSON)), wait=False)
    first = grammars.compile(OutputWish(schema_format(PERSON)))
    refused = OutputWish(schema_format({"type": "thing"}))
    with pytest.raises(InvalidRequest) as told:
        grammars.compile(refused)
    monkeypatch.setattr(grammars.trials, "write", None)  # nothing is worked out again
    assert grammars.compile(OutputWish(schema_format(PERSON)), wait=False).rules.prototype is first.rules.prototype
    with pytest.raises(InvalidRequest) as again:
        grammars.compile(refused, wait=False)
    assert (again.value.field, again.value.message) == (told.value.field, told.value.message)


def test_ids_beyond_the_tokenizer_are_never_allowed(bound: Any) -> None:
    the = bound("generic")
    grammars: Any = GrammarCompiler(the, vocab_size=the.tokenizer.vocab_size + 100)
    grammar = grammars.compile(OutputWish({"type": "json_object"}))
    choices: Mapping[int, None] = dict.fromkeys(mask(grammar.matcher(), the.tokenizer.vocab_size + 100))
    assert max(choices) < the.tokenizer.vocab_size


def test_a_compiler_that_nobody_uses_ends_with_its_workers(bound: Any) -> None:
    grammars = GrammarCompiler(bound("generic"), vocab_size=300)
    grammars.compile(OutputWish({"type": "json_object"}))
    gone = weakref.ref(grammars.trials)
    del grammars
    gc.collect()
    assert gone() is None, "the native tokenizer must not hold its owner"
