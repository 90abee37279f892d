"""How parameters are declared: shape, dtype, logical axes and initialiser, once; the rest follows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from jaxserve.models.config import WeightFormat
from jaxserve.models.kernels.backend import AttentionBackend
from jaxserve.models.quantization import (
    Weight,
    align_blocks,
    aligned,
    code_dtype,
    code_shape,
    decode,
    packed,
    scale_dtype,
    scale_shape,
)
from jaxserve.models.sharding import ShardingRules

_TILE = 512 << 10
"""Weights that are dequantised at a time on CPU: 2 MiB in float32."""
_FEWEST_ROWS = 16
"""Rows of a tile, however long."""


@dataclass(frozen=True)
class Init:
    """Distribution of a random parameter."""

    kind: Literal["normal", "ones", "zeros", "constant", "e4m3", "bits"]
    """The last two are codes of quantised weights: of normally distributed numbers, and uniformly random ones."""
    std: float = 0.0
    """Standard deviation (normal, e4m3)."""
    value: float = 0.0
    """Of every number (constant)."""

    def __call__(self, key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike) -> jax.Array:
        """Draw the parameter (float32 inside, then rounded to `dtype`)."""
        if self.kind == "bits":
            return jax.random.bits(key, shape, jnp.dtype(dtype))
        if self.kind in ("normal", "e4m3"):
            drawn = self.std * jax.random.normal(key, shape, jnp.float32)
            if self.kind == "e4m3":
                return jax.lax.bitcast_convert_type(drawn.astype(jnp.float8_e4m3fn), dtype)
            if jnp.issubdtype(dtype, jnp.integer):
                largest = np.iinfo(jnp.dtype(dtype)).max
                drawn = jnp.clip(jnp.round(drawn), -largest, largest)
            return drawn.astype(dtype)
        return jnp.full(shape, {"ones": 1.0, "zeros": 0.0, "constant": self.value}[self.kind], dtype)


ONES = Init("ones")
ZEROS = Init("zeros")


@dataclass(frozen=True)
class Build:
    """What every module needs to know while the model is put together. Static, hashable."""

    rules: ShardingRules
    backend: AttentionBackend
    dtype: str
    norm_eps: float
    norm_offset: float = 0.0
    stack: int | None = None
    """Layers stacked in front of every parameter (scanned layers); None = one layer."""

    def parameter(
        self, shape: tuple[int, ...], axes: tuple[str | None, ...], init: Init, dtype: str | None = None
    ) -> nnx.Param[jax.ShapeDtypeStruct]:
        """Declare a parameter, of the model's dtype unless it says otherwise.

        Modules are built abstractly: values come from a checkpoint or from `init`.
        """
        if self.stack is not None:
            shape, axes = (self.stack, *shape), ("layers", *axes)
        value = jax.ShapeDtypeStruct(shape, jnp.dtype(dtype or self.dtype))
        return nnx.Param(value, out_sharding=axes, init=init, eager_sharding=False)

    def weight(
        self, shape: tuple[int, ...], axes: tuple[str | None, ...], form: WeightFormat | None
    ) -> tuple[nnx.Param[jax.ShapeDtypeStruct], nnx.Param[jax.ShapeDtypeStruct] | None]:
        """Declare the weight [..., out, in] of a projection as it is held: its values or codes, and its scales."""
        inputs = shape[-1]
        if form is None:
            return self.parameter(shape, axes, Init("normal", inputs**-0.5)), None
        codes, scale = _random_codes(form, inputs)
        scale_axes = (
            axes[:-1] if form.block is None else (*axes[:-1], axes[-1] if self._whole(form, inputs, axes[-1]) else None)
        )
        return (
            self.parameter(code_shape(shape, form), axes, codes, code_dtype(form)),
            self.parameter(scale_shape(shape, form), scale_axes, scale, scale_dtype(form)),
        )

    def _whole(self, form: WeightFormat, inputs: int, axis: str | None) -> bool:
        """Whether no block of inputs is cut where they are split over the mesh."""
        return form.block is not None and inputs // self.rules.parts(axis) % form.block == 0


def _random_codes(form: WeightFormat, inputs: int) -> tuple[Init, Init]:
    """Codes and scales of a random weight, about as large as an unquantised one would be."""
    codes, size = {
        "int8": (Init("normal", 24.0), 24.0),
        "e4m3": (Init("e4m3", 1.0), 1.0),
        "e2m1": (Init("bits"), 2.9),
    }[form.code]
    value = inputs**-0.5 / size
    return codes, Init("constant", value=value if form.scale == "float32" else round(math.log2(value)) + 127)


class Linear(nnx.Module):
    """y = x W^T + b, W stored [out, in], perhaps quantised.

    Contracting the last axis of both operands makes each row's result independent of the number of rows (for two or
    more; measured on XLA:CPU, float32), on which the reproducibility of tokens rests.
    """

    def __init__(
        self, build: Build, inputs: int, outputs: int, axes: tuple[str | None, str | None], *, bias: bool = False
    ) -> None:
        self.build, self.shape, self.axes = build, (outputs, inputs), axes
        self.bias = build.parameter((outputs,), axes[:1], ZEROS) if bias else None
        self.hold(None)

    def hold(self, form: WeightFormat | None) -> None:
        """Declare the weight anew, held in this format."""
        self.format = form
        self.weight, scale = self.build.weight(self.shape, self.axes, form)
        self.weight_scale = nnx.data(scale)

    def held(self) -> Weight:
        """The weight as it is held."""
        return Weight(self.weight[...], None if self.weight_scale is None else self.weight_scale[...], self.format)

    def matrix(self) -> jax.Array:
        """W [out, in] in the model's dtype, for products that take it apart."""
        return self.held().dequantised(self.build.dtype)

    def __call__(self, x_TI: jax.Array) -> jax.Array:
        """[T, in] -> [T, out], in the dtype of x."""
        y_TO = multiply(x_TI, self.held(), local=self.build.rules.mesh.size == 1)
        return y_TO if self.bias is None else y_TO + self.bias[...]

    def local(self) -> Weight:
        """The weight, to pass into a `shard_map`: no block crosses the edge of a shard."""
        return align_blocks(self.held(), self.build.rules.parts(self.axes[1]))

    def partition(self) -> Weight:
        """How `local` is split."""
        return partition(self.build.rules, self.shape, self.axes, self.format)


def partition(
    rules: ShardingRules, shape: tuple[int, ...], axes: tuple[str | None, ...], form: WeightFormat | None
) -> Weight:
    """How the arrays of a weight [..., out, in] with these logical axes are split, its blocks aligned."""
    if form is None:
        return Weight(rules.spec(axes))
    scale = rules.spec(axes[:-1] if form.block is None else axes)
    return Weight(rules.spec(axes), scale, aligned(form, shape[-1], rules.parts(axes[-1])))


def multiply(x_TI: jax.Array, weight: Weight, dtype: DTypeLike | None = None, *, local: bool = True) -> jax.Array:
    """x W^T as `dtype` (default: of x), dequantising W on the way.

    Args:
        x_TI: [T, in].
        weight: [out, in].
        dtype: of the result.
        local: every array is whole on its device; so rows of W may be taken tile by tile.
    """
    if weight.format is None:
        return contract(x_TI, weight.values, dtype)
    if not local or weight.outputs * x_TI.shape[1] <= _TILE:
        return _product(x_TI, weight, dtype)
    y_TO: jax.Array = jax.lax.platform_dependent(
        x_TI, weight, cpu=partial(_tiled_product, dtype=dtype), default=partial(_product, dtype=dtype)
    )
    return y_TO


def _product(x_TI: jax.Array, weight: Weight, dtype: DTypeLike | None) -> jax.Array:
    """As `multiply`; a scale per row is applied to the result, and in float32.

    Where two codes share a byte, even and odd inputs are multiplied apart: their numbers need not be interleaved.
    """
    form, dtype = weight.format, dtype or x_TI.dtype
    if form is not None and packed(form) == 2:
        even, odd = weight.halves(x_TI.dtype)
        y_TO = contract(x_TI[:, 0::2], even, jnp.float32) + contract(x_TI[:, 1::2], odd, jnp.float32)
        return y_TO.astype(dtype)
    if form is None or form.block is not None:
        return contract(x_TI, weight.dequantised(x_TI.dtype), dtype)
    scale_O: jax.Array = weight.scale
    return (contract(x_TI, decode(weight.values, form, x_TI.dtype), jnp.float32) * scale_O).astype(dtype)


def _tiled_product(x_TI: jax.Array, weight: Weight, dtype: DTypeLike | None) -> jax.Array:
    """As `_product`, some rows of W at a time.

    XLA:CPU writes the dequantised matrix to memory before it multiplies: 3 to 7 times the time of a float32 product.
    Tiles stay in the cache. The last tile begins where it is full, so that some rows may be computed twice.
    """
    tokens, outputs = x_TI.shape[0], weight.outputs
    rows = max(_FEWEST_ROWS, _TILE // x_TI.shape[1])

    def tile(index: jax.Array, y_TO: jax.Array) -> jax.Array:
        first = jnp.minimum(index * rows, outputs - rows)
        part = jax.tree.map(lambda array: jax.lax.dynamic_slice_in_dim(array, first, rows), weight)
        return jax.lax.dynamic_update_slice_in_dim(y_TO, _product(x_TI, part, dtype), first, axis=1)

    if rows >= outputs:
        return _product(x_TI, weight, dtype)
    zeros = jnp.zeros((tokens, outputs), dtype or x_TI.dtype)
    y_TO: jax.Array = jax.lax.fori_loop(0, -(-outputs // rows), tile, zeros)
    return y_TO


def contract(x_TI: jax.Array, weight_OI: jax.Array, dtype: DTypeLike | None = None) -> jax.Array:
    """x W^T as `dtype` (default: of x); float32 operands are multiplied in full precision on every backend."""
    precision = jax.lax.Precision.HIGHEST if x_TI.dtype == jnp.float32 else None
    return jax.lax.dot_general(
        x_TI,
        weight_OI,
        (((1,), (1,)), ((), ())),
        precision=precision,
        preferred_element_type=dtype or x_TI.dtype,
    )
