"""Loads of completions, several clients at once, and what they measure: those of `jaxserve bench`."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from benchmarks.http.servers import Server
from jaxserve.bench import Report, Synthetic, Target, run, synthetic


@dataclass(frozen=True)
class Case:
    """A load: each client asks once."""

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


def measure(server: Server, case: Case, seed: int) -> dict[str, float]:
    """One turn of a server.

    Raises:
        RuntimeError: a request failed.
    """
    report = asyncio.run(_run(server, case, seed))
    if report.errors:
        raise RuntimeError(f"{server.name}: {report.errors}")
    spreads = {spread.name: spread for spread in report.spreads()}
    first, gaps = spreads["first_token"], spreads.get("between_parts")
    return {
        "output tokens/s": report.rates()["output_tokens"],
        "prompt tokens/s": sum(each.prompt_tokens or 0 for each in report.done) / max(first.values),
        "first token, ms": 1e3 * first.percentile(50),
        "between tokens p50, ms": 1e3 * gaps.percentile(50) if gaps else 0.0,
        "between tokens p99, ms": 1e3 * gaps.percentile(99) if gaps else 0.0,
    }


async def _run(server: Server, case: Case, seed: int) -> Report:
    asks = synthetic(Synthetic(requests=case.clients, input=case.words, output=case.new), seed)
    async with Target(server.base, model=server.model, endpoint="completions", seed=seed) as target:
        return await run(target, asks, clients=case.clients)
