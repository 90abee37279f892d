"""Every sampling knob once: its neutral value (an exact identity) and its range. No jax here."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields

from jaxserve.errors import InvalidRequest

MAX_LOGIT_BIAS = 1024
"""Entries `logit_bias` may hold; bounds the slot state on the device."""


def _knob(neutral: float, low: float, high: float, *, open_low: bool = False) -> float:
    return field(default=neutral, metadata={"low": low, "high": high, "open_low": open_low})


@dataclass(frozen=True)
class SamplingParams:
    """How the next token is drawn. Defaults are neutral: temperature 1, nothing truncated, nothing penalised.

    Raises:
        InvalidRequest: a value is out of its range; `field` names the knob.
    """

    temperature: float = _knob(1.0, 0.0, 2.0)
    """0 = argmax, exactly."""
    top_k: int = _knob(0, 0, 100)  # type: ignore[assignment]
    """0 = off."""
    top_p: float = _knob(1.0, 0.0, 1.0)
    """1 = off; 0 = the most likely token."""
    min_p: float = _knob(0.0, 0.0, 1.0)
    """Relative to the most likely token; 0 = off."""
    typical_p: float = _knob(1.0, 0.0, 1.0)
    """1 = off."""
    frequency_penalty: float = _knob(0.0, -2.0, 2.0)
    presence_penalty: float = _knob(0.0, -2.0, 2.0)
    repetition_penalty: float = _knob(1.0, 0.0, 2.0)
    """1 = off; 0 acts as 0.01."""
    mirostat_target: float | None = None
    """Target perplexity (> 0); None = off."""
    mirostat_lr: float = _knob(0.1, 0.0, math.inf)
    logit_bias: tuple[tuple[int, float], ...] = ()
    """(token id, bias) pairs, bias in -100..100, ids distinct; -100 bans the token."""
    seed: int = 0
    """Any 64-bit integer (taken modulo 2^64). The caller picks one where the user gave none; every
    choice of a request folds its index in."""

    def __post_init__(self) -> None:
        for knob in fields(self):
            if "low" in knob.metadata:
                _check_range(knob.name, getattr(self, knob.name), knob.metadata["low"], knob.metadata["high"])
        if self.mirostat_target is not None and not (math.isfinite(self.mirostat_target) and self.mirostat_target > 0):
            raise InvalidRequest("mirostat_target", "mirostat_target must be a finite number greater than 0")
        if len(self.logit_bias) > MAX_LOGIT_BIAS:
            raise InvalidRequest("logit_bias", f"logit_bias holds more than {MAX_LOGIT_BIAS} entries")
        if len({token for token, _ in self.logit_bias}) < len(self.logit_bias):
            raise InvalidRequest("logit_bias", "logit_bias names a token twice")
        for token, bias in self.logit_bias:
            if token < 0:
                raise InvalidRequest("logit_bias", f"logit_bias names token {token}; token ids are not negative")
            _check_range("logit_bias", bias, -100.0, 100.0)


def check_token_ids(params: SamplingParams, vocab_size: int) -> None:
    """Refuses a `logit_bias` that names a token the model does not have.

    Raises:
        InvalidRequest: a token id is outside 0 .. vocab_size - 1.
    """
    for token, _ in params.logit_bias:
        if not 0 <= token < vocab_size:
            raise InvalidRequest(
                "logit_bias", f"logit_bias names token {token}, but the vocabulary has {vocab_size} tokens"
            )


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not (low <= value <= high) or math.isnan(value) or math.isinf(value):
        raise InvalidRequest(name, f"{name} must be between {low:g} and {high:g}, got {value!r}")
