"""jax's side of a group: after this, `jax.devices()` are those of every host."""

from __future__ import annotations

import jax

from jaxserve.hosts.place import Place

_SHUTDOWN_SECONDS = 10


def connect_devices(place: Place) -> None:
    """Before jax looks for devices. Waits for every host.

    Without jax's preemption service, which swallows SIGTERM; and with collectives on CPU, which gloo carries out.
    """
    jax.config.update("jax_enable_preemption_service", False)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        place.coordinator,
        place.hosts,
        place.host,
        cluster_detection_method="deactivate",
        initialization_timeout=round(place.patience),
        shutdown_timeout_seconds=_SHUTDOWN_SECONDS,
    )


def disconnect_devices() -> None:
    """At the end in order, on every host; waits for the others."""
    jax.distributed.shutdown()
