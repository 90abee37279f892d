"""What the command line hands to the HTTP room. Frozen; a docstring under each field."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class ModelInfo:
    """The served model as clients see it."""

    names: tuple[str, ...]
    """Names that requests may use; the first is the one the server uses itself."""
    context_length: int
    """Prompt plus output tokens of one sequence."""
    vocab_size: int
    """Vocabulary of the model: prompt ids and `logit_bias` keys lie below it."""
    created: int
    """Unix time shown in the model list."""
    owned_by: str = "jaxserve"
    returns_activations: bool = False
    """Whether the engine fills `Delta.activations`; otherwise `return_last_activation` is refused."""
    routed_experts: tuple[int, int] | None = None
    """(layers, experts per token) where the engine fills `Delta.routing`; None refuses `return_routing_matrix`."""


@dataclass(frozen=True)
class Limits:
    """Bounds that protect the server; each refusal names the field and the bound."""

    max_body_bytes: int = 16 * 1024 * 1024
    max_prompts: int = 256
    """Prompts in one completions request."""
    max_choices: int = 256
    """Prompts x n."""
    max_generated_tokens: int = 1_048_576
    """Prompts x n x max_tokens."""
    max_prompt_tokens: int | None = None
    """Total over all prompts of a request; None: the context alone bounds each prompt."""
    max_stop_length: int = 512
    """Characters of one stop text."""
    max_json_values: int = 1_000_000
    """Values in a body, at all depths together."""
    max_messages: int = 4096
    max_tools: int = 1024
    max_metadata: int = 64
    """Entries of `metadata`."""
    max_images: int = 256
    max_schema_bytes: int = 256 * 1024
    """JSON size of a schema or grammar, and of each tool's parameters."""


@dataclass(frozen=True)
class Settings:
    """One server."""

    model: ModelInfo
    limits: Limits = field(default_factory=Limits)
    api_keys: tuple[str, ...] = ()
    """Accepted bearer keys; empty: no authentication."""
    cors_origins: tuple[str, ...] = ()
    """Origins that browsers may call from; empty: CORS is off."""
    lenient: bool = False
    """Ignore unknown request fields (and name them in a response header) instead of refusing them."""
    default_max_tokens_chat: int = 200
    default_max_tokens_completions: int = 16
    keepalive_seconds: float = 10.0
    """Silence after which a stream sends a comment; also how long a stream waits for its first token before its
    headers go out, so that early failures keep their HTTP status."""
    max_lower_threads: int = 2
    """Worker threads for validation, templates and tokenizing."""
    deployment: str | None = None
    """`perf_metrics` entry `deployment`, left out when None."""
    backend_host: str | None = None
    """`perf_metrics` entry `backend-host`, left out when None."""
    retry_after_seconds: int = 1
    """`Retry-After` of 429 and 503 responses."""
