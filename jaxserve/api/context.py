"""The services that routes share, made once for each app."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jaxserve.api.admission import Admission
from jaxserve.api.lanes import Lanes
from jaxserve.api.metrics import Metrics
from jaxserve.api.ports import EngineLike, TextServices
from jaxserve.api.settings import Settings

PREFIXES = ("/v1", "/inference/v1")
"""Every API route is served under both."""
OTHER_PREFIXES = (*(f"{prefix}/v1" for prefix in PREFIXES), "", "/openai/v1", "/openai/deployments/{deployment}")
"""What is answered the same: asked for where a client that appends /v1 by itself was given a base URL with it, where a
client was given one without, and by Azure's clients, who may name the model in the path."""
OPEN_PATHS = frozenset({"/health", "/ready", "/metrics", "/version", "/openapi.json"})
"""What needs no API key."""
READING = ["GET", "HEAD"]
"""Methods of routes that only tell something."""


@dataclass(frozen=True)
class Context:
    """One server's parts."""

    engine: EngineLike
    text: TextServices
    settings: Settings
    metrics: Metrics
    admission: Admission
    lanes: Lanes
    """Where validation, templates and tokenizing run."""
    leaving: Callable[[], bool] = lambda: False
    """Whether the process has been asked to end, so that nobody should send new requests."""
