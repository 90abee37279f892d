"""What the command line hands to the HTTP room. Frozen; a docstring under each field."""

from __future__ import annotations

from collections.abc import Mapping
import random
from dataclasses import dataclass, field


@dataclass(frozen=True)
class ModelInfo:
    """The served model as clients see it."""

    names: tuple[str, ...]
    """Names that the model list shows; the first is the one the server uses itself."""
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
    sampling_defaults: Mapping[str, float] = field(default_factory=dict)
    """Values of the sampling knobs that a request leaves open (see `generation_config`)."""

    @property
    def aliases(self) -> frozenset[str]:
        """Every name that requests may use: the names, what they end in, and that as Fireworks AI spells it."""
        bases = {name.rsplit("/", 1)[-1] for name in self.names}
        return frozenset({*self.names, *bases, *(f"accounts/fireworks/models/{base}" for base in bases)})


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
    max_json_values: int = 500_000
    """Values in a body, at all depths together."""
    max_messages: int = 4096
    max_tools: int = 1024
    max_metadata: int = 64
    """Entries of `metadata`."""
    max_images: int = 256
    max_schema_bytes: int = 256 * 1024
    """JSON size of a schema or grammar, and of each tool's parameters."""
    max_held_bytes: int = 256 * 1024 * 1024
    """Bodies of all requests that are being read or prepared, together."""
    max_connections: int = 2048
    """Open connections; beyond them the one that has been silent for longest makes room."""
    header_timeout: float = 10.0
    """Seconds in which the head of a request must have come."""
    body_timeout: float = 30.0
    """Seconds in which a body must have come, and one more for each 64 KiB of it."""
    write_timeout: float = 60.0
    """Seconds for which a client may read nothing of an answer that waits for it."""
    idle_timeout: int = 75
    """Seconds for which a connection is kept between two requests."""


def spread(seconds: float) -> float:
    """A time limit, up to a tenth longer: what was begun by hundreds at once shall not be ended at once."""
    return seconds * random.uniform(1.0, 1.1)


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
    """`Retry-After` of 503 responses, and the least of 429 responses."""
    share_prompt_cache: bool = False
    """Requests with different API keys share cached prompt beginnings; otherwise each key has its own."""
    max_waiting: int = 1024
    """Requests that may wait beyond those that find a slot; later ones are refused as overloaded."""
    slots: int = 16
    """Sequences that the engine runs at once."""
