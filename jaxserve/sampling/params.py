"""Every sampling knob once: its neutral value (an exact identity), range and meaning. No jax here.

The request schema, the lowering and the columns that travel to the device (`columns.py`) derive from `KNOBS`.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from numbers import Integral, Real
from typing import Any, ClassVar, Literal

from jaxserve.errors import InvalidRequest

MAX_LOGIT_BIAS = 1024
"""Entries `logit_bias` may hold; bounds the slot state on the device."""


@dataclass(frozen=True)
class Knob:
    """What is said of a knob beside its name, type and neutral value."""

    description: str
    """For users of the API."""
    low: float = -math.inf
    high: float = math.inf
    above_low: bool = False
    """`low` itself is out of range."""
    group: Literal["truncation", "penalty"] | None = None
    """Truncations make way for mirostat; penalties need a sequence's token counts on the device."""
    example: Any = None
    whole: bool = False
    """Takes whole numbers only."""

    def read(self, name: str, value: Any) -> int | float:
        """A number as Python has it, be it NumPy's or JAX's.

        Raises:
            InvalidRequest: it is none, or not a whole one where only those go.
        """
        if getattr(value, "shape", None) == () and hasattr(value, "item"):
            value = value.item()
        if self.whole and isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, bool) and isinstance(value, Integral if self.whole else Real):
            with suppress(OverflowError):  # beyond floats
                return int(value) if isinstance(value, Integral) and self.whole else float(value)
        kind = "whole number" if self.whole else "number"
        raise InvalidRequest(name, f"{name} must be a {kind}, got {reprlib.repr(value)}")

    def check(self, name: str, value: float) -> None:
        """Refuses a number out of range, NaN or infinity.

        Raises:
            InvalidRequest: names the knob.
        """
        inside = self.low < value if self.above_low else self.low <= value
        if not (inside and value <= self.high and math.isfinite(value)):
            raise InvalidRequest(name, f"{name} must be {self._range}, got {value!r}")

    @property
    def _range(self) -> str:
        if math.isfinite(self.high):
            return f"between {self.low:g} and {self.high:g}"
        return f"a finite number {'greater than' if self.above_low else 'of at least'} {self.low:g}"


def _knob(neutral: Any, description: str, low: float = -math.inf, high: float = math.inf, **more: Any) -> Any:
    return field(default=neutral, metadata={"knob": Knob(description, low, high, **more)})


@dataclass(frozen=True)
class SamplingParams:
    """How the next token is drawn. Defaults are neutral: temperature 1, nothing truncated, nothing penalised.

    Raises:
        InvalidRequest: a value is out of its range; `field` names the knob.
    """

    temperature: float = _knob(
        1.0, "Sampling temperature; 0 always takes the most likely token. Default 1.", 0, 2, example=0.7
    )
    top_k: int = _knob(
        0, "Draw from the k most likely tokens; 0 draws from all.", 0, 100, group="truncation", example=50, whole=True
    )
    top_p: float = _knob(
        1.0, "Draw from the fewest tokens whose probabilities reach this sum.", 0, 1, group="truncation"
    )
    """1 = off; 0 = the most likely token."""
    min_p: float = _knob(
        0.0,
        "Drop tokens less likely than this fraction of the most likely token's probability.",
        0,
        1,
        group="truncation",
    )
    """0 = off."""
    typical_p: float = _knob(
        1.0, "Draw from the most typical tokens up to this probability sum.", 0, 1, group="truncation"
    )
    """1 = off."""
    frequency_penalty: float = _knob(
        0.0, "Subtracted from a token's logit once for each time the output holds it.", -2, 2, group="penalty"
    )
    presence_penalty: float = _knob(
        0.0, "Subtracted from a token's logit once if the output holds it.", -2, 2, group="penalty"
    )
    repetition_penalty: float = _knob(
        1.0,
        "Divides positive and multiplies negative logits of tokens in prompt or output; 1 is off.",
        0,
        2,
        group="penalty",
    )
    """0 acts as 0.01."""
    mirostat_target: float | None = _knob(
        None, "Perplexity that Mirostat sampling keeps; replaces the other truncations.", 0, above_low=True
    )
    """None = off."""
    mirostat_lr: float = _knob(0.1, "Learning rate of Mirostat. Default 0.1.", 0)
    seed: int = _knob(
        0, "Makes sampling reproducible; any integer, taken modulo 2^64. Without one the server picks.", whole=True
    )
    """Every choice of a request folds its index in."""
    logit_bias: tuple[tuple[int, float], ...] = _knob(
        (), "Added to the logits of the given token ids.", -100, 100, example={"42": -100}
    )
    """(token id, bias) pairs or a dictionary, ids distinct; -100 bans the token. The range is that of a bias."""

    _optional: ClassVar = frozenset({"mirostat_target"})
    """Knobs that may be None."""

    def __post_init__(self) -> None:
        for name, knob in KNOBS.items():
            value = getattr(self, name)
            if name != "logit_bias" and not (value is None and name in self._optional):
                number = knob.read(name, value)
                if knob.low > -math.inf:
                    knob.check(name, number)
                object.__setattr__(self, name, number)
        object.__setattr__(self, "logit_bias", _pairs(self.logit_bias))
        self._check_bias()

    def _check_bias(self) -> None:
        if len(self.logit_bias) > MAX_LOGIT_BIAS:
            raise InvalidRequest("logit_bias", f"logit_bias holds more than {MAX_LOGIT_BIAS} entries")
        if len({token for token, _ in self.logit_bias}) < len(self.logit_bias):
            raise InvalidRequest("logit_bias", "logit_bias names a token twice")
        for token, bias in self.logit_bias:
            if token < 0:
                raise InvalidRequest("logit_bias", f"logit_bias names token {token}; token ids are not negative")
            KNOBS["logit_bias"].check("logit_bias", bias)

    @property
    def truncates(self) -> bool:
        """Whether some tokens may be left out of the draw."""
        return self.mirostat_target is not None or self._uses("truncation")

    @property
    def uses_penalties(self) -> bool:
        """Whether a sequence needs its token counts (`write_history`) on the device."""
        return self._uses("penalty")

    def _uses(self, group: str) -> bool:
        return any(getattr(self, name) != NEUTRAL[name] for name, knob in KNOBS.items() if knob.group == group)

    def effective(self) -> SamplingParams:
        """The same without what has no effect: mirostat replaces the truncations."""
        if self.mirostat_target is None:
            return self
        return replace(self, **{name: NEUTRAL[name] for name, knob in KNOBS.items() if knob.group == "truncation"})


def _pairs(bias: Mapping[int, float] | Iterable[tuple[int, float]]) -> tuple[tuple[int, float], ...]:
    try:
        pairs = [(token, value) for token, value in (bias.items() if isinstance(bias, Mapping) else bias)]
    except (TypeError, ValueError):
        raise InvalidRequest("logit_bias", f"logit_bias must be pairs of token id and bias, got {bias!r}") from None
    return tuple((int(_TOKEN.read("logit_bias", token)), _BIAS.read("logit_bias", value)) for token, value in pairs)


_TOKEN, _BIAS = Knob("", whole=True), Knob("")
KNOBS: dict[str, Knob] = {knob.name: knob.metadata["knob"] for knob in fields(SamplingParams)}
"""Every knob by name, in the order in which the API lists them."""
NEUTRAL: dict[str, Any] = {knob.name: knob.default for knob in fields(SamplingParams)}


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
