"""`python -m benchmarks.streams`: what the host costs a streamed token, measured against a simulated device.

The engine, the API and the HTTP server are the real ones; the device sleeps for each step. Clients are a process
of their own. Printed: tokens per second, and processor time for each streamed event on the HTTP thread and for each
step on the engine's thread (processor time hardly depends on what else the machine does).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import selectors
import socket
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import uvicorn

from jaxserve import serving
from jaxserve.api.app import create_app
from jaxserve.api.connection import guarded
from jaxserve.api.ports import TextServices
from jaxserve.api.settings import ModelInfo, Settings
from jaxserve.config import EngineConfig
from jaxserve.engine.engine import Engine
from jaxserve.engine.plan import Plan, RowResult, SampledToken
from jaxserve.engine.scheduler import Scheduler
from jaxserve.options import ApiOptions, EngineOptions
from jaxserve.prepared import prepare
from jaxserve.resolve.model import bundled_model_dir
from jaxserve.services import chat_format

FIRST_TOKEN = 300
"""An ordinary token of the bundled tokenizer; rows go on from here."""


class Simulated:
    """A device that takes the same time for each step: row r samples token FIRST_TOKEN + r % 64."""

    compilations = 0

    def __init__(self, step_seconds: float) -> None:
        self._step_seconds = step_seconds

    def launch(self, plan: Plan, **_: Any) -> Plan:
        return plan

    def sample(self, ticket: Plan, masks: Any) -> None:
        raise NotImplementedError

    def sample_again(self, ticket: Plan, again: Any, masks: Any) -> None:
        raise NotImplementedError

    def fetch(self, ticket: Plan) -> list[RowResult]:
        time.sleep(self._step_seconds)
        return [
            RowResult((SampledToken(FIRST_TOKEN + index % 64),) if row.samples else ())
            for index, row in enumerate(ticket.rows)
        ]


def _config(streams: int, context: int) -> EngineConfig:
    return EngineConfig(
        model_dir=bundled_model_dir(),
        dtype="float32",
        max_num_seqs=streams,
        max_model_len=context,
        page_size=16,
        num_pages=streams * (context // 16 + 1) + 1,
        max_num_batched_tokens=max(2048, streams),
        token_buckets=(max(2048, streams),),
        page_windows=(None,),
        mesh_shape=(1, 1, 1),
        layer_loop="unroll",
        prefix_caching=True,
        max_waiting=4 * streams,
    )


def _serve(
    bound: socket.socket, config: EngineConfig, step_seconds: float
) -> tuple[uvicorn.Server, Engine[Plan], list[int]]:
    prepared = prepare(EngineOptions(model_dir=config.model_dir))
    bound_format = chat_format(prepared, ExitStack())
    engine = Engine(
        Scheduler(config),
        Simulated(step_seconds),
        prepared.tokenizer,
        total_pages=config.num_pages - 1,
        vocab_size=3072,
    )
    model = ModelInfo(names=("story",), context_length=config.max_model_len, vocab_size=3072, created=0)
    api = ApiOptions()
    settings = Settings(**vars(api), model=model, max_waiting=config.max_waiting, slots=config.max_num_seqs)
    app = create_app(engine, TextServices(prepared.tokenizer, bound_format), settings)
    server = uvicorn.Server(
        uvicorn.Config(app, http=cast(Any, guarded(api.limits)), ws="none", access_log=False, log_level="error")
    )
    threads: list[int] = []

    def run() -> None:
        threads.append(threading.get_native_id())
        server.run(sockets=[bound])

    threading.Thread(target=run, daemon=True, name="http").start()
    while not server.started:
        time.sleep(0.01)
    return server, engine, threads


def _cpu(native_id: int) -> float:
    """Seconds of processor time of a thread of this process (Linux)."""
    fields = Path(f"/proc/self/task/{native_id}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


def _clients(port: int, streams: int, tokens: int, chat: bool, out: Any) -> None:
    """Opens all streams, reads all of them to their end; reports events and seconds."""
    body: dict[str, Any] = {"model": "story", "stream": True, "max_tokens": tokens, "ignore_eos": True}
    body |= {"messages": [{"role": "user", "content": "hello"}]} if chat else {"prompt": [5, 6, 7, 8]}
    raw = json.dumps(body).encode()
    path = "/v1/chat/completions" if chat else "/v1/completions"
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(raw)}\r\n\r\n"
    chooser, events, open_, sample = selectors.DefaultSelector(), 0, 0, b""
    begun = time.perf_counter()
    for _ in range(streams):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.sendall(head.encode() + raw)
        chooser.register(connection, selectors.EVENT_READ, bytearray())
        open_ += 1
    while open_:
        for key, _ in chooser.select():
            data = cast(socket.socket, key.fileobj).recv(1 << 16)
            events += data.count(b"data: ")
            key.data.extend(data)
            if not data or b"data: [DONE]" in key.data[-200:]:
                sample = bytes(key.data[:600])
                chooser.unregister(key.fileobj)
                open_ -= 1
            del key.data[:-200]
    out.put((events, time.perf_counter() - begun, sample.decode(errors="replace")))


def measure(streams: int, tokens: int, chat: bool, step_seconds: float) -> dict[str, float | str | int]:
    bound = serving.bind("127.0.0.1", 0)
    config = _config(streams, -(-(tokens + 256) // 16) * 16)
    server, engine, (http, *_) = _serve(bound, config, step_seconds)
    context = multiprocessing.get_context("spawn")
    for count in (4, tokens):
        box = context.Queue()
        worker = engine._thread.native_id or 0
        before, steps = (_cpu(http), _cpu(worker)), engine.stats().steps
        client = context.Process(target=_clients, args=(bound.getsockname()[1], streams, count, chat, box))
        client.start()
        events, seconds, _ = box.get()
        client.join()
        after, steps = (_cpu(http), _cpu(worker)), engine.stats().steps - steps
    server.should_exit = True
    engine.close()
    return {
        "streams": streams,
        "endpoint": "chat" if chat else "completions",
        "events": events,
        "tokens per second": round(streams * tokens / seconds),
        "HTTP thread, ms of CPU an event": round((after[0] - before[0]) * 1e3 / events, 4),
        "engine thread, ms of CPU a step": round((after[1] - before[1]) * 1e3 / max(steps, 1), 3),
        "engine thread, us of CPU a token": round((after[1] - before[1]) * 1e6 / (streams * tokens), 1),
        "steps": steps,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.streams", description=__doc__)
    parser.add_argument("--streams", nargs="+", type=int, default=[1, 16, 256])
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--chat", action="store_true", help="the chat endpoint (default: completions)")
    parser.add_argument("--step-ms", type=float, default=5.0, help="what a step takes the simulated device")
    args = parser.parse_args()
    print(f"Python {platform.python_version()}, {platform.machine()}")
    for streams in args.streams:
        print(json.dumps(measure(streams, args.tokens, args.chat, args.step_ms / 1000), indent=1))


if __name__ == "__main__":
    main()
