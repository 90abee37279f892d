"""The devices that a backend is asked to work on."""

from __future__ import annotations

from dataclasses import dataclass

import jax


@dataclass(frozen=True)
class Target:
    """A kind of device, present or not."""

    platform: str
    """jax's name: cpu, gpu or tpu."""
    capability: str | None = None
    """Compute capability of a GPU ("9.0"); None elsewhere, and where it is not known."""

    @classmethod
    def of(cls, device: jax.Device) -> Target:
        """The kind of this device."""
        return cls(device.platform, getattr(device, "compute_capability", None))
