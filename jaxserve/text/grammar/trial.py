"""Grammars are tried in a worker process before this one compiles them.

llguidance bounds most of its work by counters, but not all: a schema of sixteen patterns under `allOf` costs six
seconds before anything is counted, one of two hundred gigabytes, and some inputs end in panics or an overflow of the
stack. What it compiles can't be sent from process to process. So a worker compiles first, within limits that the kernel
enforces, and only what it got through is compiled again here, at a cost that is then known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from llguidance import LLTokenizer

from jaxserve.text.grammar.gbnf import gbnf_to_lark
from jaxserve.text.grammar.llg import Vocabulary, compile_lark
from jaxserve.text.isolation import Limits, Workers
from jaxserve.text.isolation.limits import resident_memory

LIMITS = Limits(cpu_seconds=2.0, wall_seconds=15.0, memory_bytes=512 * 2**20, niceness=5)
"""Of one grammar. The largest of the published schemas takes 0.3 s and 20 MiB."""


@dataclass(frozen=True)
class Verdict:
    """What a worker says of a grammar."""

    error: str | None
    """llguidance's words; None: it compiles."""
    held_bytes: int
    """Memory that the compiled grammar takes, roughly."""


@dataclass(frozen=True)
class GrammarTask:
    """What the workers do."""

    vocabulary: Vocabulary

    def prepare(self) -> Callable[[str, str], str | Verdict]:
        """See `Task`."""
        tokenizer = self.vocabulary.build(list)
        compile_lark(tokenizer, 'start: "a"')  # fills what llguidance makes on first use
        return partial(_work, tokenizer)


class Trials:
    """Tries grammars in worker processes. Thread-safe.

    Args:
        vocabulary: of the model.

    All methods raise `Overrun` when a limit ends the work, `Overloaded` when too much of it waits, and `EngineStopped`
    at shutdown.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._workers = Workers(GrammarTask(vocabulary), LIMITS, size=4)

    def start(self) -> None:
        """Starts the process of the workers, which otherwise starts with the first grammar."""
        self._workers.start()

    def close(self) -> None:
        """Ends the workers."""
        self._workers.close()

    def judge(self, source: str) -> Verdict:
        """Whether a grammar (llguidance's Lark) compiles."""
        verdict: Verdict = self._workers.run("lark", source)
        return verdict

    def convert(self, gbnf: str) -> str:
        """The Lark of a GBNF grammar.

        Raises:
            GbnfError: it is none.
        """
        lark: str = self._workers.run("gbnf", gbnf)
        return lark


def _work(tokenizer: LLTokenizer, kind: str, text: str) -> str | Verdict:
    if kind == "gbnf":
        return gbnf_to_lark(text)
    before = resident_memory()
    matcher = compile_lark(tokenizer, text)
    return Verdict(matcher.get_error() if matcher.is_error() else None, max(resident_memory() - before, 0))
