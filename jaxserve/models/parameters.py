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

from jaxserve.models.activations import glu
from jaxserve.models.choice import with_layer
from jaxserve.models.config import GluSpec, WeightFormat
from jaxserve.models.kernels.choice import Backends
from jaxserve.models.memory_order import Order
from jaxserve.models.quantization import (
    Weight,
    align_blocks,
    aligned,
    code_dtype,
    code_shape,
    scale_dtype,
    scale_shape,
)
from jaxserve.models.sharding import ShardingRules


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
    backends: Backends
    dtype: str
    norm_eps: float
    norm_offset: float = 0.0
    stack: int | None = None
    """Layers stacked in front of every parameter (scanned layers); None = one layer."""

    def parameter(
        self,
        shape: tuple[int, ...],
        axes: tuple[str | None, ...],
        init: Init,
        dtype: str | None = None,
        order: Order | None = None,
    ) -> nnx.Param[jax.ShapeDtypeStruct]:
        """Declare a parameter, of the model's dtype unless it says otherwise; `order` as in `memory_order`.

        Modules are built abstractly: values come from a checkpoint or from `init`.
        """
        if self.stack is not None:
            shape, axes = (self.stack, *shape), ("layers", *axes)
        value = jax.ShapeDtypeStruct(shape, jnp.dtype(dtype or self.dtype))
        return nnx.Param(value, out_sharding=axes, init=init, order=order, eager_sharding=False)

    def weight(
        self,
        shape: tuple[int, ...],
        axes: tuple[str | None, ...],
        form: WeightFormat | None,
        *,
        order: Order | None = None,
        scale_order: Order | None = None,
    ) -> tuple[nnx.Param[jax.ShapeDtypeStruct], nnx.Param[jax.ShapeDtypeStruct] | None]:
        """Declare the weight [..., out, in] of a projection as it is held: its values or codes, and its scales.

        The orders are of values or codes, and of scales for each block.
        """
        inputs = shape[-1]
        if form is None:
            return self.parameter(shape, axes, Init("normal", inputs**-0.5), order=order), None
        codes, scale = _random_codes(form, inputs)
        if form.tiled:
            axes = (*axes[:-1], None)
        scale_axes = (
            axes[:-1] if form.block is None else (*axes[:-1], axes[-1] if self._whole(form, inputs, axes[-1]) else None)
        )
        return (
            self.parameter(code_shape(shape, form), axes, codes, code_dtype(form), order),
            self.parameter(
                scale_shape(shape, form),
                scale_axes,
                scale,
                scale_dtype(form),
                None if form.block is None else scale_order,
            ),
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
        "uint4": (Init("bits"), 8.0),
    }[form.code]
    value = inputs**-0.5 / size
    return codes, Init("constant", value=value if form.scale != "e8m0" else round(math.log2(value)) + 127)


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
        return project(x_TI, self)[0]

    def local(self) -> Weight:
        """The weight, to pass into a `shard_map`: no block crosses the edge of a shard."""
        return align_blocks(self.held(), self.build.rules.parts(self.axes[1]))

    def partition(self) -> Weight:
        """How `local` is split."""
        return partition(self.build.rules, self.shape, self.axes, self.format)


def project(x_TI: jax.Array, *layers: Linear) -> tuple[jax.Array, ...]:
    """Each layer of the same [T, in] -> [T, out] each, in the dtype of x: one call of the kernels, where they can."""
    build = layers[0].build
    weights = [layer.held() for layer in layers]
    multiply = partial(build.backends.matmul.multiply_all, x_TI, local=build.rules.mesh.size == 1)
    products: tuple[jax.Array, ...] = with_layer(multiply, weights)
    biases = [layer.bias for layer in layers]
    return tuple(y if bias is None else y + bias[...] for y, bias in zip(products, biases, strict=True))


def project_gated(x_TI: jax.Array, gate: Linear, up: Linear, spec: GluSpec) -> jax.Array:
    """The gated activation of two layers of the same [T, in] -> [T, out]; one kernel, where there is one."""
    matmul, local = gate.build.backends.matmul, gate.build.rules.mesh.size == 1
    if not matmul.gates or gate.bias is not None or up.bias is not None:
        return glu(spec, *project(x_TI, gate, up))
    multiply = partial(matmul.multiply_gated, x_TI, spec=spec, local=local)
    inner: jax.Array = with_layer(lambda weights: multiply(*weights), [gate.held(), up.held()])
    return inner


def partition(
    rules: ShardingRules, shape: tuple[int, ...], axes: tuple[str | None, ...], form: WeightFormat | None
) -> Weight:
    """How the arrays of a weight [..., out, in] with these logical axes are split, its blocks aligned."""
    if form is None:
        return Weight(rules.spec(axes))
    scale = rules.spec(axes[:-1] if form.block is None else axes)
    return Weight(rules.spec(axes), scale, aligned(form, shape[-1], rules.parts(axes[-1])))
