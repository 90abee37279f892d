"""The server under load, seen from outside: OpenAI's streams, timed part by part."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import httpx

from jaxserve.bench.load import Ask, Block
from jaxserve.bench.words import Words
from jaxserve.errors import JaxserveError

Endpoint = Literal["chat", "completions"]
_PATHS: Mapping[Endpoint, str] = {"chat": "/chat/completions", "completions": "/completions"}
_SAMPLE_WORDS = (32, 160)
"""Lengths of the two prompts of which the difference tells how many tokens a word has."""


class NoServer(JaxserveError):
    """Nothing answers there, or not as OpenAI's API does."""


@dataclass
class Measured:
    """One request and its answer. Times are seconds after the start of the load."""

    planned: float | None
    """When it should have been sent; None in a closed loop."""
    sent: float
    first: float | None = None
    """When the first part with text came."""
    ended: float | None = None
    gaps: list[float] = field(default_factory=list)
    """Seconds between parts with text."""
    parts: int = 0
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    """As the server counts; None = it doesn't tell."""
    error: str | None = None

    def take(self, now: float) -> None:
        """A part with text came."""
        if self.first is None:
            self.first = now
        elif self.ended is not None:
            self.gaps.append(now - self.ended)
        self.ended = now
        self.parts += 1

    def count(self, usage: Mapping[str, Any]) -> None:
        """Takes over what the server counted."""
        self.prompt_tokens = usage.get("prompt_tokens")
        self.output_tokens = usage.get("completion_tokens")
        self.cached_tokens = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")


class Target:
    """A server, a model of it, and how it is asked.

    Args:
        url: its base URL, with or without /v1.
        model: None = the first that it lists.
        endpoint: which of OpenAI's two.
        api_key: sent as a bearer token.
        timeout: seconds between two parts of an answer, of which the first may wait in a queue.
        seed: of the words.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str | None = None,
        endpoint: Endpoint = "chat",
        api_key: str | None = None,
        timeout: float = 600,
        seed: int = 0,
    ) -> None:
        base = url.rstrip("/")
        self._http = httpx.AsyncClient(
            base_url=base if base.endswith("/v1") else f"{base}/v1",
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=httpx.Timeout(10, read=timeout),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
        )
        self.url = str(self._http.base_url)
        self.model = model or ""
        self.endpoint = endpoint
        self.ignores_eos = True
        """Whether answers have their full length: servers that don't know `ignore_eos` end where the model does."""
        self.words = Words(seed)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def look(self) -> None:
        """Finds the model, whether the server knows `ignore_eos`, and how many tokens a word has.

        Raises:
            NoServer: it can't be reached, or refuses a plain request; its own words.
        """
        try:
            self.model = self.model or (await self._get("/models"))["data"][0]["id"]
            self.ignores_eos = await self._knows_ignore_eos()
            few, many = [await self._count_tokens(words) for words in _SAMPLE_WORDS]
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise NoServer(f"{self.url}: {error or type(error).__name__}") from None
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise NoServer(f"{self.url}: this doesn't answer as OpenAI's API does: {error!r}") from None
        if few is not None and many is not None:
            per_word = (many - few) / (_SAMPLE_WORDS[1] - _SAMPLE_WORDS[0])
            self.words = Words(self.words.seed, max(0.1, per_word))

    async def ask(self, ask: Ask, start: float) -> Measured:
        """Sends a request and reads its answer; failures are part of what was measured.

        Args:
            ask: the request.
            start: `time.perf_counter()` at the start of the load.
        """
        measured = Measured(ask.at, time.perf_counter() - start)
        try:
            async for event in self._stream(self._body(self.words.prompt(ask.prompt), ask.output)):
                _read(event, measured, time.perf_counter() - start)
        except (httpx.HTTPError, NoServer, AttributeError, LookupError, TypeError, ValueError) as error:
            measured.error = str(error) or type(error).__name__
        else:
            if measured.first is None:
                measured.error = "the answer was empty"
        return measured

    def _body(self, text: str, output: int) -> dict[str, Any]:
        prompt = {"messages": [{"role": "user", "content": text}]} if self.endpoint == "chat" else {"prompt": text}
        body = {"model": self.model, "max_tokens": output, **prompt}
        return body | ({"ignore_eos": True} if self.ignores_eos else {})

    async def _stream(self, body: Mapping[str, Any]) -> AsyncIterator[Mapping[str, Any]]:
        asked = {**body, "stream": True, "stream_options": {"include_usage": True}}
        async with self._http.stream("POST", _PATHS[self.endpoint], json=asked) as answer:
            if answer.is_error:
                await answer.aread()
                raise NoServer(_refusal(answer))
            async for line in answer.aiter_lines():
                if line.startswith("data:") and (data := line[5:].strip()) != "[DONE]":
                    yield json.loads(data)

    async def _get(self, path: str) -> Any:
        answer = await self._http.get(path)
        if answer.is_error:
            raise NoServer(f"{self.url}{path}: {_refusal(answer)}")
        return answer.json()

    async def _knows_ignore_eos(self) -> bool:
        answer = await self._http.post(_PATHS[self.endpoint], json=self._body("Hello", 1))
        return answer.status_code not in (400, 422)

    async def _count_tokens(self, words: int) -> int | None:
        text = Words(self.words.seed).prompt([Block("sample", words)])
        answer = await self._http.post(_PATHS[self.endpoint], json=self._body(text, 1))
        if answer.is_error:
            raise NoServer(f"{self.url}: {_refusal(answer)}")
        count = (answer.json().get("usage") or {}).get("prompt_tokens")
        return count if isinstance(count, int) else None


def _read(event: Mapping[str, Any], measured: Measured, now: float) -> None:
    if "error" in event:
        raise NoServer(str((event["error"] or {}).get("message", "the stream failed")))
    if any(map(_says_something, event.get("choices") or ())):
        measured.take(now)
    if event.get("usage"):
        measured.count(event["usage"])


def _says_something(choice: Mapping[str, Any]) -> bool:
    delta = choice.get("delta") or {}
    parts = (choice.get("text"), delta.get("content"), delta.get("reasoning_content"), delta.get("reasoning"))
    return any(parts) or bool(delta.get("tool_calls"))


def _refusal(answer: httpx.Response) -> str:
    try:
        message = answer.json()["error"]["message"]
    except (ValueError, LookupError, TypeError):
        message = answer.text[:200]
    return f"{answer.status_code}: {message}"
