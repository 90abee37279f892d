"""How a completion is made: the knobs of the draw, and where it ends."""

from __future__ import annotations

import reprlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

from jaxserve.errors import InvalidRequest
from jaxserve.llm.arguments import texts, token_ids, whole
from jaxserve.sampling import params as knobs
from jaxserve.sampling.params import KNOBS

_NOTHING: Mapping[str, Any] = MappingProxyType({})

MAX_N = 128
"""Completions of one prompt, as over HTTP."""
MAX_LOGPROBS = 5
"""Alternatives that the device returns beside each token."""


@dataclass(frozen=True)
class SamplingParams(knobs.SamplingParams):
    """How tokens are drawn (see the fields of `jaxserve.sampling.params.SamplingParams`), how many, and what ends them.

    Raises:
        InvalidRequest: a value is of another type or out of its range; `field` names it.
    """

    _optional: ClassVar = frozenset({"mirostat_target", "seed"})

    seed: int | None = None  # type: ignore[assignment]  # the engine's always has one
    """Same seed, same tokens; None = another one each time."""
    max_tokens: int = 128
    """Tokens of a completion at most; fewer where the context ends."""
    n: int = 1
    """Completions of each prompt."""
    stop: str | Sequence[str] = ()
    """Texts that end a completion; not part of it."""
    stop_token_ids: Sequence[int] = ()
    """Further tokens that end a completion."""
    logprobs: int | None = None
    """None = off; otherwise 0 to 5 alternatives to return beside each token."""
    ignore_eos: bool = False
    """Whether to go on where the model would end."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._keep("max_tokens", whole("max_tokens", self.max_tokens, 0))
        self._keep("n", whole("n", self.n, 1, MAX_N))
        self._keep("stop", texts("stop", self.stop))
        self._keep("stop_token_ids", token_ids("stop_token_ids", self.stop_token_ids))
        if self.logprobs is not None:
            self._keep("logprobs", whole("logprobs", self.logprobs, 0, MAX_LOGPROBS))
        if not isinstance(self.ignore_eos, bool):
            raise InvalidRequest("ignore_eos", f"ignore_eos must be True or False, got {self.ignore_eos!r}")

    def knobs(self) -> knobs.SamplingParams:
        """The draw's knobs alone, with a seed of their own where none was given."""
        values = {name: getattr(self, name) for name in KNOBS}
        if self.seed is None:
            values["seed"] = secrets.randbits(63)
        return knobs.SamplingParams(**values)

    def _keep(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)


def completed(sampling: knobs.SamplingParams | None, changes: Mapping[str, Any] = _NOTHING) -> SamplingParams:
    """What was given for `sampling`, or the defaults, with some fields changed.

    Raises:
        InvalidRequest: it is something else, or a change is of no field or out of range.
    """
    if sampling is not None and not isinstance(sampling, knobs.SamplingParams):
        raise InvalidRequest("sampling", f"sampling must be SamplingParams, got {reprlib.repr(sampling)}")
    unknown = [name for name in changes if name not in SamplingParams.__dataclass_fields__]
    if unknown:
        raise InvalidRequest(unknown[0], f"SamplingParams has no field {unknown[0]}")
    return SamplingParams(**((vars(sampling) if sampling is not None else {}) | dict(changes)))
