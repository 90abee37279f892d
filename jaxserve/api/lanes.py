"""Where requests are lowered: a lane for what takes milliseconds, another for what waits for worker processes.

A request goes down the quick lane first. Only one that needs a grammar nobody has compiled yet leaves it, and is
lowered again in the patient lane: plain requests, and known schemas, never stand behind a schema that takes seconds
to refuse.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from jaxserve.api.ports import TextServices
from jaxserve.api.schema.requests import Endpoint
from jaxserve.errors import Overloaded
from jaxserve.text.grammar.memory import NotReady

T = TypeVar("T")
PATIENT_THREADS = 8
"""They wait, they don't compute."""
MAX_PATIENT = 32
"""Requests in the patient lane; more are told to come back."""


class Lanes:
    """The two lanes of one server. Use from its event loop.

    Args:
        text: what lowering needs.
        threads: of each endpoint's quick lane: a chat template that runs up to its limit holds up no completion.
    """

    def __init__(self, text: TextServices, threads: int) -> None:
        self._text = text
        self._known = text.known()
        self._quick = {
            endpoint: ThreadPoolExecutor(threads, thread_name_prefix=f"jaxserve-{endpoint}")
            for endpoint in ("chat", "completions")
        }
        self._patient = ThreadPoolExecutor(PATIENT_THREADS, thread_name_prefix="jaxserve-compile")
        self._waiting = 0

    async def lower(self, endpoint: Endpoint, work: Callable[[TextServices], T]) -> T:
        """The result of `work`, which is called on a thread, twice if it raised `NotReady`.

        Args:
            endpoint: where the request came in.
            work: makes what the engine can run of the request.

        Raises:
            Overloaded: the patient lane is full.
            Exception: what `work` raised.
        """
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._quick[endpoint], work, self._known)
        except NotReady:
            if self._waiting >= MAX_PATIENT:
                raise Overloaded("too many requests wait for their grammars to be compiled") from None
        self._waiting += 1
        try:
            return await loop.run_in_executor(self._patient, work, self._text)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Starts nothing any more, and waits for nothing."""
        for executor in (*self._quick.values(), self._patient):
            executor.shutdown(wait=False, cancel_futures=True)
