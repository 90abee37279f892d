"""Drafts change when tokens come, never which: requests of all kinds, each with and without a prediction.

The same requests run with no drafts at all; then with predictions that are right, wrong, half right or shifted, among
each other, while pages are so few that sequences lose theirs; and some of them alone. Answers must be equal to the last
bit of their log-probabilities.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from random_model import EOS, RandomModel

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
PREFIXES = ["Go", "Once upon a time there was a little number that nobody had ever seen, and ", "[1, 2, 3, "]
SCHEMAS: list[Any] = [
    {
        "type": "object",
        "properties": {"a_rather_long_name": {"type": "integer"}, "another_of_these_names": {"enum": ["x", "y"]}},
        "required": ["a_rather_long_name", "another_of_these_names"],
        "additionalProperties": False,
    },
    {"type": "array", "items": {"enum": ["thirteen", 1, None, True]}, "minItems": 2, "maxItems": 5},
    {"type": "string", "maxLength": 12},
]
GRAMMARS = ['root ::= ("yes" | "no") "!"{1,3}', 'root ::= pair+\npair ::= [a-z]+ "=" [^;\\x00-\\x1f]* ";\\n"']
TOOL = {
    "type": "function",
    "function": {
        "name": "get_the_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 6}, "forecast_days": {"type": "integer"}},
            "required": ["city", "forecast_days"],
            "additionalProperties": False,
        },
    },
}
KNOBS: list[dict[str, Any]] = [
    {"temperature": 0},
    {"temperature": 1.5},
    {"temperature": 1.2, "top_p": 0.8, "top_k": 20},
    {"temperature": 2, "min_p": 0.05, "typical_p": 0.7},
    {"temperature": 0, "frequency_penalty": 1.2, "presence_penalty": 0.4},
    {"temperature": 1, "repetition_penalty": 1.3, "frequency_penalty": -0.5},
    {"temperature": 1.3, "mirostat_target": 5.0, "mirostat_lr": 0.4},
    {"temperature": 1, "mirostat_target": 3.0, "presence_penalty": 0.6, "logit_bias": {"70": 4.0, "71": 3.0}},
]
OUTPUTS: list[dict[str, Any]] = [
    {},
    {},
    {"stop": ["e", "th"]},
    {"n": 2},
    {"ignore_eos": True},
    *({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": s}}} for s in SCHEMAS),
    *({"response_format": {"type": "grammar", "grammar": grammar}} for grammar in GRAMMARS),
]
CHAT_OUTPUTS: list[dict[str, Any]] = [
    {"tools": [TOOL], "tool_choice": "required"},
    {"tools": [TOOL]},
    {"reasoning_effort": 9},
    {"reasoning_effort": 12, "response_format": OUTPUTS[5]["response_format"]},
]


def request(rng: random.Random, chat: bool) -> dict[str, Any]:
    """One of many kinds; the same words at the beginning make prompts share pages."""
    text = rng.choice(PREFIXES) * rng.choice([1, 1, 3]) + str(rng.randrange(5))
    prompt = {"messages": [{"role": "user", "content": text}]} if chat else {"prompt": text}
    return {
        **prompt,
        **rng.choice(KNOBS),
        **rng.choice([*OUTPUTS, *CHAT_OUTPUTS] if chat else OUTPUTS),
        "seed": rng.randrange(10_000),
        "max_tokens": rng.choice([1, 20, 60, 100]),
        "logprobs": True,
        "top_logprobs": 2,
        "return_token_ids": True,
    }


def prediction(kind: str, tokens: list[int], rng: random.Random) -> list[int]:
    """What a client might expect where the output is `tokens`."""
    if kind == "right":
        return [*tokens, 5, 6]
    if kind == "wrong":
        return [rng.randrange(200) for _ in tokens]
    if kind == "half":
        return [token if place // 8 % 2 else rng.randrange(200) for place, token in enumerate(tokens)]
    return tokens[3:20] + [7] * 3 + tokens[22:]


@contextmanager
def no_drafts(model: RandomModel) -> Iterator[None]:
    speculation = model.started.engine._speculation  # the reference is what the engine does without
    speculation.propose = lambda sequence, most: None
    yield
    del speculation.propose


def ask(model: RandomModel, chat: bool, bodies: list[dict[str, Any]]) -> list[Any]:
    """Their choices, 25 requests at a time under way."""
    answers = []
    for first in range(0, len(bodies), 25):
        answers += model.ask("qwen3", CHAT if chat else COMPLETIONS, bodies[first : first + 25])
    choices = [answer["choices"] for answer in answers]
    for call in (call for each in choices for one in each for call in one.get("message", {}).get("tool_calls") or ()):
        del call["id"]  # another one each time
    return choices


def check(model: RandomModel, count: int, alone: int, seed: int) -> Counter[str]:
    """Compares `count` requests of both endpoints; the first `alone` also run one after the other."""
    rng, seen = random.Random(seed), Counter[str]()
    for chat in (True, False):
        bodies = [request(rng, chat) for _ in range(count // 2)]
        with no_drafts(model):
            before = model.started.engine.stats()
            plain = ask(model, chat, bodies)
            assert model.started.engine.stats().drafted_tokens == before.drafted_tokens
        kinds = [("right", "wrong", "half", "shifted")[place % 4] for place in range(len(bodies))]
        for body, choices, kind in zip(bodies, plain, kinds, strict=True):
            body["speculation"] = prediction(kind, choices[0]["token_ids"], rng)
        assert ask(model, chat, bodies) == plain
        for body, choices in list(zip(bodies, plain, strict=True))[:alone]:
            assert ask(model, chat, [body]) == [choices]
        seen.update(choice["finish_reason"] for choices in plain for choice in choices)
    stats = model.started.engine.stats()
    assert stats.compilations == model.compilations
    return seen + Counter(
        drafted=stats.drafted_tokens,
        accepted=stats.accepted_drafts,
        preempted=stats.preemptions,
        cached=stats.cached_prompt_tokens,
    )


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RandomModel]:
    """Sixteen sequences and pages for a few: they take them from each other."""
    made = RandomModel(
        tmp_path_factory.mktemp("random"), pages=36, dtype=request.param, token_buckets=(16, 64), speculate="ngram"
    )
    made.compilations = made.started.engine.stats().compilations
    yield made
    made.close()


def test_answers_are_the_same_with_predictions(model: RandomModel) -> None:
    seen = check(model, 100, 4, 1)
    assert min(seen[name] for name in ("stop", "length", "tool_calls")) >= 1, seen
    assert min(seen["accepted"], seen["cached"]) >= 100, seen
    assert seen["preempted"], seen
    assert seen["drafted"] > seen["accepted"] + 50, seen


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 12))
def test_a_sweep_of_answers_is_the_same_with_predictions(model: RandomModel, seed: int) -> None:
    check(model, 100, 10, seed)


def test_a_grammar_s_text_needs_no_prediction(model: RandomModel) -> None:
    """Names of properties are drafted by themselves."""
    before = model.started.engine.stats()
    body = {"prompt": "Go", "response_format": OUTPUTS[5]["response_format"], "temperature": 0, "max_tokens": 90}
    body["logit_bias"] = model.bias({EOS: 6.0})
    ask(model, False, [body])
    after = model.started.engine.stats()
    assert after.accepted_drafts > before.accepted_drafts
