"""Replicas of a server under Ray Serve: `serve.run(jaxserve.ray.app("org/model", replicas=2))`.

A gateway takes the requests and Ray's router hands each to the replica that has seen its beginning before. Needs
`pip install 'jaxserve[ray]'`; nothing else of the package imports this.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray.serve import Application

__all__ = ["app"]

_HEALTH_SECONDS = 5


def app(
    model: str,
    *,
    replicas: int = 1,
    max_ongoing: int = 64,
    actor_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> Application:
    """An application of Ray Serve.

    Args:
        model: what `jaxserve serve` takes as MODEL; every replica must reach it.
        replicas: engines, each with devices of its own.
        max_ongoing: requests that one replica has at once; those beyond go to the next in the request's order.
        actor_options: what Ray is told of a replica: `{"num_gpus": 1}`, `{"resources": {"TPU": 4}}`.
        options: of `serve`, by the names in docs/configuration.md, but for those of the process.

    Raises:
        ModelLoadError: an option is unknown or out of its range.
    """
    from ray import serve
    from ray.serve.config import RequestRouterConfig

    from jaxserve.ray.gateway import Gateway
    from jaxserve.ray.replica import Replica, check_options

    check_options(options)
    router = RequestRouterConfig(request_router_class="jaxserve.ray.router:PrefixRouter")
    engines = serve.deployment(
        Replica,
        num_replicas=replicas,
        max_ongoing_requests=max_ongoing,
        request_router_config=router,
        ray_actor_options=dict(actor_options or {}),
        health_check_period_s=_HEALTH_SECONDS,
        health_check_timeout_s=6 * _HEALTH_SECONDS,
    )
    front = serve.deployment(Gateway, max_ongoing_requests=replicas * max_ongoing * 4)
    return front.bind(engines.bind(model, options))
