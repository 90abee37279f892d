"""Sampling in float64 NumPy, written from the definitions in the papers and documents cited, with full sorts.

Nothing here is shared with the package: no integer masses, no lists, no bisection.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

Float64 = np.ndarray[Any, np.dtype[np.float64]]


@dataclass
class Row:
    """One row's knobs and history, neutral by default."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    mirostat_target: float | None = None
    mirostat_lr: float = 0.1
    logit_bias: tuple[tuple[int, float], ...] = ()
    seed: int = 0
    prompt: list[int] = field(default_factory=list)
    output: list[int] = field(default_factory=list)
    allowed: np.ndarray[Any, np.dtype[np.bool_]] | None = None
    mu: float | None = None
    choice: int = 0
    position: int = 0


def log_softmax(x: Float64) -> Float64:
    """log p of logits; -inf stays -inf."""
    top = x.max()
    return x - top - np.log(np.exp(x - top).sum())


def edit(logits: np.ndarray[Any, Any], row: Row) -> Float64:
    """logit_bias, repetition (Keskar et al. 2019), frequency and presence penalty (OpenAI), grammar."""
    x = logits.astype(np.float64)
    for token, bias in row.logit_bias:
        x[token] = -np.inf if bias == -100 else x[token] + bias
    seen = np.zeros(len(x), bool)
    seen[row.prompt + row.output] = True
    r = max(row.repetition_penalty, 0.01)
    x = np.where(seen, np.where(x > 0, x / r, x * r), x)
    count = np.bincount(np.asarray(row.output, np.int64), minlength=len(x))
    x = x - count * row.frequency_penalty - (count > 0) * row.presence_penalty
    if row.allowed is not None:
        x = np.where(row.allowed, x, -np.inf)
    return x


def keep_top_k(p: Float64, x: Float64, k: int) -> np.ndarray[Any, Any]:
    """The k likeliest tokens, lower id first among equals (Fan et al. 2018)."""
    order = np.lexsort((np.arange(len(x)), -x))
    kept = np.zeros(len(x), bool)
    kept[order[:k]] = True
    return kept


def keep_mass(p: Float64, order: np.ndarray[Any, Any], threshold: float) -> np.ndarray[Any, Any]:
    """The shortest prefix of `order` whose mass reaches the threshold; never empty."""
    order = order[p[order] > 0]  # an earlier knob may have removed the first
    before = np.concatenate([[0.0], np.cumsum(p[order])[:-1]])
    kept = np.zeros(len(p), bool)
    kept[order[before < threshold]] = True
    kept[order[0]] = True
    return kept


def keep_typical(p: Float64, threshold: float, nudge: float) -> np.ndarray[Any, Any]:
    """Locally typical sampling (Meister et al. 2022): nearest to the entropy first."""
    with np.errstate(divide="ignore", invalid="ignore"):
        surprise = -np.log(p)
        entropy = np.nansum(np.where(p > 0, p * surprise, 0.0)) + nudge
        distance = np.where(p > 0, np.abs(surprise - entropy), np.inf)
    # Tokens of equal logits have equal distances; rounding of the logarithm must not order them.
    order = np.lexsort((np.arange(len(p)), np.round(distance, 12)))
    return keep_mass(p, order, threshold)


def renormalize(p: Float64, kept: np.ndarray[Any, Any]) -> Float64:
    """p restricted to the kept tokens."""
    q = np.where(kept, p, 0.0)
    return q / q.sum()


def distribution(
    logits: np.ndarray[Any, Any], row: Row, nudge: float = 0.0, entropy_nudge: float = 0.0
) -> tuple[Float64, Float64]:
    """What is drawn from, and what mirostat measures surprise under (before truncation).

    The nudges move every threshold, and the entropy, a little, to tell a wrong answer from a rounding at a boundary.
    """
    x = edit(logits, row)
    if row.temperature == 0:
        one = (np.arange(len(x)) == np.argmax(x)).astype(np.float64)
        return one, one
    p = np.exp(log_softmax(x / row.temperature))
    whole = p
    likeliest_first = np.lexsort((np.arange(len(x)), -x))
    if row.mirostat_target is not None:
        mu = 2 * np.log2(row.mirostat_target) if row.mu is None else row.mu
        with np.errstate(divide="ignore"):
            kept = (-np.log2(p) <= mu + nudge) | (p == p.max())
        return renormalize(p, kept), whole
    if row.top_k > 0:
        p = renormalize(p, keep_top_k(p, x, row.top_k))
    if row.typical_p < 1:
        p = renormalize(p, keep_typical(p, row.typical_p + nudge, entropy_nudge))
    if row.top_p < 1:
        p = renormalize(p, keep_mass(p, likeliest_first, row.top_p + nudge))
    if row.min_p > 0:
        p = renormalize(p, p >= (row.min_p + nudge) * p.max() - 1e-15)
    return p, whole


def next_mu(row: Row, whole: Float64, token: int) -> float:
    """mirostat 2.0 (Basu et al. 2020): mu - lr * (surprise of the token - log2(target))."""
    assert row.mirostat_target is not None
    tau = np.log2(row.mirostat_target)
    mu = 2 * tau if row.mu is None else row.mu
    return float(mu - row.mirostat_lr * (-np.log2(whole[token]) - tau))


def threefry2x32(key: tuple[int, int], counter: tuple[int, int]) -> tuple[int, int]:
    """Threefry-2x32, 20 rounds (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3")."""
    word = 0xFFFFFFFF
    schedule = (key[0], key[1], key[0] ^ key[1] ^ 0x1BD11BDA)
    x, y = (counter[0] + schedule[0]) & word, (counter[1] + schedule[1]) & word
    for block in range(5):
        for rotation in ((13, 15, 26, 6), (17, 29, 16, 24))[block % 2]:
            x = (x + y) & word
            y = ((y << rotation) | (y >> (32 - rotation))) & word
            y ^= x
        x = (x + schedule[(block + 1) % 3]) & word
        y = (y + schedule[(block + 2) % 3] + block + 1) & word
    return x, y


def random_word(row: Row) -> int:
    """High word of fold_in(fold_in(key(seed), choice), position); folding encrypts (0, data) with the key."""
    key = ((row.seed >> 32) & 0xFFFFFFFF, row.seed & 0xFFFFFFFF)
    return threefry2x32(threefry2x32(key, (0, row.choice)), (0, row.position))[0]


def drawn_tokens(p: Float64, row: Row, slack: float) -> set[int]:
    """Tokens at u = word / 2^32 of the cumulative distribution in id order, u moved by up to `slack`."""
    u = random_word(row) / 2.0**32
    total = np.cumsum(p)
    last = int(np.flatnonzero(p)[-1])
    return {min(int(np.searchsorted(total, v, side="right")), last) for v in (u - slack, u, u + slack)}
