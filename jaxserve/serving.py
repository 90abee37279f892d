"""The HTTP server as a process: binds, starts the engine, runs uvicorn, shuts both down in order.

jax, the engine, the HTTP room and the grammars are imported once the options have been checked: a wrong one is told
seconds sooner.
"""

from __future__ import annotations

import gc
import logging
import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import uvicorn

from jaxserve.api.auth import load_api_keys
from jaxserve.api.settings import Settings
from jaxserve.described import describe
from jaxserve.errors import ExitCode, ModelLoadError, exit_code
from jaxserve.options import ApiOptions, EngineOptions, ServeOptions
from jaxserve.services import chat_format, model_info, text_services

if TYPE_CHECKING:
    from fastapi import FastAPI

    from jaxserve.hosts.leader import Leader
    from jaxserve.startup import Progress, Started

OVERTIME = 10.0
"""Seconds beyond the shutdown timeout that the process may take to leave."""
_log = logging.getLogger(__name__)

_OTHER_FILES = 512
"""Open files of a server beside its connections: weights, devices, worker processes."""


def bind(host: str, port: int) -> socket.socket:
    """Binds before the model loads, so that a taken port fails at once.

    Raises:
        ModelLoadError: the address can't be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        raise ModelLoadError(f"cannot listen on {host}:{port}: {error.strerror}") from None
    return bound


class Server:
    """One process: uvicorn on the main thread, the model loaded beside it, the engine on its own thread.

    Args:
        engine: options of the model and the engine.
        serve: options of the process.
        api: options of the API; keys from `serve.api_key_file` join its own.
        progress: see `startup.Progress`.
        on_ready: gets the start-up summary once requests are served.
        leader: the other hosts that hold parts of the model; None = there are none.

    Raises:
        ModelLoadError: the model or an option can't be used.
    """

    def __init__(
        self,
        engine: EngineOptions,
        serve: ServeOptions,
        api: ApiOptions,
        *,
        progress: Progress,
        on_ready: Callable[[dict[str, str]], None],
        leader: Leader | None = None,
    ) -> None:
        self._leader = leader
        self._serve = serve
        self._api = replace(api, api_keys=_api_keys(api.api_keys, serve.api_key_file))
        described = describe(engine, 1 if leader is None else leader.hosts)
        self._closing = ExitStack()
        """Ends the processes that work for requests."""
        self._format = chat_format(described, self._closing, template_file=serve.chat_template, name=serve.chat_format)
        self._progress = progress
        self._on_ready = on_ready
        self._started: Started | None = None
        self._failure: Exception | None = None
        from jaxserve.prepared import fit

        self._prepared = fit(described)
        from jaxserve.api.connection import guarded
        from jaxserve.api.starting import StartingApp

        config = uvicorn.Config(
            StartingApp(self._make_app, self._failed),
            http=guarded(api.limits),  # type: ignore[arg-type]  # uvicorn only calls it
            ws="none",
            timeout_keep_alive=api.limits.idle_timeout,
            lifespan="on",
            access_log=False,
            log_config=None,
            log_level="warning",
            timeout_graceful_shutdown=int(serve.shutdown_timeout) + 2,
        )
        self._leaving = threading.Event()
        self._uvicorn = _Uvicorn(config, self._on_signal)

    @property
    def chats(self) -> bool:
        """Whether the model takes messages."""
        return self._format.renderer is not None

    @property
    def names(self) -> tuple[str, ...]:
        """What clients may call the model, the canonical name first."""
        return self._serve.served_model_names or (self._prepared.options.model_dir.resolve().name,)

    @property
    def keyed(self) -> bool:
        """Whether clients need a key."""
        return bool(self._api.api_keys)

    def run(self, bound: socket.socket) -> ExitCode:
        """Serves until SIGINT or SIGTERM, or until the engine dies. Returns how the process should end.

        Raises:
            ModelLoadError: the model can't be served.
        """
        # uvicorn raises the signals it caught once more when it is done; the process should end with a code of its own.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        _allow_files(self._api.limits.max_connections + _OTHER_FILES)
        self._uvicorn.run(sockets=[bound])
        self._closing.close()
        if self._failure is not None:
            raise self._failure
        if self._started is None:
            return ExitCode.FINE
        engine = self._started.engine
        failure = engine.failure
        engine.close()
        if failure is not None:
            return exit_code(failure)
        return ExitCode.REQUESTS_CUT if engine.cut else ExitCode.FINE

    def _make_app(self) -> FastAPI:
        from jaxserve.api.app import create_app
        from jaxserve.api.generation_config import sampling_defaults
        from jaxserve.api.traces import traces_from_environment
        from jaxserve.profiling import Profiler
        from jaxserve.startup import start, use_compilation_cache

        begun = time.monotonic()
        use_compilation_cache(self._serve.compilation_cache)
        started = start(self._prepared, progress=self._progress, on_death=self._died, leader=self._leader)
        self._started = started
        if self._leader is not None:
            self._leader.on_loss = started.engine.abandon
            self._leader.on_leave = partial(os.kill, os.getpid(), signal.SIGTERM)
        text = text_services(self._prepared, self._format, self._closing, started.images)
        sampling = sampling_defaults(started.config.model_dir) if self._serve.generation_config == "auto" else {}
        app = create_app(
            started.engine,
            text,
            _settings(self._api, started, self.names, sampling),
            leaving=self._leaving.is_set,
            profile=None if self._serve.profile_directory is None else Profiler(self._serve.profile_directory).record,
            traces=traces_from_environment(),
        )
        # Full collections would go through all that was made so far, with every thread stopped.
        gc.collect()
        gc.freeze()
        self._on_ready(_summary(started, self._format.name, self.names[0], time.monotonic() - begun))
        return app

    def _failed(self, error: Exception) -> None:
        self._failure = error
        self._uvicorn.should_exit = True

    def _died(self, error: BaseException) -> None:
        """On the engine's thread: requests have had their error, and nothing can be served any more."""
        if self._serve.on_engine_death == "exit":
            self._uvicorn.should_exit = True

    def _on_signal(self, count: int) -> None:
        """On the main thread, at the first signal and at each later one."""
        if count > 1:
            self._uvicorn.force_exit = True
            self._end_requests(within=0)
            return
        self._leaving.set()
        drain = self._serve.drain_seconds if self._started is not None else 0.0
        # Whatever the threads do, the kernel ends the process then.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, drain + self._serve.shutdown_timeout + OVERTIME)
        if drain:
            _log.info("asked to end: not ready any more, serving on for %g seconds", drain)
            _later(drain, partial(self._end_requests, within=self._serve.shutdown_timeout))
        else:
            self._end_requests(within=self._serve.shutdown_timeout)

    def _end_requests(self, *, within: float) -> None:
        """Takes no more; what runs gets its time, then an error instead of silence."""
        self._uvicorn.should_exit = True
        self._closing.close()
        if self._started is not None:
            _later(0, partial(self._started.engine.close, within))


def _later(seconds: float, function: Callable[[], None]) -> None:
    timer = threading.Timer(seconds, function)
    timer.daemon = True
    timer.start()


def _allow_files(count: int) -> None:
    """Raises this process's limit of open files, a connection being one, as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class _Uvicorn(uvicorn.Server):
    """uvicorn that leaves it to others when to end: `on_signal` gets how many signals have come."""

    def __init__(self, config: uvicorn.Config, on_signal: Callable[[int], None]) -> None:
        super().__init__(config)
        self._on_signal = on_signal
        self._signals = 0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._signals += 1
        self._on_signal(self._signals)


def _api_keys(values: tuple[str, ...], file: Path | None) -> tuple[str, ...]:
    try:
        return load_api_keys(values, file)
    except ValueError as error:
        raise ModelLoadError(str(error)) from None


def _settings(api: ApiOptions, started: Started, names: tuple[str, ...], sampling: Mapping[str, float]) -> Settings:
    model = model_info(started, names, sampling)
    more: dict[str, Any] = {"max_waiting": started.config.max_waiting, "slots": started.config.max_num_seqs}
    return Settings(**vars(api), model=model, **more)


def _summary(started: Started, chat_format: str, name: str, seconds: float) -> dict[str, str]:
    """The start-up summary: device, mesh, pages, context, buckets."""
    config, model = started.config, started.model_config
    axes = zip(("replica", "kv", "group"), config.mesh_shape, strict=True)
    mesh = ", ".join(f"{axis}={size}" for axis, size in axes)
    whole = (config.num_pages - 1) / sum(config.table_columns)
    rows = {
        "model": f"{name}: {model.model_type}, {started.num_parameters / 1e6:,.2f}M parameters",
        "device": f"{started.device}, {config.dtype}",
        "mesh": f"{mesh}; layers {config.layer_loop}",
        "kernels": f"attention {started.backends.attention.name}, matmul {started.backends.matmul.name}",
        "context": f"{config.max_model_len} tokens, {config.max_num_seqs} sequences at once",
        "KV cache": f"{config.num_pages - 1} pages of {config.page_size} tokens: {whole:.1f} whole contexts",
        "chat format": chat_format,
        "token buckets": " ".join(map(str, config.token_buckets)),
        "ready after": f"{seconds:.1f} s",
    }
    if config.context_buckets:
        rows["context buckets"] = " ".join(map(str, (*config.context_buckets, config.max_model_len)))
    return rows | {f"note {index + 1}": remark for index, remark in enumerate(started.remarks)}
