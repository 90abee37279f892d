"""Random rows: logits with ties, banned tokens and extremes, and random knobs."""

from __future__ import annotations

from typing import Any

import numpy as np
from sampling_oracle import Row

KNOBS = ("temperature", "top_k", "top_p", "min_p", "typical_p", "penalties", "bias", "grammar", "mirostat")


def random_logits(rng: np.random.Generator, vocab: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """One row of float32 logits, of a kind drawn at random."""
    kind = rng.integers(6)
    if kind == 0:
        x = rng.normal(scale=3, size=vocab)
    elif kind == 1:  # many ties
        x = rng.integers(-4, 5, size=vocab) / 2
    elif kind == 2:  # banned tokens
        x = np.where(rng.random(vocab) < 0.7, -np.inf, rng.normal(scale=2, size=vocab))
        x[rng.integers(vocab)] = 1.0
    elif kind == 3:  # peaked
        x = rng.normal(size=vocab)
        x[rng.integers(vocab)] += 12
    elif kind == 4:  # extremes
        x = rng.normal(size=vocab) * 10.0 ** rng.integers(-6, 5)
    else:  # flat, all equal
        x = np.full(vocab, float(rng.normal()))
    return x.astype(np.float32)


def random_row(rng: np.random.Generator, vocab: int, knobs: tuple[str, ...] | None = None) -> Row:
    """Knobs drawn at random; each is off half of the time unless `knobs` names those that are on."""

    def on(name: str) -> bool:
        return bool(rng.random() < 0.5) if knobs is None else name in knobs

    row = Row(seed=int(rng.integers(-(2**63), 2**63)), position=int(rng.integers(5000)), choice=int(rng.integers(128)))
    if on("temperature"):
        row.temperature = float(rng.choice([0.0, 0.05, 0.3, 0.7, 1.3, 2.0], p=[0.1, 0.1, 0.2, 0.2, 0.2, 0.2]))
    if on("top_k"):
        row.top_k = int(rng.choice([1, 2, 5, 20, 40, 64, 65, 100]))
    if on("top_p"):
        row.top_p = float(rng.choice([0.0, 0.1, 0.5, 0.8, 0.9, 0.97, 0.999]))
    if on("min_p"):
        row.min_p = float(rng.choice([0.001, 0.03, 0.1, 0.31, 1.0]))
    if on("typical_p"):
        row.typical_p = float(rng.choice([0.0, 0.2, 0.5, 0.83, 0.95]))
    if on("penalties"):
        row.repetition_penalty = float(rng.choice([0.0, 0.7, 1.0, 1.2, 2.0]))
        row.frequency_penalty = float(rng.choice([-2.0, -0.5, 0.0, 0.1, 2.0]))
        row.presence_penalty = float(rng.choice([-2.0, -0.3, 0.0, 0.4, 2.0]))
        row.prompt = [int(t) for t in rng.integers(vocab, size=rng.integers(1, 20))]
        row.output = [int(t) for t in rng.integers(min(vocab, 50), size=rng.integers(0, 40))]
    if on("bias"):
        ids = rng.permutation(vocab)[: rng.integers(1, 20)]
        values = rng.choice([-100.0, -5.5, -1.0, 0.0, 1.25, 5.0], size=len(ids))
        row.logit_bias = tuple((int(i), float(v)) for i, v in zip(ids, values, strict=True))
    if on("grammar"):
        row.allowed = rng.random(vocab) < 0.6
        row.allowed[rng.integers(vocab)] = True
    if (on("mirostat") and rng.random() < 0.4) or (knobs is not None and "mirostat" in knobs):
        row.mirostat_target = float(rng.choice([1.5, 3.0, 8.0, 20.0]))
        row.mirostat_lr = float(rng.choice([0.0, 0.1, 0.5]))
        row.mu = None if rng.random() < 0.5 else float(rng.uniform(-1, 12))
    return row
