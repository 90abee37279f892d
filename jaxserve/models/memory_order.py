"""How parameters lie in a device's memory, where the compiler's own choice would be copied in every step.

XLA:TPU lays out an array at its own discretion where the minor dimension is no multiple of 128: a table of 2,880
columns column by column, so that a step that takes rows of it copies 1.2 GB first. Where such a choice matters, a
parameter's declaration has an order, and arrays are made and programs compiled with it. Elsewhere than on TPUs arrays
are row-major.
"""

from __future__ import annotations

from typing import Any

import jax
from jax.experimental.layout import Format, Layout
from jax.sharding import Mesh, NamedSharding
from jax.typing import DTypeLike

Order = tuple[int, ...]
"""Dimensions from the slowest to the fastest that varies, counted from the last: (-2, -1) is row-major."""
ROWS: Order = (-2, -1)
"""Rows lie in one piece: they are gathered."""
TURNED: Order = (-1, -2)
"""The last dimension but one is the fastest: kernels read the transposed array."""
_PLATFORMS = ("tpu",)


def placed(
    shape: tuple[int, ...], dtype: DTypeLike, sharding: NamedSharding, order: Order | None
) -> jax.ShapeDtypeStruct:
    """A parameter's shape with its sharding and, on TPU, its order (None = as the compiler likes it)."""
    where: Any = sharding
    if order is not None and isinstance(sharding.mesh, Mesh) and sharding.mesh.devices.flat[0].platform in _PLATFORMS:
        leading = tuple(range(len(shape) - len(order)))
        where = Format(Layout((*leading, *(len(shape) + axis for axis in order))), sharding)
    return jax.ShapeDtypeStruct(shape, dtype, sharding=where)


def placement(value: Any) -> Any:
    """The sharding of an array or its shape, with its order where one was asked for or the platform has any."""
    layout, devices = value.format.layout, value.sharding.device_set
    ordered = layout is not None and next(iter(devices)).platform in _PLATFORMS
    return value.format if ordered else value.sharding


def on_device(value: jax.ShapeDtypeStruct, device: jax.Device) -> Any:
    """Where a shard of the parameter goes, for `jax.device_put`."""
    layout = value.format.layout
    return device if layout is None else Format(layout, jax.sharding.SingleDeviceSharding(device))
