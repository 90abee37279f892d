"""One sequence's walk through a grammar: what may come next, and when the grammar begins to say so."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from llguidance import LLExecutor, LLMatcher

from jaxserve.text.reading.reader import Markers

Int32 = npt.NDArray[np.int32]
MAX_BLANKS = 2
"""Line breaks before the reasoning, which must then follow."""
MAX_ROLLBACK = 64
"""Consumed tokens that `Matcher.rollback` can take back."""


class _Phase(Enum):
    """Where a sequence is."""

    OPENING = auto()
    """Nothing written; reasoning or what the grammar says may come."""
    REASONING = auto()
    FREE = auto()
    """Waiting for a trigger, or for the reasoning, which comes at the beginning or not at all."""
    ANSWERING = auto()
    """Waiting for a trigger."""
    ACTIVE = auto()
    """The grammar rules."""


_WATCHING = (_Phase.REASONING, _Phase.FREE, _Phase.ANSWERING)
"""Phases in which the grammar doesn't rule and the text is watched."""


@dataclass(frozen=True)
class Start:
    """When a grammar begins to rule."""

    triggers: tuple[str, ...] = ()
    """Texts in a free answer; () = with the first token of the answer."""
    replays_trigger: bool = True
    """Whether the grammar's text begins with the trigger."""
    reasoning_open: bool = False
    may_reason: bool = False
    """The model may open its reasoning with its first token."""
    think_open: str = ""
    think_close: str = ""
    enders: tuple[str, ...] = ()
    """Triggers that end the reasoning as well as `think_close` does."""
    layout: str = ""
    """Line breaks that may follow `think_close` before the grammar's text begins."""


@dataclass(frozen=True)
class Rules:
    """What all matchers of one grammar share. Immutable."""

    prototype: LLMatcher
    start: Start
    tokenize: Callable[[bytes], list[int]]
    """Tokens of a text, markers as the tokens they are."""
    token_bytes: Callable[[int], bytes]
    stop_ids: tuple[int, ...]
    think_open_id: int | None
    vocab_size: int
    blank_ids: tuple[int, ...] = ()
    """Line breaks, which models write after their reasoning, and some before it."""
    banned_ids: tuple[int, ...] = ()
    """Tokens that may not come before the grammar rules: a call would begin that the grammar can't follow."""


class Matcher:
    """The state of one sequence. Not thread-safe; different matchers may run on different threads."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        start = rules.start
        self._grammar: Any = None
        self._tail = ""
        self._history: deque[tuple[_Phase, str, int, int, str]] = deque(maxlen=MAX_ROLLBACK)
        self._blanks = 0
        self._layout = ""
        """What may still come of the layout after the reasoning."""
        self._consumed = 0
        """Tokens the grammar has consumed, replayed ones included."""
        if start.reasoning_open:
            self._phase = _Phase.REASONING
        elif start.may_reason:
            self._phase = _Phase.OPENING
        else:
            self._phase = _Phase.FREE if start.triggers else _Phase.ACTIVE
        self._waiting = _markers(start)
        self._dead = False

    @property
    def constrains(self) -> bool:
        """Whether the next token is masked."""
        return self._phase is _Phase.ACTIVE or (self._phase is _Phase.OPENING and not self._rules.start.triggers)

    @property
    def standing_bans(self) -> tuple[int, ...]:
        """Tokens that are forbidden as long as the grammar does not rule: the end, where an answer must follow."""
        if self._phase is _Phase.REASONING and not self._rules.start.triggers:
            return (*self._rules.banned_ids, *self._rules.stop_ids)
        return self._rules.banned_ids if self._phase in _WATCHING else ()

    @property
    def error(self) -> str | None:
        """Why nothing is allowed any more: the grammar passed its limits, or a token came that it forbids."""
        if self._grammar is not None and self._grammar.is_error():
            return str(self._grammar.get_error()).splitlines()[0][:200]
        return "a token that the grammar forbids" if self._dead else None

    def is_accepting(self) -> bool:
        """Whether the output may end here."""
        if not self.constrains:
            return self._phase is not _Phase.REASONING or bool(self._rules.start.triggers)
        if self._phase is _Phase.OPENING and self._blanks:
            return False
        return bool(self._inner.is_accepting())

    def is_stopped(self) -> bool:
        """Whether nothing but a stop token may follow."""
        return self._phase is _Phase.ACTIVE and bool(self._inner.is_stopped())

    def consume(self, token: int) -> bool:
        """Advances by a committed token; False when the grammar forbids it."""
        self._history.append((self._phase, self._tail, self._consumed, self._blanks, self._layout))
        if self._phase is _Phase.OPENING:
            return self._open(token)
        if self._phase is _Phase.ACTIVE:
            return self._skip_layout(token) or self._advance([token])
        self._look(self._rules.token_bytes(token))
        return not self._dead

    def _open(self, token: int) -> bool:
        start = self._rules.start
        if token == self._rules.think_open_id:
            self._phase = _Phase.REASONING
            return True
        if token in self._rules.blank_ids and self._blanks < MAX_BLANKS and not self._begins_answer(token):
            self._blanks += 1
            return True
        if self._blanks and not start.triggers:
            self._dead = True
            return False
        self._phase = _Phase.FREE if start.triggers else _Phase.ACTIVE
        if self._phase is _Phase.ACTIVE:
            return self._advance([token])
        self._look(self._rules.token_bytes(token))
        return True

    def _begins_answer(self, token: int) -> bool:
        """Whether the grammar can begin with a line break: it is not layout then."""
        return not self._rules.start.triggers and not self._blanks and self._inner.validate_tokens([token]) == 1

    def _skip_layout(self, token: int) -> bool:
        """Takes a token of the layout after the reasoning; any other token ends it."""
        if token in self._layout_ids():
            self._layout = self._layout[len(self._rules.token_bytes(token)) :]
            return True
        self._layout = ""
        return False

    def _layout_ids(self) -> list[int]:
        if not self._layout:
            return []
        texts = {token: self._rules.token_bytes(token).decode("latin-1") for token in self._rules.blank_ids}
        return [token for token, text in texts.items() if self._layout.startswith(text)]

    def _advance(self, tokens: Sequence[int]) -> bool:
        for token in tokens:
            if self._inner.is_stopped() and token in self._rules.stop_ids and not self._inner.is_error():
                return True
            if not self._inner.consume_token(token):
                self._dead = True
                return False
            self._consumed += 1
        return True

    def _look(self, text: bytes) -> None:
        """Looks for the end of the reasoning and for triggers in what has been written."""
        # One character for each byte: a token may end inside a character.
        text_ = self._tail + text.decode("latin-1")
        while self._phase in _WATCHING:
            at, marker = self._waiting[self._phase].find(text_, 0, ended=False)
            if self._phase is _Phase.FREE and text_[:at].strip():
                self._phase = _Phase.ANSWERING
                continue
            if marker is None:
                self._tail = text_[at:]
                return
            rest = text_[at + len(marker) :]
            self._tail = ""
            start = self._rules.start
            if marker == _latin(start.think_close):
                self._phase = _Phase.ANSWERING if start.triggers else _Phase.ACTIVE
                if self._phase is _Phase.ACTIVE:
                    common = _common(rest, start.layout)
                    self._layout = start.layout[common:] if common == len(rest) else ""
                    self._take_up(rest[common:])
            elif marker == _latin(start.think_open):
                self._phase = _Phase.REASONING
            else:
                self._phase = _Phase.ACTIVE
                self._take_up((marker if start.replays_trigger else "") + rest)
            text_ = rest

    def _take_up(self, text: str) -> None:
        """The grammar takes over, with text that was written before it could say anything."""
        tokens = self._rules.tokenize(text.encode("latin-1"))
        if self._inner.try_consume_tokens(tokens) == len(tokens):
            self._consumed += len(tokens)
            return
        self._grammar, self._consumed = None, 0
        # A trigger that no call follows is part of the answer, and another may come; a forced answer is broken.
        if self._rules.start.triggers:
            self._phase = _Phase.ANSWERING
        else:
            self._dead = True

    @property
    def _inner(self) -> Any:
        if self._grammar is None:
            self._grammar = self._rules.prototype.deep_copy()
        return self._grammar

    def fork(self) -> Matcher:
        """A copy, made in some 10 us."""
        copied = copy(self)
        copied._grammar = None if self._grammar is None else self._grammar.deep_copy()
        copied._history = self._history.copy()
        return copied

    def rollback(self, count: int) -> bool:
        """Takes the last `count` consumed tokens back; False when it can't."""
        if not 0 <= count <= len(self._history):
            return False
        phase, tail, consumed, blanks, layout = self._phase, self._tail, self._consumed, self._blanks, self._layout
        for _ in range(count):
            phase, tail, consumed, blanks, layout = self._history.pop()
        if self._grammar is not None and consumed < self._consumed:
            if not consumed:
                self._grammar = None
            elif self._dead or not self._grammar.rollback(self._consumed - consumed):
                return False
        self._phase, self._tail, self._consumed, self._blanks, self._layout = phase, tail, consumed, blanks, layout
        self._dead = self._dead and count == 0
        return True

    @property
    def forced(self) -> tuple[int, ...]:
        """The tokens of the text that must come next, as the tokenizer would write it; () where there is a choice."""
        if self._phase is not _Phase.ACTIVE or self._dead or self._layout or self._inner.is_error():
            return ()
        asked = (
            self._inner.deep_copy()
        )  # a matcher that was asked may refuse the marker that closes a call (seen in 1.9.1)
        return tuple(asked.compute_ff_tokens()) if asked.compute_ff_bytes() else ()

    def prepare(self, row: Int32) -> Any:
        """The grammar's own matcher if it must be asked; otherwise the row is written and None returned."""
        if not self.constrains:
            row[:] = -1
            forbid(row, self.standing_bans)
            return None
        if self._dead or self._inner.is_error():
            row[:] = 0
            return None
        if self._inner.is_stopped():
            row[:] = 0
            allow(row, self._rules.stop_ids)
            return None
        if self._phase is _Phase.OPENING and self._blanks:
            # Line breaks are layout before the reasoning; in front of the answer they would be part of it.
            row[:] = 0
            self.complete(row)
            return None
        return self._inner

    def complete(self, row: Int32) -> None:
        """Corrects a row after the grammar has written it."""
        if self._inner.is_error():
            row[:] = 0
        elif self._phase is _Phase.OPENING and self._rules.think_open_id is not None:
            allow(row, (self._rules.think_open_id,))
            if self._blanks < MAX_BLANKS:
                allow(row, self._rules.blank_ids)
        else:
            allow(row, self._layout_ids())


class Fillable(Protocol):
    """What writes a row of a bitmask, `Matcher` for one."""

    def prepare(self, row: Int32) -> Any:
        """Writes the row and returns None, or returns llguidance's matcher that has to be asked."""

    def complete(self, row: Int32) -> None:
        """Corrects the row after that matcher has written it."""


class MaskFiller:
    """Computes the masks of several rows in parallel, without the GIL.

    Args:
        threads: threads to use at most; they are started when a batch first needs them.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._executor: Any = None

    def fill(self, fillables: Iterable[tuple[int, Fillable]], bitmask: Int32) -> dict[int, Exception]:
        """Writes the rows of a batch.

        Args:
            fillables: (row, what writes it) pairs; other rows are left as they are.
            bitmask: int32 [R, ceil(vocab_size / 32)], contiguous.

        Returns:
            What was raised, by row; such a row may hold anything.
        """
        failures: dict[int, Exception] = {}
        asked: list[tuple[int, Fillable, Any]] = []
        for row, fillable in fillables:
            try:
                matcher = fillable.prepare(bitmask[row])
            except Exception as error:  # noqa: BLE001 - one broken grammar must not reach the other rows
                failures[row] = error
                continue
            if matcher is not None:
                asked.append((row, fillable, matcher))
        self._ask([(matcher, row) for row, _, matcher in asked], bitmask)
        for row, fillable, _ in asked:
            try:
                fillable.complete(bitmask[row])
            except Exception as error:  # noqa: BLE001 - as above
                failures[row] = error
        return failures

    def _ask(self, work: list[tuple[Any, int]], bitmask: Int32) -> None:
        row_bytes = bitmask.shape[1] * bitmask.itemsize
        if len(work) < 2:
            for matcher, row in work:
                matcher.unsafe_compute_mask_ptr(bitmask[row].ctypes.data, row_bytes)
            return
        if self._executor is None:
            self._executor = LLExecutor(self._threads)
        self._executor.unsafe_compute_mask_ptr(work, bitmask.ctypes.data, row_bytes, bitmask.shape[0])


def _markers(start: Start) -> dict[_Phase, Markers]:
    triggers = [_latin(trigger) for trigger in start.triggers]
    closing = [_latin(start.think_close)] if start.think_close else []
    opening = [_latin(start.think_open)] if start.think_open else []
    return {
        _Phase.REASONING: Markers([*closing, *map(_latin, start.enders)]),
        _Phase.FREE: Markers([*triggers, *opening]),
        _Phase.ANSWERING: Markers(triggers),
    }


def _common(a: str, b: str) -> int:
    """Length of what two texts begin with."""
    return next((index for index, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _latin(text: str) -> str:
    return text.encode().decode("latin-1")


def allow(row: Int32, tokens: Iterable[int]) -> None:
    """Puts tokens into a mask, bit i of word w being token 32 w + i."""
    words = row.view(np.uint32)
    for token in tokens:
        words[token // 32] |= np.uint32(1 << (token % 32))


def forbid(row: Int32, tokens: Iterable[int]) -> None:
    """Takes tokens out of a mask."""
    words = row.view(np.uint32)
    for token in tokens:
        words[token // 32] &= ~np.uint32(1 << (token % 32))
