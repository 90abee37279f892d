"""How parameters are declared: shape, dtype, logical axes and initialiser, once; the rest follows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from jaxserve.models.kernels.backend import AttentionBackend
from jaxserve.models.sharding import ShardingRules


@dataclass(frozen=True)
class Init:
    """Distribution of a random parameter."""

    kind: Literal["normal", "ones", "zeros"]
    std: float = 0.0

    def __call__(self, key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike) -> jax.Array:
        """Draw the parameter (float32 inside, then rounded to `dtype`)."""
        if self.kind == "normal":
            return (self.std * jax.random.normal(key, shape, jnp.float32)).astype(dtype)
        return jnp.full(shape, 1.0 if self.kind == "ones" else 0.0, dtype)


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


class Linear(nnx.Module):
    """y = x W^T + b, W stored [out, in].

    Contracting the last axis of both operands makes each row's result independent of the number of rows (for two or
    more; measured on XLA:CPU, float32), on which the reproducibility of tokens rests.
    """

    def __init__(
        self, build: Build, inputs: int, outputs: int, axes: tuple[str | None, str | None], *, bias: bool = False
    ) -> None:
        self.weight = build.parameter((outputs, inputs), axes, Init("normal", inputs**-0.5))
        self.bias = build.parameter((outputs,), axes[:1], ZEROS) if bias else None

    def matrix(self) -> jax.Array:
        """W [out, in], for products that take it apart."""
        return self.weight[...]

    def __call__(self, x_TI: jax.Array) -> jax.Array:
        """[T, in] -> [T, out], in the dtype of x."""
        y_TO = contract(x_TI, self.weight[...])
        return y_TO if self.bias is None else y_TO + self.bias[...]


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
