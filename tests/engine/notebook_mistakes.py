"""What people type into a notebook by mistake: each a call of a model."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np

from jaxserve import SamplingParams

PROMPT = "Once upon a time"
GREEDY = SamplingParams(temperature=0, max_tokens=12)
HUGE = 10**30
SURROGATE = "half a \ud83d pair"
CYCLE: list[Any] = []
CYCLE.append(CYCLE)
MISTAKES = {
    "huge token": lambda llm: llm.generate([HUGE]),
    "negative token": lambda llm: llm.generate([-1, 5]),
    "token behind the vocabulary": lambda llm: llm.generate([llm.tokenizer.vocab_size + 10_000]),
    "floats in an array": lambda llm: llm.generate(np.array([1.0, 2.0])),
    "three dimensions": lambda llm: llm.generate(np.zeros((2, 2, 2), int)),
    "no dimension": lambda llm: llm.generate(np.array(5)),
    "a list in itself": lambda llm: llm.generate(CYCLE),
    "a set": lambda llm: llm.generate({1, 2}),
    "a generator": lambda llm: llm.generate(text for text in [PROMPT]),
    "half a character": lambda llm: llm.generate(SURROGATE, GREEDY),
    "half a character to count": lambda llm: llm.tokenize(SURROGATE),
    "half a character to score": lambda llm: llm.score(SURROGATE),
    "a conversation in itself": lambda llm: llm.chat([{"role": "user", "content": CYCLE}]),
    "bytes in a conversation": lambda llm: llm.chat([{"role": "user", "content": b"x"}]),
    "no conversation": lambda llm: llm.chat(None),
    "an odd role": lambda llm: llm.chat([{"role": 3, "content": "x"}]),
    "knobs that are none": lambda llm: llm.chat("x", temperature="hot"),
    "a token to stop at that there is not": lambda llm: llm.generate(PROMPT, SamplingParams(stop_token_ids=[HUGE])),
    "a bias on a token that there is not": lambda llm: llm.generate(PROMPT, SamplingParams(logit_bias={HUGE: 1.0})),
    "params for no prompt": lambda llm: llm.generate([PROMPT], []),
    "params in a generator": lambda llm: llm.generate([PROMPT], (each for each in [GREEDY])),
    "logits of several": lambda llm: llm.logits([PROMPT, PROMPT]),
    "logits of nothing": lambda llm: llm.logits([]),
    "logits of a number": lambda llm: llm.hidden(3.5),
    "tokens of a number": lambda llm: llm.tokenize(5),
    "an unknown keyword": lambda llm: asyncio.run(llm.agenerate(PROMPT, nonsense=1)),
}
"""Each is refused."""
ODDITIES = {
    "huge max_tokens": lambda llm: llm.generate(PROMPT, GREEDY, max_tokens=HUGE),
    "half a character to stop at": lambda llm: llm.generate(PROMPT, GREEDY, stop=SURROGATE),
}
"""Each has a plain meaning."""
