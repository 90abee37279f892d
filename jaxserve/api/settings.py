"""What the HTTP room knows of the server: the options of the API, and the model as clients see it."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from jaxserve.options import ApiOptions, EngineOptions

_ACCOUNT_MODEL = re.compile(r"accounts/[^/#]+/models/(?P<base>[^/#]+)")
_DEPLOYMENT = re.compile(r"accounts/[^/#]+/deployments/[^/#]+")


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
    """(layers, experts per token) where the engine fills `Delta.routing`; None refuses `include_routing_matrix`."""
    reads_images: bool = False
    """Whether prompts may hold images; otherwise they are refused."""
    sampling_defaults: Mapping[str, float] = field(default_factory=dict)
    """Values of the sampling knobs that a request leaves open (see `generation_config`)."""

    def answers_to(self, name: str) -> bool:
        """Whether requests may use this name.

        They may use the names, what these end in, and that as Fireworks AI spells it: as a model of any account, with
        or without a deployment (`accounts/A/models/NAME#accounts/A/deployments/ID`).
        """
        name, _, deployment = name.partition("#")
        if deployment and not _DEPLOYMENT.fullmatch(deployment):
            return False
        bases = {each.rsplit("/", 1)[-1] for each in self.names}
        spelled = _ACCOUNT_MODEL.fullmatch(name)
        return name in self.names or (spelled["base"] if spelled else name) in bases


def spread(seconds: float) -> float:
    """A time limit, up to a tenth longer: what was begun by hundreds at once shall not be ended at once."""
    return seconds * random.uniform(1.0, 1.1)


@dataclass(frozen=True)
class Settings(ApiOptions):
    """One server: what was chosen, and the model."""

    model: ModelInfo = field(kw_only=True)
    max_waiting: int = EngineOptions.max_waiting
    """Requests that may wait beyond those that find a slot; later ones are refused as overloaded."""
    slots: int = 16
    """Sequences that the engine runs at once."""
