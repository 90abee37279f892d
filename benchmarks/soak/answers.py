"""Answers over HTTP, whole or streamed, as the same value: the choices with their tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import httpx

from benchmarks.soak.bodies import Asked

Answer = list[dict[str, Any]]
"""Choices: text, tokens, log-probabilities, finish reason."""
_JOINED = ("text", "content", "reasoning_content")
_COMPARED = ("text", "message", "logprobs", "token_ids", "finish_reason")


class Refused(Exception):
    """An answer that isn't one: the status and what it says."""


async def whole(client: httpx.AsyncClient, asked: Asked, **more: Any) -> Answer:
    """An answer in one piece.

    Raises:
        Refused: it is an error.
    """
    answer = await client.post(asked.path, json=asked.body | more)
    if answer.status_code != httpx.codes.OK:
        raise Refused(f"{answer.status_code} {answer.text[:500]} {json.dumps(asked.body)}")
    return [_kept(choice) for choice in answer.json()["choices"]]


async def streamed(client: httpx.AsyncClient, asked: Asked, **more: Any) -> Answer:
    """The same answer out of its events.

    Raises:
        Refused: it is an error, or an error came in its place.
    """
    choices: dict[int, dict[str, Any]] = {}
    async with client.stream("POST", asked.path, json=asked.body | more | {"stream": True}) as answer:
        if answer.status_code != httpx.codes.OK:
            raise Refused(f"{answer.status_code} {(await answer.aread())[:500]!r}")
        async for line in answer.aiter_lines():
            if line.startswith("data: {"):
                _take(choices, json.loads(line.removeprefix("data: ")))
    return [_kept(choices[index]) for index in sorted(choices)]


def _take(choices: dict[int, dict[str, Any]], event: Mapping[str, Any]) -> None:
    if "error" in event:
        raise Refused(json.dumps(event))
    for piece in event["choices"]:
        renamed = {("message" if key == "delta" else key): value for key, value in piece.items()}
        _fold(choices.setdefault(piece["index"], {}), renamed)


def _fold(into: dict[str, Any], piece: Mapping[str, Any]) -> None:
    """Adds an event's part of a choice: lists and texts grow, everything else is replaced."""
    for key, value in piece.items():
        if isinstance(value, list):
            into.setdefault(key, []).extend(value)
        elif isinstance(value, dict):
            _fold(into.setdefault(key, {}), value)
        elif key in _JOINED and value is not None:
            into[key] = into.get(key, "") + value
        elif value is not None:
            into[key] = value


def _kept(choice: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: choice[key] for key in _COMPARED if choice.get(key)}
    if "message" in kept:
        kept["message"] = {key: text for key in _JOINED if (text := kept["message"].get(key))}
    return kept
