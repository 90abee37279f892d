"""Log-probabilities in the two formats of the contract."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

from jaxserve.api.ports import Tokenizer
from jaxserve.api.schema.responses import AnyLogProbs, LogProbs, NewLogProbs, NewLogProbsContent
from jaxserve.api.wishes import View
from jaxserve.engine.requests import TokenLogprob

LOWEST = -9999.0
"""Stands for minus infinity, which JSON can't say (a token that a bias or the truncations ruled out)."""


@dataclass(frozen=True)
class Entry:
    """One token of a response, with everything that may be shown of it."""

    token: int
    offset: int
    """Where it starts in the returned text."""
    score: TokenLogprob | None = None
    """None for the first token of a prompt, which nothing predicts."""
    activation: bytes | None = None
    routing: bytes | None = None
    shown: str | None = None
    """What it wrote in the returned text; None: what it spells by itself."""


def render(entries: Sequence[Entry], view: View, tokenizer: Tokenizer) -> AnyLogProbs | None:
    """The `logprobs` object of some tokens, in the format that was asked for."""
    if view.logprobs is None or not entries:
        return None
    if view.logprobs == "legacy":
        return legacy(entries, view.top_logprobs, tokenizer)
    return new(entries, view.top_logprobs, tokenizer)


def legacy(entries: Sequence[Entry], alternatives: int, tokenizer: Tokenizer) -> LogProbs:
    """Parallel arrays. The alternatives of a position always hold its own token too."""
    return {
        "tokens": [_text(entry, entry.token, tokenizer) for entry in entries],
        "token_logprobs": [None if entry.score is None else _finite(entry.score.logprob) for entry in entries],
        "top_logprobs": [_legacy_top(entry, alternatives, tokenizer) for entry in entries],
        "text_offset": [entry.offset for entry in entries],
        "token_ids": [entry.token for entry in entries],
    }


def _legacy_top(entry: Entry, alternatives: int, tokenizer: Tokenizer) -> dict[str, float]:
    if entry.score is None:
        return {}
    top: dict[str, float] = {}
    for token, logprob in entry.score.top[:alternatives]:
        top.setdefault(_text(entry, token, tokenizer), _finite(logprob))
    if entry.token not in [token for token, _ in entry.score.top[:alternatives]]:
        top.setdefault(_text(entry, entry.token, tokenizer), _finite(entry.score.logprob))
    return top


def new(entries: Sequence[Entry], alternatives: int, tokenizer: Tokenizer) -> NewLogProbs:
    """OpenAI's newer format with the documented additions."""
    return {"content": [_content(entry, alternatives, tokenizer) for entry in entries]}


def _content(entry: Entry, alternatives: int, tokenizer: Tokenizer) -> NewLogProbsContent:
    score = entry.score
    top = score.top[:alternatives] if score is not None else ()
    return {
        "token": _text(entry, entry.token, tokenizer),
        "logprob": 0.0 if score is None else _finite(score.logprob),
        "sampling_logprob": None if score is None else _finite_or_none(score.sampling_logprob),
        "bytes": list(tokenizer.token_bytes(entry.token) if entry.shown is None else entry.shown.encode()),
        "top_logprobs": [
            {
                "token": tokenizer.token_text(token),
                "logprob": _finite(logprob),
                "token_id": token,
                "bytes": list(tokenizer.token_bytes(token)),
            }
            for token, logprob in top
        ],
        "token_id": entry.token,
        "text_offset": entry.offset,
        "last_activation": _base64(entry.activation),
        "routing_matrix": _base64(entry.routing),
    }


def _text(entry: Entry, token: int, tokenizer: Tokenizer) -> str:
    """A token at the entry's position: its own one as it is shown, others as they are spelled."""
    if token == entry.token and entry.shown is not None:
        return entry.shown
    return tokenizer.token_text(token)


def _finite(logprob: float) -> float:
    return logprob if logprob > LOWEST else LOWEST


def _finite_or_none(logprob: float | None) -> float | None:
    return None if logprob is None else _finite(logprob)


def _base64(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode("ascii")
