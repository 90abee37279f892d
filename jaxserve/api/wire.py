"""How the chunks of a job are written on the wire: as the two endpoints of the contract do, or in another dialect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from jaxserve.api import sse
from jaxserve.api.join import fold
from jaxserve.api.lift import Chunk
from jaxserve.api.schema.requests import Endpoint


class Wire(Protocol):
    """The form of one answer. Has state where its events depend on those before."""

    def whole(self, chunks: Sequence[Chunk]) -> bytes:
        """The answer that isn't streamed, made of all its chunks."""

    def events(self, chunks: Sequence[Chunk]) -> bytes:
        """Some chunks as events."""

    def end(self) -> bytes:
        """What comes behind the last chunk."""

    def failure(self, body: Mapping[str, Any]) -> bytes:
        """The event that ends a stream whose request failed after its first byte."""


class OwnWire:
    """The contract's form."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def whole(self, chunks: Sequence[Chunk]) -> bytes:
        """See `Wire`."""
        return sse.encode_answer(fold(chunks, self._endpoint))

    def events(self, chunks: Sequence[Chunk]) -> bytes:
        """See `Wire`."""
        return sse.data(chunks)

    def end(self) -> bytes:
        """See `Wire`."""
        return sse.DONE

    def failure(self, body: Mapping[str, Any]) -> bytes:
        """See `Wire`."""
        return sse.error(body)
