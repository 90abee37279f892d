"""What a person may paste into another terminal once a server is up."""

from __future__ import annotations

import json
import shlex
from typing import Any


def base_url(host: str, port: int) -> str:
    """Where a client on this machine reaches a server that listens on `host`."""
    here = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)
    return f"http://{f'[{here}]' if ':' in here else here}:{port}/v1"


def curl_lines(base: str, model: str, *, chats: bool, keyed: bool) -> list[str]:
    """A question, the same streamed, and a text to go on with; of a model that doesn't chat, texts alone."""
    text: dict[str, Any] = {"model": model, "prompt": "Once upon a time", "max_tokens": 32}
    question: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
    }
    scored = {**text, "max_tokens": 1, "logprobs": 3}
    main, last = (question, text) if chats else (text, scored)
    path = "chat/completions" if chats else "completions"
    bodies: list[tuple[str, dict[str, Any]]] = [(path, main), (path, {**main, "stream": True}), ("completions", last)]
    return [_line(f"{base}/{where}", body, keyed=keyed) for where, body in bodies]


def _line(url: str, body: dict[str, Any], *, keyed: bool) -> str:
    # Double quotes: the shell puts the key in.
    key = ' -H "Authorization: Bearer $JAXSERVE_API_KEY"' if keyed else ""
    quiet = "-sN" if body.get("stream") else "-s"
    return f"curl {quiet} {url} -H 'Content-Type: application/json'{key} -d {shlex.quote(json.dumps(body))}"
