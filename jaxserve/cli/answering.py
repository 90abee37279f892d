"""Who answers in the terminal: a server by its URL, or a model in this process."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx

from jaxserve.errors import JaxserveError

if TYPE_CHECKING:
    from jaxserve.llm import LLM

_PATIENCE = httpx.Timeout(10, read=600)
"""Seconds to connect; and between two parts of an answer, of which the first may wait in a queue."""


class Refused(JaxserveError):
    """What the server answered instead; or that there is none."""


class RemoteModel:
    """The first model of an OpenAI-compatible server.

    Raises:
        Refused: the server can't be reached, or doesn't answer as one.
    """

    def __init__(self, url: str, api_key: str | None = None) -> None:
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        base = url.rstrip("/")
        self._http = httpx.Client(
            base_url=base if base.endswith("/v1") else f"{base}/v1", headers=headers, timeout=_PATIENCE
        )
        with _told(url):
            self.name: str = _checked(self._http.get("/models")).json()["data"][0]["id"]

    def stream(self, body: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """As `talk.Model`."""
        asked = {"model": self.name, "stream": True, **body}
        with _told(str(self._http.base_url)), self._http.stream("POST", "/chat/completions", json=asked) as answer:
            if answer.is_error:
                answer.read()
            for line in _checked(answer).iter_lines():
                data = line.removeprefix("data: ")
                if data == line or data == "[DONE]":
                    continue
                chunk = json.loads(data)
                if "error" in chunk:
                    raise Refused(chunk["error"]["message"])
                yield from chunk["choices"][:1]


class LocalModel:
    """A model in this process."""

    def __init__(self, llm: LLM) -> None:
        self._llm = llm
        self.name = llm.config.model_dir.resolve().name

    def stream(self, body: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """As `talk.Model`."""
        fields = dict(body)
        for piece in self._llm.stream_chat(fields.pop("messages"), **fields):
            delta = {"content": piece.content, "reasoning_content": piece.reasoning, "tool_calls": piece.tool_calls}
            yield {"delta": delta, "finish_reason": piece.finish_reason}


def _checked(answer: httpx.Response) -> httpx.Response:
    if not answer.is_error:
        return answer
    try:
        message = answer.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = f"the server answered {answer.status_code}"
    raise Refused(message)


@contextmanager
def _told(url: str) -> Iterator[None]:
    """Failures of the connection in one sentence."""
    try:
        yield
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Refused(f"{url} can't be reached: {error}") from None
    except (LookupError, ValueError):
        raise Refused(f"{url} doesn't answer as a model server") from None
