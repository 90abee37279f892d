"""Options of `jaxserve bench`: what is asked of a server, when, and where the results go."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jaxserve.options.declaration import Options, option

_SERVER, _LOAD, _TIMES, _RESULTS = "The server", "What is asked", "When it is asked", "Results"


@dataclass(frozen=True)
class BenchOptions(Options):
    """What is chosen of a load."""

    model: str | None = option(None, "Which of its models.", _SERVER, default_text="the first that it lists")
    endpoint: Literal["chat", "completions"] = option("chat", "Which of OpenAI's two.", _SERVER)
    timeout: float = option(600.0, "Seconds to wait for the next part of an answer.", _SERVER, least=0.1)
    requests: int | None = option(None, "Number of requests.", _LOAD, least=1, default_text="100, or the whole trace")
    input: int = option(256, "Tokens of a prompt, beside its prefix.", _LOAD, least=1)
    output: int = option(64, "Tokens of an answer.", _LOAD, least=1)
    spread: float = option(0.0, "Lengths are drawn from this share below to this share above.", _LOAD, least=0, most=1)
    prefix: int = option(0, "Tokens that prompts begin with in common.", _LOAD, least=0)
    prefixes: int = option(1, "How many such beginnings there are.", _LOAD, least=1)
    trace: Path | None = option(
        None, "A .jsonl or .csv trace, for lengths, common beginnings and times.", _LOAD, default_text="none"
    )
    scale: float = option(1.0, "Multiplies the lengths in the trace.", _LOAD, least=0.0001)
    max_input: int | None = option(None, "Cuts longer prompts.", _LOAD, least=1, default_text="none are cut")
    max_output: int | None = option(None, "Cuts longer answers.", _LOAD, least=1, default_text="none are cut")
    seed: int = option(0, "Same seed, same prompts and arrivals.", _LOAD)
    clients: int | None = option(
        None,
        "A closed loop: so many clients, each asking again when it has its answer.",
        _TIMES,
        least=1,
        default_text="8, where neither a rate nor a trace says when",
    )
    rate: float | None = option(
        None, "Poisson arrivals, so many a second.", _TIMES, least=0.000001, default_text="none"
    )
    speed: float = option(1.0, "How many times as fast the trace's requests come.", _TIMES, least=0.000001)
    json: Path | None = option(None, "File for all that was measured; - prints it.", _RESULTS, default_text="none")
    plot: Path | None = option(
        None, "File for pictures: .svg, .png or .pdf (needs the extra `plots`).", _RESULTS, default_text="none"
    )
