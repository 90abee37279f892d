"""The chunks of a chat answer as a sequence of blocks: reasoning, text and calls, one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from jaxserve.api.lift import Chunk

Kind = Literal["reasoning", "text", "call"]


@dataclass
class Block:
    """A part of the answer; its text grows while it is open."""

    index: int
    """Place among the answer's blocks."""
    kind: Kind
    text: str = ""
    """Arguments, of a call."""
    call_id: str = ""
    name: str = ""


@dataclass(frozen=True)
class Step:
    """What happens to a block."""

    change: Literal["opened", "grown", "closed"]
    block: Block
    added: str = ""


@dataclass
class Blocks:
    """Follows one answer. A call is one block, however its pieces come; other blocks end where another kind begins."""

    all: list[Block] = field(default_factory=list)
    finish_reason: str | None = None
    reasoning_tokens: int = 0
    """Tokens that came with reasoning, where the chunks tell their tokens."""
    _open: Block | None = None
    _call: int | None = None
    """Index of the call that is open, in the chat answer."""

    def read(self, chunks: Sequence[Chunk]) -> Iterator[Step]:
        """The steps that some chunks make; the last block is closed with the finish reason."""
        for chunk in chunks:
            for choice in chunk["choices"]:
                delta: Mapping[str, Any] = choice["delta"]  # type: ignore[typeddict-item]
                if delta.get("reasoning_content"):
                    self.reasoning_tokens += len(choice.get("token_ids") or ())
                yield from self._grow("reasoning", delta.get("reasoning_content") or "")
                yield from self._grow("text", delta.get("content") or "")
                for call in delta.get("tool_calls") or ():
                    yield from self._read_call(call)
                if choice.get("finish_reason"):
                    self.finish_reason = choice["finish_reason"]
                    yield from self._close()

    def _grow(self, kind: Kind, text: str) -> Iterator[Step]:
        if not text:
            return
        if self._open is None or self._open.kind != kind:
            yield from self._start(Block(len(self.all), kind))
        yield from self._add(text)

    def _read_call(self, call: Mapping[str, Any]) -> Iterator[Step]:
        function = call["function"]
        if self._open is None or self._open.kind != "call" or self._call != call["index"]:
            yield from self._start(
                Block(len(self.all), "call", call_id=call.get("id") or "", name=function.get("name") or "")
            )
            self._call = call["index"]
        if function.get("arguments"):
            yield from self._add(function["arguments"])

    def _start(self, block: Block) -> Iterator[Step]:
        yield from self._close()
        self._open = block
        self.all.append(block)
        yield Step("opened", block)

    def _add(self, text: str) -> Iterator[Step]:
        assert self._open is not None
        self._open.text += text
        yield Step("grown", self._open, text)

    def _close(self) -> Iterator[Step]:
        if self._open is not None:
            closed, self._open = self._open, None
            yield Step("closed", closed)
