"""What the HTTP room knows of the server: the options of the API, and the model as clients see it."""

from __future__ import annotations

from dataclasses import dataclass, field

from jaxserve.options import ApiOptions


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
class Settings(ApiOptions):
    """One server: what was chosen, and the model."""

    model: ModelInfo = field(kw_only=True)
