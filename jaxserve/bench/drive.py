"""Sends the load: each request at its time, or as soon as one of N clients is free."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

from jaxserve.bench.load import Ask
from jaxserve.bench.report import Report
from jaxserve.bench.target import Measured, Target

Send = Callable[[Ask], Coroutine[Any, Any, None]]


async def run(
    target: Target,
    asks: Sequence[Ask],
    *,
    clients: int | None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Sends all requests and waits for their answers; when cancelled, reports what came so far.

    Args:
        target: where to, looked at before.
        asks: what; in the order of their times, if they have some.
        clients: so many in a closed loop, each sending its next request when it has its answer; None = at their times.
        progress: gets (answered, of how many).
    """
    start, came = time.perf_counter(), list[Measured]()

    async def send(ask: Ask) -> None:
        came.append(await target.ask(ask, start))
        progress(len(came), len(asks))

    with suppress(asyncio.CancelledError):
        await (_open(asks, start, send) if clients is None else _closed(asks, clients, send))
    seconds = time.perf_counter() - start
    return Report(target.url, target.model, clients, tuple(came), planned=len(asks), seconds=seconds)


async def _open(asks: Sequence[Ask], start: float, send: Send) -> None:
    async with asyncio.TaskGroup() as group:
        for ask in asks:
            await asyncio.sleep(max(0.0, start + (ask.at or 0.0) - time.perf_counter()))
            group.create_task(send(ask))


async def _closed(asks: Sequence[Ask], clients: int, send: Send) -> None:
    left = iter(asks)

    async def client() -> None:
        for ask in left:
            await send(ask)

    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(client())
