"""Rules of one's own: checked, compiled, put in the place of the sampling programs."""

from __future__ import annotations

import reprlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from jaxserve.engine.programs import Programs
from jaxserve.engine.requests import Request
from jaxserve.errors import InvalidRequest
from jaxserve.sampling import params as knobs
from jaxserve.sampling.rule import Rule, shape_of


@dataclass(frozen=True)
class Counted(knobs.SamplingParams):
    """The same knobs, with the tokens counted that a rule may look at. Neutral penalties change no logit."""

    @property
    def uses_penalties(self) -> bool:
        """Whether tokens are counted: always."""
        return True


def counted(requests: Iterable[Request]) -> list[Request]:
    """The same requests, for programs with a rule."""
    return [replace(request, sampling=Counted(**vars(request.sampling))) for request in requests]


class Samplers:
    """The sampling programs of an engine, with or without a rule.

    Args:
        programs: of the engine.
        vocab_size: of the model.
        running: calls that are under way; while there is one, nothing is changed.
    """

    def __init__(self, programs: Programs, vocab_size: int, running: Collection[object]) -> None:
        self._programs = programs
        self._plain = programs.sample
        self._vocab_size = vocab_size
        self._running = running

    @property
    def ruled(self) -> bool:
        """Whether there is a rule."""
        return self._programs.sample is not self._plain

    def use(self, rule: Rule | None) -> None:
        """Compiles the programs with a rule; those in use stay until all are made. None = the plain ones again.

        Raises:
            InvalidRequest: the rule is no function, or gives something else than logits; or something runs.
        """
        self._nothing_may_run()
        made = self._plain if rule is None else self._programs.samplers(_checked(rule, self._vocab_size))
        self._nothing_may_run()
        self._programs.sample = made

    def _nothing_may_run(self) -> None:
        if self._running:
            raise InvalidRequest("rule", "a rule can't be changed while requests run: end them first")


def _checked(rule: Rule, vocab_size: int) -> Rule:
    if not callable(rule):
        raise InvalidRequest("rule", f"rule must be a function of (logits, rows), got {reprlib.repr(rule)}")
    made = shape_of(rule, vocab_size)
    shape, kind = getattr(made, "shape", None), getattr(made, "dtype", None)
    if shape != (1, vocab_size) or kind is None or kind.kind not in "fV":  # V: bfloat16
        raise InvalidRequest("rule", f"rule must return logits [rows, {vocab_size}], as it gets them, not {made!r}")
    return rule
