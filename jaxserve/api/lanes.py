"""Where requests are lowered: a lane for what takes milliseconds, another for what waits for worker processes.

A request goes down the quick lane first. Only one that needs a grammar nobody has compiled yet leaves it, and is
lowered again in the patient lane: plain requests, and known schemas, never stand behind a schema that takes seconds
to refuse. Nor behind images on the network: these are fetched by the event loop, and the request is lowered again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

from jaxserve.api.ports import TextServices
from jaxserve.api.request_images import NotFetched, RequestImages
from jaxserve.api.schema.requests import Endpoint
from jaxserve.errors import Overloaded
from jaxserve.images.fetch import ImageFetcher, Unfetchable
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
        fetcher: of images; None = they stand in the requests themselves.
    """

    def __init__(self, text: TextServices, threads: int, fetcher: ImageFetcher | None = None) -> None:
        self._text, self._fetcher = text, fetcher
        self._known = text.known()
        self._quick = {
            endpoint: ThreadPoolExecutor(threads, thread_name_prefix=f"jaxserve-{endpoint}")
            for endpoint in ("chat", "completions")
        }
        self._patient = ThreadPoolExecutor(PATIENT_THREADS, thread_name_prefix="jaxserve-compile")
        self._waiting = 0

    async def lower(
        self, endpoint: Endpoint, work: Callable[[TextServices], T], hold: Callable[[int], None] = lambda size: None
    ) -> T:
        """The result of `work`, which is called on a thread, and again if it raised `NotFetched` or `NotReady`.

        Args:
            endpoint: where the request came in.
            work: makes what the engine can run of the request.
            hold: told of the size of what is fetched for it.

        Raises:
            Overloaded: the patient lane is full.
            Exception: what `work` raised.
        """
        loop, seen = asyncio.get_running_loop(), RequestImages(fetches=self._fetcher is not None)
        try:
            return await self._quickly(endpoint, work, seen, hold)
        except NotReady:
            if self._waiting >= MAX_PATIENT:
                raise Overloaded("too many requests wait for their grammars to be compiled") from None
        self._waiting += 1
        try:
            return await loop.run_in_executor(self._patient, work, replace(self._text, seen=seen))
        finally:
            self._waiting -= 1

    async def _quickly(
        self, endpoint: Endpoint, work: Callable[[TextServices], T], seen: RequestImages, hold: Callable[[int], None]
    ) -> T:
        """In the quick lane, a second time where images had to be fetched."""
        loop, text = asyncio.get_running_loop(), replace(self._known, seen=seen)
        try:
            return await loop.run_in_executor(self._quick[endpoint], work, text)
        except NotFetched as needed:
            urls = needed.urls
        try:
            async with asyncio.TaskGroup() as group:
                for url in urls:
                    group.create_task(self._fetch(url, seen, hold))
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return await loop.run_in_executor(self._quick[endpoint], work, text)

    async def _fetch(self, url: str, seen: RequestImages, hold: Callable[[int], None]) -> None:
        if self._fetcher is None:
            raise RuntimeError("nothing is fetched here")
        try:
            seen.fetched[url] = await self._fetcher.fetch(url, hold)
        except Unfetchable as error:
            seen.fetched[url] = str(error)

    def close(self) -> None:
        """Starts nothing any more, and waits for nothing."""
        for executor in (*self._quick.values(), self._patient):
            executor.shutdown(wait=False, cancel_futures=True)
        if self._fetcher is not None:
            self._fetcher.close()
