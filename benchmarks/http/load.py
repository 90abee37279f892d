"""Streams of completions, several clients at once, and what they measure."""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import time
from dataclasses import dataclass
from typing import Any

import httpx

from benchmarks.http.servers import Server

WORDS = (
    *("the", "river", "house", "under", "morning", "light", "old", "garden", "stone", "wind", "quiet", "market"),
    *("song", "paper", "bridge", "winter", "small", "yellow", "window", "letter", "road", "sea", "boat", "child"),
)
"""Most are one token."""


@dataclass(frozen=True)
class Case:
    """A load."""

    name: str
    clients: int
    words: int
    """Of each prompt."""
    new: int
    """Tokens of each answer."""


CASES = (
    Case("1 client", 1, 24, 48),
    Case("4 clients", 4, 24, 32),
    Case("16 clients", 16, 24, 32),
    Case("prefill", 1, 512, 1),
)


@dataclass(frozen=True)
class Answer:
    """One stream."""

    begin: float
    times: list[float]
    """Seconds at which tokens came."""
    usage: dict[str, Any]

    @property
    def first(self) -> float:
        """Seconds to the first token."""
        return self.times[0] - self.begin


def measure(server: Server, case: Case, seed: int) -> dict[str, float]:
    """One turn of a server."""
    return asyncio.run(_measure(server, case, seed))


async def _measure(server: Server, case: Case, seed: int) -> dict[str, float]:
    rng = random.Random(seed)
    prompts = [" ".join(rng.choice(WORDS) for _ in range(case.words)) for _ in range(case.clients)]
    async with httpx.AsyncClient(timeout=600, limits=httpx.Limits(max_connections=64)) as client:
        begin = time.perf_counter()
        answers = await asyncio.gather(*[_stream(client, server, prompt, case.new) for prompt in prompts])
        seconds = time.perf_counter() - begin
    gaps = sorted(b - a for answer in answers for a, b in zip(answer.times, answer.times[1:], strict=False)) or [0.0]
    return {
        "output tokens/s": sum(answer.usage["completion_tokens"] for answer in answers) / seconds,
        "prompt tokens/s": sum(answer.usage["prompt_tokens"] for answer in answers) / max(a.first for a in answers),
        "first token, ms": 1e3 * statistics.median(answer.first for answer in answers),
        "between tokens p50, ms": 1e3 * gaps[len(gaps) // 2],
        "between tokens p99, ms": 1e3 * gaps[min(len(gaps) - 1, len(gaps) * 99 // 100)],
    }


async def _stream(client: httpx.AsyncClient, server: Server, prompt: str, new: int) -> Answer:
    body = {
        "model": server.model,
        "prompt": prompt,
        "max_tokens": new,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    begin, times = time.perf_counter(), list[float]()
    usage: dict[str, Any] = {}
    async with client.stream("POST", server.base + "/v1/completions", json=body) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                chunk = json.loads(line[6:])
                usage = chunk.get("usage") or usage
                if chunk.get("choices"):
                    times.append(time.perf_counter())
    return Answer(begin, times, usage)
