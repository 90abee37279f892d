"""Random choices under a grammar's masks."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal

import numpy as np

from jaxserve.text import Tokenizer
from jaxserve.text.grammar.request_grammar import CompiledGrammar, MaskFiller, Matcher

End = Literal["stop", "length"]
ONE_ROW = MaskFiller(1)
CLOSERS = b'"}]>/\n,'


def allowed(matcher: Matcher, vocab_size: int) -> list[int]:
    """Tokens that a mask lets through."""
    bitmask = np.zeros((1, (vocab_size + 31) // 32), np.int32)
    assert not ONE_ROW.fill([(0, matcher)], bitmask)
    return [
        int(i) for i in np.flatnonzero(np.unpackbits(bitmask[0].view(np.uint8), bitorder="little")) if i < vocab_size
    ]


def walk(
    grammar: CompiledGrammar | Matcher,
    tokenizer: Tokenizer,
    rng: random.Random,
    *,
    vocab_size: int | None = None,
    stops: Sequence[int] = (256,),
    limit: int = 400,
    endings: Sequence[str] = (),
) -> tuple[list[int], End]:
    """Tokens drawn uniformly from those allowed, now and then only from those that bring an end nearer.

    `endings` are texts that are written out now and then, as far as they are allowed: chance would never spell them.
    """
    plan: list[int] = []
    matcher = grammar.matcher() if isinstance(grammar, CompiledGrammar) else grammar
    tokens: list[int] = []
    size = vocab_size or tokenizer.vocab_size
    for _ in range(limit):
        choices = allowed(matcher, size)
        assert choices, f"nothing is allowed: {matcher.error}"
        closing = [t for t in choices if t in stops or tokenizer.token_bytes(t).strip(CLOSERS) == b""]
        token = rng.choice(closing if closing and rng.random() < 0.3 else choices)
        if endings and not plan and rng.random() < 0.1:
            plan = tokenizer.encode(rng.choice(endings), add_special_tokens=False)
        if plan:
            planned = plan.pop(0)
            token, plan = (planned, plan) if planned in choices else (token, [])
        assert matcher.consume(token), matcher.error
        if token in stops:
            assert matcher.is_accepting()
            return tokens, "stop"
        tokens.append(token)
        if matcher.is_stopped():
            assert set(allowed(matcher, size)) <= set(stops)
            return tokens, "stop"
    return tokens, "length"
