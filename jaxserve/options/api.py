"""Options of the HTTP API: keys, defaults of requests, and the limits that protect the server."""

from __future__ import annotations

from dataclasses import dataclass, field

from jaxserve.options.declaration import Options, option
from jaxserve.options.values import SIZE

_CHAT_TOKENS, _COMPLETION_TOKENS = 2048, 16
"""`max_tokens` where a request has none, as the API of Fireworks AI has it."""


@dataclass(frozen=True)
class Limits(Options):
    """Bounds that protect the server; each refusal names the field and the bound."""

    max_body_bytes: int = option(16 << 20, "Size of a request's body.", "Limits", least=1, **SIZE)
    max_prompts: int = option(256, "Prompts of one completions request.", "Limits", least=1)
    max_choices: int = option(256, "Choices of one request: prompts x n.", "Limits", least=1)
    max_generated_tokens: int = option(
        1 << 20, "Tokens one request may ask for: prompts x n x max_tokens.", "Limits", least=1
    )
    max_prompt_tokens: int | None = option(
        None, "Tokens of all prompts of a request.", "Limits", least=1, default_text="the context bounds each prompt"
    )
    max_stop_length: int = option(512, "Characters of one stop text.", "Limits", least=1)
    max_json_values: int = option(500_000, "Values in a body, at all depths together.", "Limits", least=1)
    max_messages: int = option(4096, "Messages of a conversation.", "Limits", least=1)
    max_tools: int = option(1024, "Tools of a request.", "Limits", least=1)
    max_metadata: int = option(64, "Entries of `metadata`.", "Limits", least=0)
    max_images: int = option(30, "Images of a request.", "Limits", least=0)
    max_image_bytes: int = option(10 << 20, "Base64 of all images of a request together.", "Limits", least=1, **SIZE)
    max_image_pixels: int = option(80_000_000, "Pixels of all images of a request together.", "Limits", least=1)
    max_image_url_bytes: int = option(
        5 << 20, "Size of an image that is fetched (`allow_image_urls`).", "Limits", least=1, **SIZE
    )
    image_url_timeout: float = option(1.5, "Seconds in which an image must have been fetched.", "Limits", least=0.1)
    max_schema_bytes: int = option(
        256 << 10,
        "JSON size of a schema or grammar, and of each tool's parameters.",
        "Limits",
        least=1,
        **SIZE,
    )
    max_held_bytes: int = option(
        256 << 20,
        "Bodies of all requests that are being read or prepared, together.",
        "Limits",
        least=1,
        **SIZE,
    )
    max_connections: int = option(
        2048,
        "Open connections; beyond them the one that has been silent for longest makes room.",
        "Limits",
        least=1,
    )
    header_timeout: float = option(10.0, "Seconds in which the head of a request must have come.", "Limits", least=0.1)
    body_timeout: float = option(
        30.0, "Seconds in which a body must have come, and one more for each 64 KiB of it.", "Limits", least=0.1
    )
    request_timeout: float | None = option(
        None,
        "Seconds from a request's head to the end of its answer; a client may ask for fewer by x-request-timeout.",
        "Limits",
        least=0.1,
        default_text="none",
    )
    write_timeout: float = option(
        60.0, "Seconds for which a client may read nothing of an answer that waits for it.", "Limits", least=0.1
    )
    idle_timeout: int = option(75, "Seconds for which a connection is kept between two requests.", "Limits", least=1)


@dataclass(frozen=True)
class ApiOptions(Options):
    """What is chosen of the API."""

    limits: Limits = field(default_factory=Limits)
    api_keys: tuple[str, ...] = option(
        (),
        "Keys of which clients must send one.",
        "HTTP",
        also=("JAXSERVE_API_KEY",),
        default_text="none: everybody may ask",
    )
    cors_origins: tuple[str, ...] = option(
        (), "Origins that browsers may call from.", "HTTP", default_text="none: CORS is off"
    )
    lenient: bool = option(
        False, "Ignore unknown request fields, naming them in a response header, instead of refusing.", "Requests"
    )
    allow_image_urls: bool = option(
        False, "Fetch images that requests name by http(s) URLs, from public addresses only.", "Requests"
    )
    default_max_tokens: int | None = option(
        None,
        "max_tokens where a request has none.",
        "Requests",
        least=1,
        default_text=f"{_CHAT_TOKENS} for chat, {_COMPLETION_TOKENS} for completions",
    )
    keepalive_seconds: float = option(
        10.0,
        "Silence after which a stream sends a comment; also how long it waits for its first token before its headers "
        "go out, so that early failures keep their HTTP status.",
        "HTTP",
        least=0.1,
    )
    lower_threads: int = option(2, "Threads for validation, templates and tokenizing.", "HTTP", least=1)
    deployment: str | None = option(None, "Entry 'deployment' of perf_metrics.", "HTTP", default_text="left out")
    backend_host: str | None = option(None, "Entry 'backend-host' of perf_metrics.", "HTTP", default_text="left out")
    retry_after_seconds: int = option(1, "'Retry-After' of 503 answers, and the least of 429 answers.", "HTTP", least=1)

    share_prompt_cache: bool = option(
        False,
        "Requests with different API keys share cached prompt beginnings, which each key has for itself otherwise.",
        "HTTP",
    )

    def max_tokens(self, *, chat: bool) -> int:
        """`max_tokens` of a request that has none."""
        return self.default_max_tokens or (_CHAT_TOKENS if chat else _COMPLETION_TOKENS)
