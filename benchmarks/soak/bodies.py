"""Requests of mixed kinds, each with one right answer: what it says is drawn from its number alone."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
BEGINNINGS = (
    "",
    "Once upon a time there was a little cat who lived near the old tree. ",
    "One day the sun was hot, and Tom and Lily went to the river to play with a red ball. ",
)
"""What prompts share: pages of the prefix cache come of it."""
WORDS = ["once", "upon", "a", "time", "little", "cat", "red", "ball", "lived", "near", "tree", "said", "happy", "you"]
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "kind": {"enum": ["cat", "dog"]}},
    "required": ["name", "kind"],
    "additionalProperties": False,
}
SAMPLING: tuple[dict[str, Any], ...] = (
    {"temperature": 0},
    {"temperature": 0, "frequency_penalty": 0.6, "presence_penalty": 0.2},
    {"temperature": 1},
    {"temperature": 0.8, "top_p": 0.9, "top_k": 40},
    {"temperature": 1.4, "min_p": 0.05},
    {"temperature": 1, "repetition_penalty": 1.2, "logit_bias": {"300": 2.0}},
    {"temperature": 1, "mirostat_target": 4.0},
)
OUTPUTS: tuple[dict[str, Any], ...] = (
    {},
    {},
    {"logprobs": True, "top_logprobs": 3},
    {"n": 2},
    {"n": 3, "logprobs": True},
    {"stop": ["the", "."]},
    {"ignore_eos": True},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}},
    {"response_format": {"type": "grammar", "grammar": 'root ::= ("yes" | "no") "!"{1,9}'}},
    {"prediction": {"type": "content", "content": "Once upon a time there was a little cat."}},
)


@dataclass(frozen=True)
class Asked:
    """One request."""

    path: str
    body: dict[str, Any]


def asked(number: int) -> Asked:
    """Request `number`."""
    rng = random.Random(number)
    text = rng.choice(BEGINNINGS) + " ".join(rng.choices(WORDS, k=rng.randint(1, 12)))
    chat = rng.random() < 0.5
    prompt = {"messages": [{"role": "user", "content": text}]} if chat else {"prompt": text}
    fields = {"model": "story", "seed": number, "max_tokens": rng.choice((1, 16, 64, 120)), "return_token_ids": True}
    body = prompt | fields | rng.choice(SAMPLING) | rng.choice(OUTPUTS)
    return Asked(CHAT if chat else COMPLETIONS, body)
