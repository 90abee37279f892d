"""What a way of writing tool calls must be able to do: be read, and be turned into a grammar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from jaxserve.text.formats.lark import Lark
from jaxserve.text.formats.tools import Tool
from jaxserve.text.reading.events import Emitter
from jaxserve.text.reading.reader import Reader, Steps


@dataclass(frozen=True)
class Reading:
    """What a syntax reads from and writes to."""

    reader: Reader
    out: Emitter
    tools: Sequence[Tool] | None
    """The request's; None = calls are not looked for."""


class CallSyntax(Protocol):
    """A way of writing tool calls; `calls_*.py` derive from it.

    Most families write a text in which calls stand between markers. What has a body below is right for them; only a
    family whose whole output is framed (harmony) says otherwise.
    """

    @property
    def opens(self) -> tuple[str, ...]:
        """Texts that begin a call, or a section of calls, in the middle of an answer."""

    @property
    def strays(self) -> tuple[str, ...]:
        """Markers that mean nothing outside of a call and are left out of the answer."""

    @property
    def markers(self) -> tuple[str, ...]:
        """All texts that may be single tokens of the model's vocabulary."""

    def parse(self, opened: str, reading: Reading) -> Steps[None]:
        """Reads what follows `opened`, one of `opens`, up to the end of the call or section."""

    def grammar(self, tools: Sequence[Tool], lark: Lark, *, parallel: bool) -> str:
        """A Lark expression for one call (several if `parallel`) of some tools, from the text that opens it on."""

    def triggers(self, tools: Sequence[Tool]) -> tuple[str, ...]:
        """Texts in a free answer at which the grammar takes over. Never empty when there are tools."""

    @property
    def frame(self) -> tuple[str, ...]:
        """Markers of every output, with calls or without; they never reach the answer as text."""
        return ()

    def read_frame(self, reading: Reading) -> Steps[None] | None:
        """Reads a whole framed output; None when the output is a text that may hold reasoning and calls."""
        return None

    def framed(self, answer: str, lark: Lark) -> str:
        """A Lark expression for an answer in the frame that the family writes around answers."""
        return answer

    def before_answer(self, lark: Lark) -> str:
        """A Lark expression for what the frame lets come before a constrained answer or call; "" for nothing."""
        return ""

    @property
    def replays_trigger(self) -> bool:
        """Whether what `after_trigger` yields begins with the trigger; otherwise it begins behind it."""
        return True

    def after_trigger(self, tools: Sequence[Tool], lark: Lark, *, parallel: bool) -> str:
        """A Lark expression for calls that a trigger in a free answer has begun."""
        return self.grammar(tools, lark, parallel=parallel)
