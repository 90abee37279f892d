"""Bodies of a few kilobytes that would each cost minutes: neither other requests nor the end of the process wait."""

from __future__ import annotations

import threading
import time
from typing import Any

import httpx
import pytest

SMALL = ("--max-num-seqs", "2", "--max-model-len", "512", "--max-num-batched-tokens", "16")


def intersected(number: int) -> dict[str, Any]:
    patterns = [{"type": "string", "pattern": f".*{number}x{index}.*"} for index in range(60)]
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": {"allOf": patterns}}}


BOMBS = {
    "response_format": lambda number: {"response_format": intersected(number)},
    "forced tool": lambda number: {
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "f",
                    "strict": True,
                    "parameters": {
                        "type": "object",  # few and short: the prompt shows them, and must fit the context
                        "properties": {"a": {"allOf": [{"pattern": f"{letter}{number}"} for letter in "abcdefghijkl"]}},
                    },
                },
            }
        ],
        "tool_choice": "required",
    },
}


class Sent(threading.Thread):
    """A request under way."""

    def __init__(self, url: str, body: dict[str, Any]) -> None:
        super().__init__()
        self._url, self._body = url, body
        self.status: int | None = None
        self.start()

    def run(self) -> None:
        try:
            self.status = httpx.post(self._url, json=self._body, timeout=60).status_code
        except httpx.TransportError:
            self.status = 0


def bombs(url: str, kind: str, first: int) -> list[Sent]:
    messages = [{"role": "user", "content": "a"}]
    bodies = [{"model": "story", "messages": messages, **BOMBS[kind](first + index)} for index in range(2)]
    return [Sent(f"{url}/v1/chat/completions", body) for body in bodies]


@pytest.mark.parametrize("kind", BOMBS)
def test_requests_in_flight_do_not_hold_up_others(bundled_server, kind):
    url, known = f"{bundled_server.url}/v1/completions", {"response_format": {"type": "json_object"}}
    plain = {"model": "story", "prompt": "Once", "max_tokens": 4}
    httpx.post(url, json=plain | known, timeout=60)
    sent = bombs(bundled_server.url, kind, 1)
    time.sleep(0.3)
    assert httpx.post(url, json=plain, timeout=15).status_code == 200
    for body in (plain | known, plain | {"response_format": {"type": "grammar", "grammar": 'root ::= "new"'}}):
        assert httpx.post(url, json=body, timeout=60).status_code == 200
    for request in sent:
        request.join()
    assert [request.status for request in sent] == [422, 422]
    begun = time.monotonic()
    again = bombs(bundled_server.url, kind, 1)
    for request in again:
        request.join()
    assert [request.status for request in again] == [422, 422]
    assert time.monotonic() - begun < 1.5, "a refusal is remembered"


def test_sigterm_ends_the_process_whatever_is_being_compiled(serve):
    server = serve(None, *SMALL)
    sent = bombs(server.url, "response_format", 0)
    time.sleep(0.5)
    begun = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - begun < 15
    for request in sent:
        request.join()
        assert request.status in (0, 422, 503)
