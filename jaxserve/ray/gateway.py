"""What Ray's HTTP proxy talks to: takes a request whole, hands it to a replica, passes the answer on as it comes."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from typing import Any

from ray.exceptions import RayError
from ray.serve.handle import DeploymentHandle
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from jaxserve.api.auth import presented_key
from jaxserve.ray.affinity import affinity
from jaxserve.ray.replica import Call, Head

_log = logging.getLogger(__name__)
_ATTEMPTS = 3
_LOST: dict[str, Any] = {
    "error": {
        "message": "the replica that answered is gone",
        "type": "service_unavailable_error",
        "param": None,
        "code": "replica_lost",
    }
}


class Gateway:
    """Stateless; a request whose replica is lost before it has answered anything goes to another one."""

    def __init__(self, replicas: DeploymentHandle) -> None:
        self._replicas = replicas.options(stream=True)

    async def __call__(self, request: Request) -> Response:
        """Answers one request of Ray's proxy."""
        body = await request.body()
        key = affinity(body, presented_key(request.headers) or b"")
        call = _as_value(request, body)
        for _ in range(_ATTEMPTS):
            answer = self._replicas.handle.remote(key, call)
            try:
                head = await anext(answer)
            except RayError as error:
                _log.warning("a replica was lost before it answered: %s", type(error).__name__)
                continue
            return _passed_on(head, answer)
        return JSONResponse(_LOST, 503, headers={"retry-after": "5"})


def _as_value(request: Request, body: bytes) -> Call:
    client = None if request.client is None else (request.client.host, request.client.port)
    headers = tuple(request.headers.raw)
    return Call(request.method, request.url.path, request.scope["query_string"], headers, client, body)


def _passed_on(head: Head, answer: Any) -> Response:
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
    events = headers.get("content-type", "").startswith("text/event-stream")
    response = StreamingResponse(_pieces(answer, events=events), head.status)
    response.raw_headers = list(head.headers)
    return response


async def _pieces(answer: Any, *, events: bool) -> AsyncIterator[bytes]:
    """The body; a stream whose replica is lost ends with an error event, any other body breaks off."""
    try:
        async for piece in answer:
            yield piece
    except RayError:
        if not events:
            raise
        yield b"data: " + json.dumps(_LOST).encode() + b"\n\n"
    finally:
        answer.cancel()
