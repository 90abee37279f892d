"""What is asked of a server and when: requests as lengths and arrival times, prompts as named blocks of tokens."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Block:
    """Part of a prompt. Blocks of one name are one text, so prompts that begin with the same blocks share a prefix."""

    name: str
    tokens: int


@dataclass(frozen=True)
class Ask:
    """One request."""

    prompt: tuple[Block, ...]
    output: int
    """Tokens to generate."""
    at: float | None = None
    """Seconds after the start; None = when a client is free."""

    @property
    def input(self) -> int:
        """Tokens of the prompt, as planned."""
        return sum(block.tokens for block in self.prompt)


@dataclass(frozen=True)
class Synthetic:
    """Requests of like lengths."""

    requests: int = 100
    input: int = 256
    """Tokens of a prompt, beside its prefix."""
    output: int = 64
    spread: float = 0.0
    """0 to 1: lengths are drawn uniformly from this share below to this share above."""
    prefix: int = 0
    """Tokens that prompts begin with in common."""
    prefixes: int = 1
    """How many such beginnings there are; each request takes one at random."""


def synthetic(wanted: Synthetic, seed: int) -> list[Ask]:
    """The requests, the same for the same seed; none has an arrival time."""
    draw = random.Random(f"lengths {seed}")
    return [_synthetic(wanted, index, draw) for index in range(wanted.requests)]


def _synthetic(wanted: Synthetic, index: int, draw: random.Random) -> Ask:
    own = Block(f"own {index}", _near(wanted.input, wanted.spread, draw))
    shared = Block(f"prefix {draw.randrange(wanted.prefixes)}", wanted.prefix)
    return Ask((shared, own) if wanted.prefix else (own,), _near(wanted.output, wanted.spread, draw))


def _near(length: int, spread: float, draw: random.Random) -> int:
    return max(1, round(length * draw.uniform(1 - spread, 1 + spread)))


def poisson(asks: Sequence[Ask], rate: float, seed: int) -> list[Ask]:
    """The same requests, arriving as a Poisson process of `rate` a second."""
    draw, now = random.Random(f"arrivals {seed}"), 0.0
    timed = []
    for ask in asks:
        timed.append(replace(ask, at=now))
        now += draw.expovariate(rate)
    return timed


def scaled(asks: Sequence[Ask], lengths: float, speed: float) -> list[Ask]:
    """The same requests with lengths multiplied by `lengths`, arriving `speed` times as fast."""
    return [_scaled(ask, lengths, speed) for ask in asks]


def _scaled(ask: Ask, lengths: float, speed: float) -> Ask:
    prompt = tuple(replace(block, tokens=max(1, round(block.tokens * lengths))) for block in ask.prompt)
    at = None if ask.at is None else ask.at / speed
    return Ask(prompt, max(1, round(ask.output * lengths)), at)


def capped(asks: Sequence[Ask], input_tokens: int | None, output_tokens: int | None) -> list[Ask]:
    """The same requests, none longer than these; prompts lose their ends."""
    return [
        replace(ask, prompt=tuple(_cut(ask.prompt, input_tokens)), output=min(ask.output, output_tokens or ask.output))
        for ask in asks
    ]


def _cut(prompt: Sequence[Block], most: int | None) -> Iterator[Block]:
    left = sum(block.tokens for block in prompt) if most is None else most
    for block in prompt:
        if left <= 0:
            return
        yield replace(block, tokens=min(block.tokens, left))
        left -= block.tokens
