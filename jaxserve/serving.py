"""The HTTP server as a process: binds, starts the engine, runs uvicorn, shuts both down in order."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from jaxserve.api.app import create_app
from jaxserve.api.auth import load_api_keys
from jaxserve.api.ports import TextServices
from jaxserve.api.settings import ModelInfo, Settings
from jaxserve.engine.sizing import EngineOptions
from jaxserve.errors import ModelLoadError
from jaxserve.startup import MeshShape, Progress, Started, start, use_compilation_cache
from jaxserve.text.chat import load_chat_template

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class HttpOptions:
    """What the command line says about the HTTP side."""

    api_keys: tuple[str, ...] = ()
    served_model_names: tuple[str, ...] = ()
    """First = canonical; empty = the model directory's name."""
    chat_template: Path | None = None
    default_max_tokens: int | None = None
    lenient: bool = False
    cors_origins: tuple[str, ...] = ()
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
    """Binds before the model loads, so that a taken port fails at once; listening starts when the server is ready.

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
    """A started engine behind uvicorn."""

    def __init__(self, started: Started, http: HttpOptions, startup_seconds: float) -> None:
        self._started = started
        self._http = http
        self._startup_seconds = startup_seconds
        self._uvicorn: uvicorn.Server | None = None

    @classmethod
    def start(
        cls,
        options: EngineOptions,
        *,
        mesh_shape: MeshShape | int,
        compilation_cache: Path | None,
        progress: Progress,
        http: HttpOptions,
    ) -> Server:
        """Loads and compiles everything.

        Raises:
            ModelLoadError: the model can't be served.
        """
        begun = time.monotonic()
        use_compilation_cache(compilation_cache)
        server: list[Server] = []
        started = start(
            options,
            mesh_shape=mesh_shape,
            progress=progress,
            on_death=lambda _: server[0].engine_died() if server else None,
        )
        server.append(cls(started, http, time.monotonic() - begun))
        return server[0]

    def run(self, bound: socket.socket) -> bool:
        """Serves until SIGINT or SIGTERM. Returns whether the engine was alive to the end."""
        app = create_app(self._started.engine, self._text_services(), self._settings())
        config = uvicorn.Config(
            app,
            http="h11",
            lifespan="on",
            access_log=False,
            log_config=None,
            timeout_graceful_shutdown=int(self._http.shutdown_timeout) + 1,
        )
        self._uvicorn = uvicorn.Server(config)
        self._uvicorn.run(sockets=[bound])
        healthy = self._started.engine.healthy
        self._started.engine.close()
        return healthy

    def engine_died(self) -> None:
        """The server stays up so that health checks can see it is ill; operators restart it."""
        _log.critical("the engine died: /health answers 503 from now on")

    def summary(self) -> dict[str, str]:
        """The start-up summary: device, mesh, pages, context, buckets."""
        config, model = self._started.config, self._started.model_config
        names = ("replica", "kv", "group")
        mesh = ", ".join(f"{name}={size}" for name, size in zip(names, config.mesh_shape, strict=True))
        rows = {
            "model": f"{self._names()[0]}: {model.model_type}, {model.num_parameters / 1e6:,.1f}M parameters",
            "device": f"{self._started.device}, {config.dtype}",
            "mesh": f"{mesh}; attention {config.attention_backend}, layers {config.layer_loop}",
            "context": f"{config.max_model_len} tokens, {config.max_num_seqs} sequences at once",
            "KV cache": f"{config.num_pages - 1} pages of {config.page_size} tokens",
            "token buckets": " ".join(map(str, config.token_buckets)),
            "ready after": f"{self._startup_seconds:.1f} s",
        }
        for index, remark in enumerate(self._started.remarks):
            rows[f"note {index + 1}"] = remark
        return rows

    def _names(self) -> tuple[str, ...]:
        return self._http.served_model_names or (self._started.config.model_dir.resolve().name,)

    def _text_services(self) -> TextServices:
        template = load_chat_template(
            self._started.config.model_dir, self._started.tokenizer, path=self._http.chat_template
        )
        return TextServices(tokenizer=self._started.tokenizer, chat=template)

    def _settings(self) -> Settings:
        model = ModelInfo(
            names=self._names(),
            context_length=self._started.config.max_model_len,
            vocab_size=self._started.model_config.vocab_size,
            created=int(time.time()),
            returns_activations=True,
        )
        base = Settings(model=model)
        default = self._http.default_max_tokens
        return Settings(
            model=model,
            api_keys=self._http.api_keys,
            cors_origins=self._http.cors_origins,
            lenient=self._http.lenient,
            default_max_tokens_chat=default or base.default_max_tokens_chat,
            default_max_tokens_completions=default or base.default_max_tokens_completions,
        )
