"""What a sequence may continue with, as the engine asks for it: a grammar, a reasoning budget, or both."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from jaxserve.errors import InvalidRequest
from jaxserve.text.formats.bound_format import BoundFormat
from jaxserve.text.formats.tools import Tool
from jaxserve.text.grammar.at_least import AtLeast, forbid_if_others
from jaxserve.text.grammar.matcher import allow
from jaxserve.text.grammar.request_grammar import GrammarCompiler, Matcher
from jaxserve.text.grammar.wish import OutputWish

Int32 = npt.NDArray[np.int32]
ALL_ALLOWED = np.int32(-1)


@dataclass(frozen=True)
class BudgetRules:
    """A reasoning budget, for any number of sequences."""

    tokens: int
    """Tokens between the markers of the reasoning, at most."""
    open: bytes
    close: bytes
    enders: tuple[bytes, ...]
    """What else ends the reasoning."""
    lead: tuple[int, ...]
    """Layout tokens before the close marker; they count."""
    closing: tuple[int, ...]
    """The close marker's tokens and the layout after it."""
    token_bytes: Callable[[int], bytes]
    starts_open: bool
    """The prompt has opened the reasoning."""


class ReasoningBudget:
    """Counts one sequence's reasoning and, once the budget is spent, says which tokens close it.

    Reasoning comes at the beginning or not at all: an answer may speak of its markers.
    """

    def __init__(self, rules: BudgetRules) -> None:
        self._rules = rules
        self._inside = rules.starts_open
        self._over = False
        """No reasoning can follow."""
        self._spent = 0
        self._tail = b""
        self._forced: list[int] = []
        """Tokens that must come next, the next one last."""
        self._check()

    @property
    def forced(self) -> int | None:
        """The only token that may come next; None = any."""
        return self._forced[-1] if self._forced else None

    @property
    def closing(self) -> tuple[int, ...]:
        """All tokens that must come next."""
        return tuple(reversed(self._forced))

    def advance(self, token: int) -> None:
        """Takes a token of the output."""
        if self._forced:
            self._forced = self._forced[:-1]  # not in place: copies share it
            return
        self._spent += self._inside
        self._look(self._rules.token_bytes(token))
        self._check()

    def _look(self, text: bytes) -> None:
        """Follows the reasoning's markers through the text, wherever the tokens split them."""
        if self._over:
            return
        text = self._tail + text
        if not self._inside:
            text = text.lstrip()
            self._inside = text.startswith(self._rules.open)
            self._over = not self._rules.open.startswith(text[: len(self._rules.open)])
            if self._over or not self._inside:
                self._tail = text
                return
            text = text[len(self._rules.open) :]
        markers = (self._rules.close, *self._rules.enders)
        self._over = re.search(b"|".join(map(re.escape, markers)), text) is not None
        self._inside = not self._over
        self._tail = text[max(len(text) - max(map(len, markers)) + 1, 0) :]

    def _check(self) -> None:
        rules = self._rules
        lead = rules.lead if len(rules.lead) <= rules.tokens else ()
        if self._inside and self._spent + len(lead) >= rules.tokens:
            self._forced = [*reversed(rules.closing), *reversed(lead)]
            self._inside, self._over = False, True
            self._spent = rules.tokens
            self._tail = b""


class OutputConstraint:
    """The engine's `TokenConstraint` of one sequence.

    Args:
        matcher: the grammar, if there is one.
        budget: the reasoning budget, if there is one.
        withheld: tokens that may only come when the grammar allows nothing else.
        place: the request's field that the grammar comes from.
    """

    def __init__(
        self,
        matcher: Matcher | None,
        budget: ReasoningBudget | None,
        withheld: Sequence[int],
        place: str = "response_format",
    ) -> None:
        self._place = place
        self._matcher = matcher
        self._budget = budget
        self._withheld = tuple(withheld)

    @property
    def constrains(self) -> bool:
        """Whether the next token depends on the one before it, as far as the tokens taken so far tell."""
        if self._budget is not None and self._budget.forced is not None:
            return True
        return self._matcher is not None and self._matcher.constrains

    @property
    def stands(self) -> bool:
        """Whether, while it does not, the same few tokens are forbidden at every position."""
        return self._matcher is not None and bool(self._withheld or self._matcher.standing_bans)

    def prepare(self, row: Int32) -> Any:
        """Writes the allowed next tokens, int32 [ceil(V / 32)], or returns llguidance's matcher that is to be asked.

        Raises:
            InvalidRequest: the grammar has passed its limits.
        """
        forced = self._budget.forced if self._budget is not None else None
        if forced is not None:
            row[:] = 0
            allow(row, (forced,))
            return None
        if self._matcher is None:
            row[:] = ALL_ALLOWED
            return None
        asked = self._matcher.prepare(row)
        if asked is None:
            self._check(self._matcher)
            self._withhold(row)
        return asked

    def complete(self, row: Int32) -> None:
        """Corrects the row after the matcher that `prepare` returned has written it.

        Raises:
            InvalidRequest: the grammar has passed its limits.
        """
        if self._matcher is not None:
            self._matcher.complete(row)
            self._check(self._matcher)
            self._withhold(row)

    def _check(self, matcher: Matcher) -> None:
        if matcher.error is not None:
            raise InvalidRequest(
                self._place, f"{self._place}: can't be followed further, a limit of this server: {matcher.error}"
            )

    def _withhold(self, row: Int32) -> None:
        if self._withheld and self._matcher is not None and not self._matcher.is_stopped():
            forbid_if_others(row, self._withheld)

    def advance(self, token: int) -> None:
        """Takes the token the sequence continued with.

        Raises:
            InvalidRequest: the grammar has passed its limits.
        """
        if self._budget is not None:
            self._budget.advance(token)
        if self._matcher is not None and not self._matcher.consume(token):
            self._check(self._matcher)

    def fork(self) -> OutputConstraint:
        """A copy, to follow what may come."""
        matcher = None if self._matcher is None else self._matcher.fork()
        return OutputConstraint(matcher, copy(self._budget), self._withheld, self._place)

    @property
    def forced(self) -> tuple[int, ...]:
        """Tokens that are likely next because hardly another is allowed; () = there is a choice."""
        if self._budget is not None and self._budget.closing:
            return self._budget.closing
        return () if self._matcher is None else self._matcher.forced


@dataclass(frozen=True)
class Constrained:
    """How the outputs of a request are constrained. Immutable."""

    make: Callable[[], OutputConstraint | AtLeast]
    """One constraint for each choice."""
    grammar: str | None
    """Text of the grammar; None where only a reasoning budget rules."""
    stop_ids: tuple[int, ...]
    """Tokens that must end the sequence, because the grammar's end lets through nothing else."""
    relaxed: tuple[tuple[str, str], ...] = ()
    """(tool, what of its schema is left to the model)."""


class ConstraintBuilder:
    """Builds the constraints of requests for one model. Thread-safe; call it on worker threads.

    Args:
        bound: the model's format, with its tokenizer.
        vocab_size: of the model.

    Raises:
        ValueError: the model has no end-of-sequence token.
    """

    def __init__(self, bound: BoundFormat, *, vocab_size: int) -> None:
        self._bound = bound
        self._compiler = GrammarCompiler(bound, vocab_size=vocab_size)
        self._wait = True

    def start(self) -> None:
        """Starts the processes that try grammars; without it they start with the first grammar."""
        self._compiler.trials.start()

    def close(self) -> None:
        """Ends them, whatever they do."""
        self._compiler.trials.close()

    def known(self) -> ConstraintBuilder:
        """The same for callers who must not wait: `build` raises `NotReady` where something has to be compiled."""
        quick = copy(self)
        quick._wait = False
        return quick

    def build(self, wish: OutputWish, prompt: str | None = None) -> Constrained | None:
        """The constraint of a request's outputs; None when any token goes.

        Args:
            wish: of the request.
            prompt: text of the prompt, which may have opened the reasoning.

        Raises:
            InvalidRequest: the schema, grammar or tools can't be honoured; names the field and the keyword.
            NotReady: see `known`.
            Overloaded: too many grammars wait to be compiled.
        """
        opened = prompt is not None and self._bound.prompt_opens_reasoning(prompt)
        compiled = self._compiler.compile(wish, reasoning_open=opened and wish.chat, wait=self._wait)
        rules = self._budget(wish.budget, opened=opened, tools=wish.tools)
        if compiled is None and rules is None and not wish.min_tokens:
            return None
        stops = compiled.rules.stop_ids if compiled is not None else ()
        ends = (*self._bound.tokenizer.eos_ids, *self._bound.stop_ids, *stops, *wish.stop_token_ids)
        withheld = stops if wish.ignore_eos else ()
        place = compiled.place if compiled is not None else "reasoning_effort"

        def make() -> OutputConstraint | AtLeast:
            matcher = compiled.matcher() if compiled is not None else None
            reasoning_budget = ReasoningBudget(rules) if rules is not None else None
            constraint = OutputConstraint(matcher, reasoning_budget, withheld, place)
            return AtLeast(wish.min_tokens, ends, constraint) if wish.min_tokens else constraint

        relaxed = compiled.relaxed if compiled is not None else ()
        return Constrained(make, compiled.source if compiled is not None else None, stops, relaxed)

    def _budget(self, tokens: int | None, *, opened: bool, tools: Sequence[Tool]) -> BudgetRules | None:
        bound, thinking = self._bound, self._bound.format.thinking
        if tokens is None or thinking is None:
            return None
        lead = tuple(bound.tokenizer.encode(thinking.before_close, add_special_tokens=False))
        closing = tuple(bound.tokenizer.encode(thinking.close + thinking.after_close, add_special_tokens=False))
        enders = bound.format.calls.triggers(tools) if thinking.ended_by_calls and tools else ()
        return BudgetRules(
            tokens,
            thinking.open.encode(),
            thinking.close.encode(),
            tuple(ender.encode() for ender in enders),
            lead,
            closing,
            bound.tokenizer.token_bytes,
            opened,
        )
