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
    tools: Sequence[Tool]


class CallSyntax(Protocol):
    """A way of writing tool calls."""

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
        """Texts in a free answer at which the grammar takes over; what `grammar` yields begins with each of them.

        Never empty when there are tools.
        """
