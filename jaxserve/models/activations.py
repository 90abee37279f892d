"""Gated activations (Shazeer 2020), as functions of arrays."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from jaxserve.models.config import Activation, GluSpec

ACTIVATIONS: dict[Activation, Callable[[jax.Array], jax.Array]] = {
    "silu": jax.nn.silu,
    "gelu": partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": partial(jax.nn.gelu, approximate=True),
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
}


def glu(spec: GluSpec, gate: jax.Array, up: jax.Array) -> jax.Array:
    """The gated activation of two projections of equal shape."""
    if spec.limit is not None:
        gate, up = jnp.minimum(gate, spec.limit), jnp.clip(up, -spec.limit, spec.limit)
    if spec.sigmoid_scale != 1.0:
        gate = gate * jax.nn.sigmoid(spec.sigmoid_scale * gate)
    else:
        gate = ACTIVATIONS[spec.activation](gate)
    return gate * (up + spec.up_offset if spec.up_offset else up)
