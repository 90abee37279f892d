"""The law, for the whole server: every request alone and under load, and the answers that differ (there are none).

Alone: one request at a time, whole. Under load: many at once in another order, every second one streamed, with so few
pages that sequences lose theirs, begin again and find what is left of their prompts in the cache.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass

import httpx

from benchmarks.soak.answers import Answer, streamed, whole
from benchmarks.soak.bodies import asked
from benchmarks.soak.server import Watched, serving

AT_ONCE = 48
PAGE_BYTES = {"float32": 40 << 10, "bfloat16": 20 << 10}
"""Of the bundled model: 16 positions in 5 layers of 2 heads of 32 dimensions, keys and values."""
PAGES = 26
"""For 16 sequences of up to 11 pages each; one context, 24 pages, must fit."""
SIZES = ("--max-num-seqs", "16", "--max-model-len", "384", "--max-num-batched-tokens", "64", "--speculate", "ngram")


@dataclass(frozen=True)
class Compared:
    """What came of it."""

    dtype: str
    requests: int
    choices: int
    tokens: int
    differing: tuple[int, ...]
    """Numbers of requests whose answers are not the same."""
    preemptions: int
    cached_prompt_tokens: int
    accepted_drafts: int
    compilations: int
    """After the start: none may happen."""
    seconds: float

    def line(self) -> str:
        """All of it in words."""
        return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in asdict(self).items())


def flags(dtype: str) -> tuple[str, ...]:
    """Of a server whose pages are few."""
    return (*SIZES, "--dtype", dtype, "--kv-memory", f"{PAGES * PAGE_BYTES[dtype]}")


def compare(server: Watched, dtype: str, count: int, *, first: int = 0) -> Compared:
    """Requests `first` to `first + count`, alone and together."""
    numbers, begun = range(first, first + count), time.perf_counter()
    before = server.metrics()
    alone = dict(zip(numbers, asyncio.run(_answers(server.url, numbers, 1)), strict=True))
    shuffled = random.Random(count).sample(numbers, count)
    together = dict(zip(shuffled, asyncio.run(_answers(server.url, shuffled, AT_ONCE)), strict=True))
    server.wait_idle()
    after = server.metrics()

    def grown(name: str) -> int:
        return int(after[f"jaxserve_engine_{name}_total"] - before[f"jaxserve_engine_{name}_total"])

    choices = [choice for answer in alone.values() for choice in answer]
    return Compared(
        dtype=dtype,
        requests=count,
        choices=len(choices),
        tokens=sum(len(choice.get("token_ids", ())) for choice in choices),
        differing=tuple(number for number in numbers if alone[number] != together[number]),
        preemptions=grown("preemptions"),
        cached_prompt_tokens=grown("cached_prompt_tokens"),
        accepted_drafts=grown("accepted_drafts"),
        compilations=grown("compilations"),
        seconds=round(time.perf_counter() - begun, 1),
    )


async def _answers(url: str, numbers: Sequence[int], at_once: int) -> list[Answer]:
    """Answers in the order of the numbers; one at a time whole, several at once every second one streamed."""
    gate = asyncio.Semaphore(at_once)
    limits = httpx.Limits(max_connections=at_once, max_keepalive_connections=at_once)
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=limits) as client:

        async def one(number: int) -> Answer:
            ask: Callable[..., Awaitable[Answer]] = streamed if at_once > 1 and number % 2 else whole
            async with gate:
                return await ask(client, asked(number))

        return await asyncio.gather(*map(one, numbers))


def measured(dtype: str, count: int) -> Compared:
    """The same with a server of its own."""
    with serving(*flags(dtype)) as server:
        return compare(server, dtype, count)
