"""A replica: the engine and its HTTP application in one of Ray's processes; requests come as values, not by a port."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from jaxserve.errors import EngineStopped, ModelLoadError
from jaxserve.options import ApiOptions, EngineOptions, build, declared

_log = logging.getLogger(__name__)
Header = tuple[bytes, bytes]
_KNOWN = {each.name for each in declared(EngineOptions, ApiOptions)} | {"served_model_names"}


@dataclass(frozen=True)
class Call:
    """An HTTP request as a value."""

    method: str
    path: str
    query: bytes
    headers: tuple[Header, ...]
    client: tuple[str, int] | None
    body: bytes


@dataclass(frozen=True)
class Head:
    """The beginning of an answer; its body follows in pieces."""

    status: int
    headers: tuple[Header, ...]


def check_options(options: Mapping[str, Any]) -> None:
    """Refuses options before Ray starts anything.

    Raises:
        ModelLoadError: names the option.
    """
    for name in options:
        if name not in _KNOWN:
            near = get_close_matches(name, _KNOWN, n=1)
            raise ModelLoadError(f"there is no option {name!r}" + (f"; did you mean {near[0]}?" if near else ""))
    build(ApiOptions, options)


class Replica:
    """One engine.

    Args:
        model: as MODEL of `serve`.
        options: of `app`.

    Raises:
        ModelLoadError: the model can't be served.
    """

    def __init__(self, model: str, options: Mapping[str, Any]) -> None:
        from jaxserve.api.app import create_app
        from jaxserve.api.generation_config import sampling_defaults
        from jaxserve.api.settings import Settings
        from jaxserve.described import describe
        from jaxserve.prepared import fit
        from jaxserve.resolve import resolve_model
        from jaxserve.resolve.chat_model import cache_directory
        from jaxserve.services import chat_format, model_info, text_services
        from jaxserve.startup import start, use_compilation_cache

        use_compilation_cache(cache_directory() / "xla")
        engine = build(EngineOptions, options, model_dir=resolve_model(model))
        closing = ExitStack()
        described = describe(engine)
        bound = chat_format(described, closing)
        started = start(fit(described))
        text = text_services(described, bound, closing, started.images)
        names = tuple(options.get("served_model_names", ())) or (engine.model_dir.resolve().name,)
        info = model_info(started, names, sampling_defaults(engine.model_dir))
        sizes: dict[str, Any] = {"max_waiting": started.config.max_waiting, "slots": started.config.max_num_seqs}
        self._engine = started.engine
        self._name = secrets.token_hex(4).encode()
        self._app = create_app(started.engine, text, Settings(**vars(build(ApiOptions, options)), model=info, **sizes))

    def check_health(self) -> None:
        """Ray's question; a replica whose engine has died is replaced.

        Raises:
            EngineStopped: it has died.
        """
        if not self._engine.healthy:
            raise EngineStopped("the engine has died")

    async def handle(self, affinity: str, call: Call) -> AsyncIterator[Head | bytes]:
        """Answers a request: a head, then pieces of the body. Left early, it is aborted as if the client had gone.

        Args:
            affinity: for the router.
            call: the request.
        """
        pieces: asyncio.Queue[Head | bytes | None] = asyncio.Queue(maxsize=16)
        answering = asyncio.create_task(self._answer(call, pieces))
        try:
            while (piece := await pieces.get()) is not None:
                yield piece
        finally:
            answering.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await answering

    async def _answer(self, call: Call, pieces: asyncio.Queue[Head | bytes | None]) -> None:
        told = False

        async def receive() -> dict[str, Any]:
            nonlocal told
            if told:
                await asyncio.Event().wait()  # who has left cancels this task
            told = True
            return {"type": "http.request", "body": call.body, "more_body": False}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                await pieces.put(Head(message["status"], (*message.get("headers", ()), (b"x-replica", self._name))))
            elif message.get("body"):
                await pieces.put(bytes(message["body"]))

        try:
            await self._app(_scope(call), receive, send)
        except Exception:  # noqa: BLE001 - the application has answered it, and whoever waits must hear of the end
            _log.exception("a request failed")
        await pieces.put(None)


def _scope(call: Call) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "http",
        "method": call.method,
        "path": call.path,
        "raw_path": call.path.encode(),
        "root_path": "",
        "query_string": call.query,
        "headers": list(call.headers),
        "client": call.client,
        "server": None,
        "state": {},
    }
