"""The HTTP server as a process: binds, starts the engine, runs uvicorn, shuts both down in order."""

from __future__ import annotations

import gc
import logging
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Literal

import uvicorn
from fastapi import FastAPI

from jaxserve.api.app import create_app
from jaxserve.api.auth import load_api_keys
from jaxserve.api.connection import guarded
from jaxserve.api.generation_config import sampling_defaults
from jaxserve.api.ports import TextServices
from jaxserve.api.settings import Limits, ModelInfo, Settings
from jaxserve.api.starting import StartingApp
from jaxserve.engine.sizing import EngineOptions
from jaxserve.errors import ModelLoadError
from jaxserve.startup import MeshShape, Progress, Started, start, use_compilation_cache
from jaxserve.text.chat import load_chat_template
from jaxserve.text.formats import bind as bind_format
from jaxserve.text.formats import choose_format
from jaxserve.text.grammar.constraint import ConstraintBuilder

OVERTIME = 10.0
"""Seconds beyond the shutdown timeout that the process may take to leave."""
_log = logging.getLogger(__name__)

_OTHER_FILES = 512
"""Open files of a server beside its connections: weights, devices, worker processes."""


@dataclass(frozen=True)
class HttpOptions:
    """What the command line says about the HTTP side."""

    api_keys: tuple[str, ...] = ()
    served_model_names: tuple[str, ...] = ()
    """First = canonical; empty = the model directory's name."""
    chat_template: Path | None = None
    chat_format: str | None = None
    """Name of the model's way of writing reasoning and tool calls; None = found out."""
    generation_config: Literal["auto", "none"] = "auto"
    """Whether the sampling defaults that the model ships apply where a request is silent."""
    default_max_tokens: int | None = None
    lenient: bool = False
    cors_origins: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    share_prompt_cache: bool = False
    """Whether requests with different API keys share cached prompt beginnings."""
    shutdown_timeout: float = 20.0
    """Seconds that running requests get to finish at shutdown."""


def api_keys(values: Sequence[str], file: Path | None) -> tuple[str, ...]:
    """All accepted keys, from flags, file and environment.

    Raises:
        ModelLoadError: the file can't be used.
    """
    try:
        return load_api_keys(values, file)
    except ValueError as error:
        raise ModelLoadError(str(error)) from None


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
        options: the engine's.
        mesh_shape: see `startup.start`.
        compilation_cache: directory for compiled programs.
        http: the HTTP side's options.
        progress: see `startup.Progress`.
        on_ready: gets the start-up summary once requests are served.
    """

    def __init__(
        self,
        options: EngineOptions,
        *,
        mesh_shape: MeshShape | int,
        compilation_cache: Path | None,
        http: HttpOptions,
        progress: Progress,
        on_ready: Callable[[dict[str, str]], None],
    ) -> None:
        self._options = options
        self._mesh_shape = mesh_shape
        self._compilation_cache = compilation_cache
        self._http = http
        self._progress = progress
        self._on_ready = on_ready
        self._started: Started | None = None
        self._closing = ExitStack()
        """Ends the processes that work for requests."""
        self._failure: Exception | None = None
        config = uvicorn.Config(
            StartingApp(self._make_app, self._failed),
            http=guarded(http.limits),  # type: ignore[arg-type]  # uvicorn only calls it
            ws="none",
            timeout_keep_alive=http.limits.idle_timeout,
            lifespan="on",
            access_log=False,
            log_config=None,
            log_level="warning",
            timeout_graceful_shutdown=int(http.shutdown_timeout) + 2,
        )
        self._uvicorn = _Uvicorn(config, self._begin_shutdown)

    def run(self, bound: socket.socket) -> bool:
        """Serves until SIGINT or SIGTERM. Returns whether the engine was alive to the end.

        Raises:
            ModelLoadError: the model can't be served.
        """
        # uvicorn raises the signals it caught once more when it is done; the process should end with a code of its own.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        _allow_files(self._http.limits.max_connections + _OTHER_FILES)
        self._uvicorn.run(sockets=[bound])
        self._closing.close()
        if self._failure is not None:
            raise self._failure
        if self._started is None:
            return True
        healthy = self._started.engine.failure is None
        self._started.engine.close()
        return healthy

    def _make_app(self) -> FastAPI:
        begun = time.monotonic()
        use_compilation_cache(self._compilation_cache)
        started = start(self._options, mesh_shape=self._mesh_shape, progress=self._progress)
        self._started = started
        text = _text_services(self._http, started, self._closing)
        app = create_app(started.engine, text, _settings(self._http, started, self._names()))
        # Full collections would go through all that was made so far, with every thread stopped.
        gc.collect()
        gc.freeze()
        self._on_ready(_summary(started, text.format.name, self._names()[0], time.monotonic() - begun))
        return app

    def _failed(self, error: Exception) -> None:
        self._failure = error
        self._uvicorn.should_exit = True

    def _begin_shutdown(self) -> None:
        """On the first signal: running requests get their time, then an error instead of silence.

        Beyond that, the kernel ends the process, whatever its threads do.
        """
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, self._http.shutdown_timeout + OVERTIME)
        self._closing.close()
        if self._started is not None:
            close = partial(self._started.engine.close, self._http.shutdown_timeout)
            threading.Thread(target=close, name="jaxserve-shutdown", daemon=True).start()

    def _names(self) -> tuple[str, ...]:
        return self._http.served_model_names or (self._options.model_dir.resolve().name,)


def _allow_files(count: int) -> None:
    """Raises this process's limit of open files, a connection being one, as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class _Uvicorn(uvicorn.Server):
    """uvicorn that tells when the first signal comes."""

    def __init__(self, config: uvicorn.Config, on_signal: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_signal = on_signal

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if not self.should_exit:
            self._on_signal()
        super().handle_exit(sig, frame)


def _text_services(http: HttpOptions, started: Started, closing: ExitStack) -> TextServices:
    """The model's template, format and grammars; `closing` learns how to end their processes.

    Raises:
        ModelLoadError: the template can't be used, or there is no format of the wanted name.
    """
    tokenizer, model = started.tokenizer, started.model_config
    template = load_chat_template(started.config.model_dir, tokenizer, path=http.chat_template)
    source = template.source if template is not None else None
    if template is not None:
        workers = template.workers()
        template = template.isolated(workers)
        closing.callback(workers.close)
        workers.start()
    try:
        chosen = choose_format(model.model_type, source, tokenizer, name=http.chat_format)
    except ValueError as error:
        raise ModelLoadError(str(error)) from None
    bound = bind_format(chosen, tokenizer, template)
    try:
        constraints = ConstraintBuilder(bound, vocab_size=model.vocab_size)
    except ValueError as error:
        _log.warning("structured output and tools are off: %s", error)
        return TextServices(tokenizer, bound)
    closing.callback(constraints.close)
    constraints.start()
    return TextServices(tokenizer, bound, constraints)


def _settings(http: HttpOptions, started: Started, names: tuple[str, ...]) -> Settings:
    model = ModelInfo(
        names=names,
        context_length=started.config.max_model_len,
        vocab_size=started.model_config.vocab_size,
        created=int(time.time()),
        returns_activations=True,
        routed_experts=started.model_config.routed_experts,
        sampling_defaults=sampling_defaults(started.config.model_dir) if http.generation_config == "auto" else {},
    )
    defaults = Settings(model=model)
    return replace(
        defaults,
        api_keys=http.api_keys,
        cors_origins=http.cors_origins,
        limits=http.limits,
        share_prompt_cache=http.share_prompt_cache,
        max_waiting=started.config.max_waiting,
        slots=started.config.max_num_seqs,
        lenient=http.lenient,
        default_max_tokens_chat=http.default_max_tokens or defaults.default_max_tokens_chat,
        default_max_tokens_completions=http.default_max_tokens or defaults.default_max_tokens_completions,
    )


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
    return rows | {f"note {index + 1}": remark for index, remark in enumerate(started.remarks)}
