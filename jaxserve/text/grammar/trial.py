"""Grammars are tried in a worker process before this one compiles them.

llguidance bounds most of its work by counters, but not all: a schema of sixteen patterns under `allOf` costs six
seconds before anything is counted, one of two hundred gigabytes, and some inputs end in panics or an overflow of the
stack. What it compiles can't be sent from process to process. So a worker writes the grammar and compiles it first,
within limits that the kernel enforces, and only what it got through is compiled again here, at a cost then known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from jaxserve.errors import InvalidRequest
from jaxserve.text.formats.syntax import CallSyntax
from jaxserve.text.grammar.llg import Vocabulary, compile_lark
from jaxserve.text.grammar.writing import Content, Writer, Written
from jaxserve.text.isolation import Limits, Workers

Reply = Written | tuple[str, str]
"""A grammar, or the (field, message) of a refusal."""

LIMITS = Limits(cpu_seconds=2.0, wall_seconds=15.0, memory_bytes=512 * 2**20, niceness=5)
"""Of one grammar. The largest of the published schemas takes 0.3 s and 20 MiB."""


@dataclass(frozen=True)
class GrammarTask:
    """What the workers do."""

    vocabulary: Vocabulary
    calls: CallSyntax
    marker_ids: Mapping[str, int]

    def prepare(self) -> Callable[[Content], Reply]:
        """See `Task`."""
        tokenizer = self.vocabulary.build(list)
        compile_lark(tokenizer, 'start: "a"')  # fills what llguidance makes on first use
        return partial(_reply, Writer(tokenizer, self.calls, self.marker_ids))


class Trials:
    """Writes and tries grammars in worker processes. Thread-safe.

    Args:
        task: what the model's workers do.
    """

    def __init__(self, task: GrammarTask) -> None:
        self._workers = Workers(task, LIMITS, size=4)

    def start(self) -> None:
        """Starts the process of the workers, which otherwise starts with the first grammar."""
        self._workers.start()

    def close(self) -> None:
        """Ends the workers."""
        self._workers.close()

    def write(self, content: Content) -> Written:
        """A grammar that compiles.

        Raises:
            InvalidRequest: there is none.
            Overrun: a limit ended the work.
            Overloaded: too much of it waits.
            EngineStopped: the server is shutting down.
        """
        reply: Reply = self._workers.run(content)
        if isinstance(reply, Written):
            return reply
        raise InvalidRequest(*reply)


def _reply(writer: Writer, content: Content) -> Reply:
    written = writer.write(content)
    return written if isinstance(written, Written) else (written.field, written.message)
