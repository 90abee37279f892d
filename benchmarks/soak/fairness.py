"""What one client's load does to another's: the wait for a first token, and the gaps between later ones."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

import httpx

from benchmarks.soak.server import Watched

MANY = 64
SIZES = ("--max-num-seqs", "8", "--max-model-len", "1024")
_WORDS = "the little cat and the red ball went to the river to play "


@dataclass(frozen=True)
class Fair:
    """Milliseconds."""

    first_alone: float
    first_beside: float
    """The lone client's first token while another's 64 requests run and wait."""
    all_done: float
    """Until the last of the 64 had its answer."""
    gap_median: float
    gap_p99: float
    """Between tokens of a stream while others' long prompts are read without end."""

    def line(self) -> str:
        """All of it in words."""
        return (
            f"first token alone {self.first_alone:.0f} ms, beside {MANY} requests of another key "
            f"{self.first_beside:.0f} ms (these took {self.all_done:.0f} ms); between tokens under long prefills: "
            f"median {self.gap_median:.1f} ms, p99 {self.gap_p99:.1f} ms ({self.gap_p99 / self.gap_median:.1f} times)"
        )


def fairness(server: Watched) -> Fair:
    """Both measurements, one after the other."""
    return asyncio.run(_fairness(server.url))


async def _fairness(url: str) -> Fair:
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=httpx.Limits(max_connections=MANY + 8)) as client:
        await _first(client, "warm")
        alone = statistics.median([await _first(client, f"alone {turn}") for turn in range(5)])
        begun = time.perf_counter()
        crowd = [asyncio.create_task(_whole(client, "many", f"{index} tales", 64)) for index in range(MANY)]
        await asyncio.sleep(0.3)
        beside = await _first(client, "lone")
        await asyncio.gather(*crowd)
        done = time.perf_counter() - begun
        gaps = await _gaps_under_prefills(client)
    cuts = statistics.quantiles(gaps, n=100)
    return Fair(alone * 1e3, beside * 1e3, done * 1e3, statistics.median(gaps) * 1e3, cuts[98] * 1e3)


async def _gaps_under_prefills(client: httpx.AsyncClient) -> list[float]:
    over = asyncio.Event()

    async def read_prompts(reader: int) -> None:
        turn = 0
        while not over.is_set():
            turn += 1
            await _whole(client, f"reader {reader}", f"{reader} {turn} {_WORDS * 40}", 1)

    readers = [asyncio.create_task(read_prompts(reader)) for reader in range(2)]
    await asyncio.sleep(0.2)
    times = [moment async for moment in _events(client, "stream", 400)]
    over.set()
    await asyncio.gather(*readers)
    return [after - before for before, after in itertools.pairwise(times)]


async def _first(client: httpx.AsyncClient, key: str) -> float:
    begun = time.perf_counter()
    async with aclosing(_events(client, key, 4)) as events:
        async for moment in events:
            return moment - begun
    raise RuntimeError("no token came")


async def _events(client: httpx.AsyncClient, key: str, tokens: int) -> AsyncGenerator[float, None]:
    """When each event with a token came."""
    body = {"model": "story", "prompt": "Once", "max_tokens": tokens, "ignore_eos": True, "stream": True}
    async with client.stream("POST", "/v1/completions", json=body, headers=_key(key)) as answer:
        answer.raise_for_status()
        async for line in answer.aiter_lines():
            if line.startswith("data: {"):
                yield time.perf_counter()


async def _whole(client: httpx.AsyncClient, key: str, prompt: str, tokens: int) -> None:
    body = {"model": "story", "prompt": prompt, "max_tokens": tokens, "ignore_eos": True}
    (await client.post("/v1/completions", json=body, headers=_key(key))).raise_for_status()


def _key(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {name.replace(' ', '-')}"}
